//! The capsules on the CONNECT stream of a session (RFC 9297, draft-ietf-webtrans-http3): pure.

use super::super::http3::varint;

/// `CLOSE_WEBTRANSPORT_SESSION`: a code of four bytes, then a reason.
const CLOSE: u64 = 0x2843;
/// Longest reason in bytes, by the draft.
const REASON_BYTES_MAX: usize = 1024;
/// Bytes before the reason.
const CODE_BYTES: usize = 4;
/// Longest capsule of another type.
const CAPSULE_BYTES_MAX: u64 = 4 * 1024;
/// Most bytes of such capsules in one session: browsers send a few, to keep servers from choking on them.
const SKIPPED_BYTES_MAX: u64 = 64 * 1024;

/// What the peer said when it closed the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// Code of the application.
    pub(super) code: u32,
    /// Its reason.
    pub(super) reason: String,
}

/// Why the capsules cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CapsuleError {
    /// One is longer than it may be.
    #[error("a capsule is too long")]
    TooLong,
    /// There are too many of no use.
    #[error("too many capsules of unknown types")]
    TooMany,
    /// The one that closes has no code, or a reason that is not UTF-8.
    #[error("the capsule that closes the session is malformed")]
    Close,
}

/// Finds the capsule that closes in a stream of them; the others are skipped.
#[derive(Debug, Default)]
pub(super) struct CapsuleParser {
    /// Bytes of a capsule that has not come to its end: its head, or the whole of a close.
    held: Vec<u8>,
    /// Bytes still to be skipped.
    skip: u64,
    skipped: u64,
}

impl CapsuleParser {
    /// Takes the next bytes; gives the close once it is complete, after which nothing else counts.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Option<Closed>, CapsuleError> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[skipped..];
                self.skip -= skipped as u64;
                continue;
            }
            // Byte by byte: a session has one close and hardly any others.
            self.held.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(closed) = self.on_byte()? {
                return Ok(Some(closed));
            }
        }
        Ok(None)
    }

    fn on_byte(&mut self) -> Result<Option<Closed>, CapsuleError> {
        let Some((kind, used)) = varint::decode(&self.held) else { return Ok(None) };
        let Some((length, more)) = varint::decode(&self.held[used..]) else { return Ok(None) };
        let head = used + more;
        if kind != CLOSE {
            return self.begin_skip(head, length).map(|()| None);
        }
        if length > (CODE_BYTES + REASON_BYTES_MAX) as u64 {
            return Err(CapsuleError::TooLong);
        }
        if length < CODE_BYTES as u64 {
            return Err(CapsuleError::Close);
        }
        let body = &self.held[head..];
        if (body.len() as u64) < length {
            return Ok(None);
        }
        let (code, reason) = body.split_first_chunk::<CODE_BYTES>().ok_or(CapsuleError::Close)?;
        let reason = str::from_utf8(reason).map_err(|_| CapsuleError::Close)?.to_owned();
        Ok(Some(Closed { code: u32::from_be_bytes(*code), reason }))
    }

    fn begin_skip(&mut self, head: usize, length: u64) -> Result<(), CapsuleError> {
        if length > CAPSULE_BYTES_MAX {
            return Err(CapsuleError::TooLong);
        }
        self.skipped += head as u64 + length;
        if self.skipped > SKIPPED_BYTES_MAX {
            return Err(CapsuleError::TooMany);
        }
        self.held.clear();
        self.skip = length;
        Ok(())
    }
}

/// The capsule that closes a session; a reason that is too long is cut at a character.
pub(super) fn close(code: u32, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut capsule = Vec::with_capacity(2 * varint::BYTES_MAX + CODE_BYTES + reason.len());
    varint::encode(CLOSE, &mut capsule);
    varint::encode((CODE_BYTES + reason.len()) as u64, &mut capsule);
    capsule.extend_from_slice(&code.to_be_bytes());
    capsule.extend_from_slice(reason.as_bytes());
    capsule
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the bytes in two parts and then one by one.
    fn parse(bytes: &[u8], cut: usize) -> Result<Option<Closed>, CapsuleError> {
        let mut parser = CapsuleParser::default();
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        if let Some(closed) = parser.push(first)? {
            return Ok(Some(closed));
        }
        for byte in rest {
            if let Some(closed) = parser.push(&[*byte])? {
                return Ok(Some(closed));
            }
            assert!(parser.held.len() <= 2 * varint::BYTES_MAX + CODE_BYTES + REASON_BYTES_MAX);
        }
        Ok(None)
    }

    fn other(kind: u64, length: u64) -> Vec<u8> {
        let mut capsule = Vec::new();
        varint::encode(kind, &mut capsule);
        varint::encode(length, &mut capsule);
        capsule.resize(capsule.len() + length as usize, 0x28);
        capsule
    }

    proptest! {
        #[test]
        fn a_close_is_found_behind_any_capsules_however_it_is_split(
            code: u32,
            reason in "\\PC{0,200}",
            others in proptest::collection::vec((0u64..1 << 62, 0u64..600), 0..5),
            split in 0.0..1.0,
        ) {
            let mut bytes = Vec::new();
            for (kind, length) in others.iter().filter(|(kind, _)| *kind != CLOSE) {
                bytes.extend(other(*kind, *length));
            }
            bytes.extend(close(code, &reason));
            let cut = (bytes.len() as f64 * split) as usize;
            prop_assert_eq!(parse(&bytes[..bytes.len() - 1], cut), Ok(None));
            bytes.extend(other(0x17, 3));
            prop_assert_eq!(parse(&bytes, cut), Ok(Some(Closed { code, reason })));
        }

        #[test]
        fn any_bytes_at_all_are_read_the_same_however_they_are_split(
            bytes in proptest::collection::vec(prop_oneof![Just(0x68), Just(0x43), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            prop_assert_eq!(parse(&bytes, cut), parse(&bytes, 0));
            prop_assert_eq!(parse(&bytes, bytes.len()), parse(&bytes, 0));
        }
    }

    #[test]
    fn a_length_that_may_not_be_is_refused_before_its_bytes_come() {
        let head = |kind, length| {
            let mut bytes = Vec::new();
            varint::encode(kind, &mut bytes);
            varint::encode(length, &mut bytes);
            bytes
        };
        assert_eq!(parse(&head(0x17, (1 << 62) - 1), 0), Err(CapsuleError::TooLong));
        assert_eq!(parse(&head(0x17, CAPSULE_BYTES_MAX + 1), 0), Err(CapsuleError::TooLong));
        assert_eq!(parse(&head(CLOSE, 4 + 1025), 0), Err(CapsuleError::TooLong));
        assert_eq!(parse(&head(CLOSE, 3), 0), Err(CapsuleError::Close));
        let mut not_text = close(7, "x");
        *not_text.last_mut().unwrap() = 0xff;
        assert_eq!(parse(&not_text, 0), Err(CapsuleError::Close));
    }

    #[test]
    fn capsules_of_no_use_are_skipped_up_to_a_budget() {
        let mut parser = CapsuleParser::default();
        let capsule = other(0x2a, 1022);
        for _ in 0..SKIPPED_BYTES_MAX / capsule.len() as u64 {
            assert_eq!(parser.push(&capsule), Ok(None));
        }
        assert_eq!(parser.push(&capsule), Err(CapsuleError::TooMany));
        let mut parser = CapsuleParser::default();
        let flood = [0x00; 64 * 1024 + 2];
        assert_eq!(parser.push(&flood), Err(CapsuleError::TooMany), "empty ones count too");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let capsule = close(1, &"ü".repeat(600));
        let closed = parse(&capsule, 0).unwrap().unwrap();
        assert_eq!(closed.reason, "ü".repeat(512));
    }
}
