//! The heads of HTTP/2 frames in a stream of bytes: kind, flags, stream and length (RFC 9113, section 4.1). Pure.

/// Bytes of a head.
const HEAD_BYTES: usize = 9;

/// What stands before a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes that follow.
    pub(super) length: usize,
}

/// Kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    WindowUpdate,
    Continuation,
    /// PRIORITY, GOAWAY, and what clients do not send or nobody knows.
    Other,
}

/// The last frame of its side of a stream.
pub(super) const END_STREAM: u8 = 0x1;

impl Head {
    fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let kind = match kind {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x3 => Kind::Reset,
            0x4 => Kind::Settings,
            0x6 => Kind::Ping,
            0x8 => Kind::WindowUpdate,
            0x9 => Kind::Continuation,
            _ => Kind::Other,
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, length }
    }

    /// Its side of the stream ends with it.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }
}

/// Finds the heads, however the bytes are cut.
#[derive(Debug, Default)]
pub(super) struct Heads {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes of the frame that are still to come.
    body: usize,
}

impl Heads {
    /// Takes the next bytes; tells each head that is complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == HEAD_BYTES {
                let head = Head::read(self.head);
                (self.filled, self.body) = (0, head.length);
                tell(head);
            }
        }
    }

    /// No frame is under way.
    pub(super) fn between_frames(&self) -> bool {
        self.filled == 0 && self.body == 0
    }
}

/// A frame that ends the connection: it asks for calm, saying why.
pub(super) fn enhance_your_calm(last_stream: u32, why: &str) -> Vec<u8> {
    const GOAWAY: u8 = 0x7;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let length = 8 + why.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend(last_stream.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(why.as_bytes());
    frame
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of HTTP/2 as it stands on the wire.
    pub(in crate::http::serve) fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn heads_of(chunks: &[&[u8]]) -> (Vec<Head>, bool) {
        let (mut heads, mut found) = (Heads::default(), Vec::new());
        for chunk in chunks {
            heads.take(chunk, |head| found.push(head));
        }
        (found, heads.between_frames())
    }

    #[test]
    fn heads_are_read_and_bodies_skipped() {
        let bytes =
            [frame(1, 5, 1, b"abc"), frame(0, 1, 1, &[0; 300]), frame(9, 4, 0x8000_0003, b"")].concat();
        let (heads, between) = heads_of(&[&bytes]);
        let head = |kind, flags, stream, length| Head { kind, flags, stream, length };
        let expected =
            [head(Kind::Headers, 5, 1, 3), head(Kind::Data, 1, 1, 300), head(Kind::Continuation, 4, 3, 0)];
        assert_eq!(heads, expected);
        assert!(between);
        assert!(heads[1].ends_stream() && !heads[2].ends_stream());
        assert!(!heads_of(&[&bytes[..bytes.len() - 1]]).1, "the last head is not whole");
    }

    #[test]
    fn the_frame_that_asks_for_calm_is_a_goaway_with_the_reason() {
        let (heads, between) = heads_of(&[&enhance_your_calm(7, "too much")]);
        assert_eq!(heads, [Head { kind: Kind::Other, flags: 0, stream: 0, length: 16 }]);
        assert!(between);
        assert_eq!(enhance_your_calm(7, "x")[3..], [7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb, b'x']);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..9, 0usize..40), 0..12),
            cuts in prop::collection::vec(1usize..20, 1..60),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(kind, flags, stream, length)| frame(*kind, *flags, *stream, &vec![9; *length])).collect();
            let (mut chunks, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(heads_of(&chunks), heads_of(&[&bytes]));
        }
    }
}
