// What must hold for any input. The fuzz targets and an ordinary test share these bodies.

use tern_protocol::{Decoder, FRAME_BYTES_MAX, Incoming, TempId, encode, from_json, to_json};

/// Input that may decode to a frame over the limit when it is written again (a missing field
/// becomes one that is there) is left out.
const REWRITTEN_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;

fn fresh() -> TempId {
    TempId::from_bytes([0; 16])
}

/// The first byte says in pieces of which length the rest arrives.
pub(crate) fn decode_binary(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::default();
    for bytes in stream.chunks(usize::from(*piece).max(1)) {
        decoder.extend(bytes);
        loop {
            let before = decoder.buffered();
            match decoder.next() {
                Ok(None) => break,
                Err(error) if error.fatal() => return,
                Err(error) => assert!(error.to_string().len() <= 512, "{error}"),
                Ok(Some(Incoming::Skipped(_))) => {}
                Ok(Some(Incoming::Frame(envelope))) => {
                    let json = to_json(&envelope);
                    assert_eq!(from_json(&json, fresh).as_ref(), Ok(&envelope));
                    assert_eq!(read_one(&encode(&envelope)), Some(Incoming::Frame(envelope)));
                }
            }
            assert!(decoder.buffered() < before, "every frame uses up bytes");
        }
        assert!(decoder.buffered() <= FRAME_BYTES_MAX + 5, "more than one frame waits");
    }
}

/// Any bytes as one JSON text.
pub(crate) fn decode_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match from_json(text, fresh) {
        Err(error) => assert!(error.to_string().len() <= 512, "{error}"),
        Ok(envelope) if data.len() <= REWRITTEN_BYTES_MAX => {
            assert_eq!(from_json(&to_json(&envelope), fresh).as_ref(), Ok(&envelope));
            assert_eq!(read_one(&encode(&envelope)), Some(Incoming::Frame(envelope)));
        }
        Ok(_) => {}
    }
}

fn read_one(bytes: &[u8]) -> Option<Incoming> {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    decoder.next().expect("what was written can be read")
}
