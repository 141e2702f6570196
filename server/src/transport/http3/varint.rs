//! Variable-length integers of QUIC (RFC 9000, section 16): pure.

/// Most bytes of one.
pub(in crate::transport) const BYTES_MAX: usize = 8;

/// How many bytes a varint has that begins with this one.
pub(in crate::transport) fn length(first: u8) -> usize {
    1 << (first >> 6)
}

/// The value at the start of `bytes` and its length; `None` while it is incomplete.
pub(in crate::transport) fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = length(*bytes.first()?);
    let (first, rest) = bytes.get(..length)?.split_first()?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

/// Appends a value below 2^62 in as few bytes as it needs.
pub(in crate::transport) fn encode(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value < 1 << 62, "{value} is no varint");
    let bytes = value.to_be_bytes();
    let (skip, mark) = match value {
        0..0x40 => (7, 0x00),
        0x40..0x4000 => (6, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (0, 0xc0),
    };
    let start = out.len();
    out.extend_from_slice(&bytes[skip..]);
    out[start] |= mark;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let examples: [(&[u8], u64); 4] = [
            (&[0x25], 37),
            (&[0x7b, 0xbd], 15_293),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        ];
        for (bytes, value) in examples {
            assert_eq!(decode(bytes), Some((value, bytes.len())));
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            assert_eq!(encoded, bytes);
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)), "longer than needed is allowed");
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in 0u64..1 << 62) {
            let mut bytes = vec![0xff];
            encode(value, &mut bytes);
            prop_assert_eq!(decode(&bytes[1..]), Some((value, bytes.len() - 1)));
            prop_assert_eq!(length(bytes[1]), bytes.len() - 1);
        }
    }
}
