//! Varints: little-endian base 128, written in their shortest form and read in any.

/// A varint of 32 bits has at most this many bytes.
pub(crate) const VARINT32_BYTES_MAX: usize = 5;
/// A varint of 64 bits has at most this many bytes.
pub(crate) const VARINT64_BYTES_MAX: usize = 10;

/// Appends the shortest form.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the front of some bytes is.
pub(crate) enum Varint {
    /// Value and bytes used.
    Read(u64, usize),
    /// More bytes are needed.
    Short,
    /// Longer than allowed, or a value of more bits.
    Bad,
}

/// Reads a varint of at most so many bytes and this value, in any form.
pub(crate) fn read_varint(bytes: &[u8], bytes_max: usize, value_max: u64) -> Varint {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(bytes_max).enumerate() {
        let part = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if shift == 63 && part > 1 {
            return Varint::Bad;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return if value > value_max { Varint::Bad } else { Varint::Read(value, index + 1) };
        }
    }
    if bytes.len() >= bytes_max { Varint::Bad } else { Varint::Short }
}

/// A varint of 64 bits and the bytes it takes, or what is wrong with it.
pub(crate) fn read_varint64(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    match read_varint(bytes, VARINT64_BYTES_MAX, u64::MAX) {
        Varint::Read(value, used) => Ok((value, used)),
        Varint::Short => Err("it ends too early"),
        Varint::Bad => Err("a number has too many bytes or bits"),
    }
}
