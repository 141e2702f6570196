//! The rows of one block of a table, as bytes. Nothing in it is trusted: what does not fit is no block.
//!
//! The format is that of lsm-tree 3, uncompressed. Rows one after the other, then `255`, an index and a
//! trailer of 31 bytes that begins with the number of rows between two that have their whole key. A row is
//! kind u8 · seqno · (key length, or at the others: length shared with the last whole key · length of the
//! rest) · key, and of a value its length and itself; numbers are varints.

use bytes::Bytes;

/// Bytes at the end of a block.
const TRAILER_BYTES: usize = 31;
/// What comes after the last row.
const END: u8 = 255;

/// One version of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) key: Bytes,
    pub(super) seqno: u64,
    /// `None`: it was removed.
    pub(super) value: Option<Bytes>,
}

/// The rows of a block; `None` if it is none.
pub(super) fn read(block: &[u8]) -> Option<Vec<Version>> {
    let trailer = block.len().checked_sub(TRAILER_BYTES)?;
    let interval = usize::from(block[trailer]).max(1);
    let mut reader = Reader(&block[..trailer]);
    let (mut versions, mut whole) = (Vec::<Version>::new(), Bytes::new());
    loop {
        let kind = reader.byte()?;
        if kind == END {
            return Some(versions);
        }
        let is_value = match kind {
            0 => true,
            1 | 2 => false,
            _ => return None,
        };
        let seqno = reader.varint()?;
        let key: Bytes = if versions.len().is_multiple_of(interval) {
            let length = reader.varint()?;
            whole = Bytes::copy_from_slice(reader.take(length)?);
            whole.clone()
        } else {
            let (shared, rest) = (reader.varint()?, reader.varint()?);
            let shared = whole.get(..usize::try_from(shared).ok()?)?;
            [shared, reader.take(rest)?].concat().into()
        };
        let length = if is_value { reader.varint()? } else { 0 };
        let value = reader.take(length)?;
        if versions.last().is_some_and(|last| last.key > key) {
            return None;
        }
        versions.push(Version { key, seqno, value: is_value.then(|| Bytes::copy_from_slice(value)) });
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: &[u8]) -> Vec<u8> {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[0] = 2;
        [rows, &trailer].concat()
    }

    #[test]
    fn rows_with_whole_and_shortened_keys_are_read() {
        let rows = b"\x00\x07\x02ab\x03one\x01\x81\x01\x01\x01c\x00\x05\x02ba\x00\xff\x00\x00".as_slice();
        let found = read(&block(rows)).unwrap();
        let row = |key: &'static str, seqno, value: Option<&'static str>| Version {
            key: key.into(),
            seqno,
            value: value.map(Into::into),
        };
        assert_eq!(found, [row("ab", 7, Some("one")), row("ac", 129, None), row("ba", 5, Some(""))]);
    }

    #[test]
    fn what_does_not_fit_is_no_block() {
        let whole = block(b"\x00\x07\x02ab\x03one\x01\x01\x01\x01c\xff");
        assert!(read(&whole).is_some());
        for byte in [3, 5, 9, 12, 14] {
            let mut bytes = whole.clone();
            bytes[byte] = 0xfe;
            let _ = read(&bytes); // whatever it is, it is no panic
        }
        for length in 0..whole.len() - TRAILER_BYTES {
            assert_eq!(read(&block(&whole[..length])), None, "{length} bytes");
        }
        assert_eq!(read(&block(b"\x00\x01\x01b\x00\x00\x01\x01a\x00\xff")), None, "a wrong order");
    }
}
