//! Input made to hurt: it costs no more than its own length, and nothing panics.

mod samples;
mod strategies;

#[path = "../fuzz/checks.rs"]
mod checks;

use std::fmt;
use std::path::Path;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use tern_protocol::*;

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut length = payload.len();
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(payload);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Incoming>, DecodeError> {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    decoder.next()
}

/// A list element of no bytes would be "read" 2^64 times: this test would never end.
#[test]
fn a_huge_claimed_length_anywhere_in_any_frame_ends_at_once() {
    let edges = samples::edges().into_iter().map(|(_, frame)| frame);
    for frame in samples::ordinary().into_iter().chain(edges) {
        let name = frame.name();
        let bytes = encode(&frame.into());
        let payload = &bytes[if bytes[0] < 0x80 { 1 } else { 2 }..];
        for claim in
            [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            for at in 2..payload.len() {
                let mut hostile = payload[..at].to_vec();
                hostile.extend_from_slice(claim);
                hostile.extend_from_slice(&payload[at + 1..]);
                if let Err(error) = decode(&framed(&hostile)) {
                    assert!(!error.fatal(), "{name} at {at}: {error}");
                }
            }
        }
    }
}

/// A type that may contain itself would read each byte as one more level and overflow the stack.
#[test]
fn no_byte_repeated_through_a_whole_frame_nests() {
    for (number, ..) in Frame::TABLE {
        for byte in 0..=255u8 {
            let mut payload = vec![byte; FRAME_BYTES_MAX - 3];
            payload[0] = *number as u8;
            payload[1] = 1;
            let _ = decode(&framed(&payload));
        }
    }
}

#[test]
fn nested_json_is_refused_without_recursing() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = FRAME_BYTES_MAX / (open.len() + close.len());
        let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(from_json(&text, fresh).is_err());
        let field = format!(r#"{{"type":"ping","x":{text}}}"#);
        assert_eq!(from_json(&field, fresh), Ok(Ping { nonce: 0 }.into()), "what is not known is skipped");
        for name in ["type", "request_id", "nonce"] {
            let field = format!(r#"{{"type":"ping","{name}":{text}}}"#);
            assert!(from_json(&field, fresh).is_err(), "{name}");
        }
        let data = format!(r#"{{"to":"bob","data":{text}}}"#);
        assert!(matches!(from_json(&data, fresh), Err(DecodeError::Body { .. })));
        assert!(matches!(Data::new(&text), Err(DataError::Json(_))));
        // A body of a later version is kept as the text it is: nobody walks down into it.
        let body = format!(r#"{{"kind":"later","x":{text}}}"#);
        let body: EntryBody = serde_json::from_str(&body).expect("a body");
        assert_eq!(serde_json::to_string(&body).expect("JSON").len(), text.len() + 21);
    }
}

/// The codec relies on its serialisation format to offer no room for elements that cannot be there.
#[test]
fn a_list_longer_than_its_frame_reserves_nothing() {
    struct Offered(Option<usize>);
    impl<'de> Deserialize<'de> for Offered {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Hint;
            impl<'de> Visitor<'de> for Hint {
                type Value = Offered;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Offered, A::Error> {
                    Ok(Offered(list.size_hint()))
                }
            }
            deserializer.deserialize_seq(Hint)
        }
    }
    let offered = |bytes: &[u8]| postcard::take_from_bytes::<Offered>(bytes).expect("a length").0.0;
    assert_eq!(offered(&[3, 0, 0, 0]), Some(3));
    assert_eq!(offered(&[4, 0, 0, 0]), None);
    assert_eq!(offered(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]), None);
}

#[test]
fn an_error_never_grows_with_its_input() {
    let long = "ä".repeat(30_000);
    for text in [
        format!(r#"{{"type":"{long}"}}"#),
        format!(r#"{{"type":"ping","nonce":"{long}"}}"#),
        format!(r#"{{"type":"set_role","role":"{long}"}}"#),
        long,
    ] {
        let error = from_json(&text, fresh).expect_err("nothing of this is a frame");
        assert!(error.to_string().len() <= 2 * DETAIL_BYTES_MAX, "{} bytes", error.to_string().len());
        let answer = Error {
            code: error.code(),
            temporary: false,
            retry_after_ms: None,
            detail: error.to_string(),
            temp_id: None,
            conversation: None,
        };
        assert!(encode(&answer.into()).len() < 1024);
    }
}

#[test]
fn the_json_form_of_a_full_frame_stays_below_its_limit() {
    let conversation = ConversationId::from_bytes([255; 16]);
    let entry = |seq, text: String| Entry {
        seq,
        id: EntryId::from_bytes([255; 16]),
        time_ms: 1,
        sender: UserId::new("\"").expect("a valid user id"),
        sender_name: None,
        temp_id: None,
        messages: 1,
        body: EntryBody::text(text),
    };
    let filled = |text: &str| {
        let each = postcard::to_allocvec(&entry(1, text.into())).expect("an entry").len();
        let entries = (0..PAGE_BYTES_MAX / each).map(|_| entry(1, text.into())).collect();
        Envelope::from(Deliver { conversation, entries })
    };
    for text in ["\u{1}".repeat(TEXT_BYTES_MAX), "\u{1}".into(), "x".into()] {
        let envelope = filled(&text);
        assert!(encode(&envelope).len() <= FRAME_BYTES_MAX);
        let json = to_json(&envelope);
        assert!(json.len() <= JSON_BYTES_MAX, "{} bytes", json.len());
    }
}

/// Text and data at their limit, and a later kind that fills the frame.
#[test]
fn the_largest_bodies_fit_in_a_frame() {
    let half = "x".repeat(TEXT_BYTES_MAX / 2);
    let message = EntryBody::Message {
        text: half.clone(),
        data: Some(Data::new(&format!("{half:?}")).expect("JSON")),
        reply_to: Some(u64::MAX),
    };
    for body in [message, EntryBody::Opaque { kind: u32::MAX - 1, bytes: vec![0xff; PAGE_BYTES_MAX] }] {
        let entry = Entry {
            seq: u64::MAX,
            id: EntryId::from_bytes([255; 16]),
            time_ms: u64::MAX,
            sender: UserId::new(&"u".repeat(USER_ID_BYTES_MAX)).expect("a valid user id"),
            sender_name: Some("n".repeat(NAME_BYTES_MAX)),
            temp_id: Some(fresh()),
            messages: u64::MAX,
            body,
        };
        let conversation = ConversationId::from_bytes([255; 16]);
        let envelope = Envelope::from(Deliver { conversation, entries: vec![entry] });
        let bytes = encode(&envelope);
        assert!(bytes.len() <= FRAME_BYTES_MAX, "{} bytes", bytes.len());
        assert!(to_json(&envelope).len() <= JSON_BYTES_MAX);
        assert_eq!(decode(&bytes), Ok(Some(Incoming::Frame(envelope))));
    }
}

fn fresh() -> TempId {
    TempId::from_bytes([0; 16])
}

#[test]
fn the_fuzz_corpora_hold() {
    replay("decode_binary", checks::decode_binary);
    replay("decode_json", checks::decode_json);
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for file in std::fs::read_dir(&folder).expect("the corpus is part of the crate") {
        check(&std::fs::read(file.expect("a readable entry").path()).expect("a readable file"));
        replayed += 1;
    }
    assert!(replayed >= 10, "{target}: only {replayed} inputs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        checks::decode_binary(&bytes);
    }

    #[test]
    fn random_bodies_of_known_types_never_panic(
        row in 0..Frame::TABLE.len(),
        flags in 0u8..4,
        body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
    ) {
        let payload = [&[Frame::TABLE[row].0 as u8, flags][..], &body].concat();
        checks::decode_binary(&[&[7][..], &framed(&payload)].concat());
    }

    #[test]
    fn damaged_frames_never_panic(
        envelope in strategies::envelope(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&envelope);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        checks::decode_binary(&[&[200][..], &bytes].concat());
        let mut json = to_json(&envelope).into_bytes();
        let at = at % json.len();
        json[at] = byte;
        checks::decode_json(&json);
    }
}
