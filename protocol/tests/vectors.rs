//! The golden vectors: bytes and JSON of every frame, derived ids, and what must be refused.
//!
//! Every codec of this protocol, in any language, tests against the files in `protocol/vectors`.
//! A change of a file is a change of the wire. `TERN_UPDATE_VECTORS=1 cargo test -p tern-protocol`
//! writes them anew.

mod samples;

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use serde::Serialize;
use tern_protocol::*;

#[derive(Serialize)]
struct Valid {
    name: String,
    hex: String,
    /// The text itself, since JSON parsers differ on large numbers.
    json: String,
}

#[derive(Serialize)]
struct AcceptedBytes {
    name: &'static str,
    hex: String,
    /// The same frame in JSON.
    json: String,
}

#[derive(Serialize)]
struct Accepted {
    name: &'static str,
    json: String,
    /// The same frame in binary.
    hex: String,
}

#[derive(Serialize)]
struct Refused {
    name: String,
    #[serde(flatten)]
    input: Input,
    error: &'static str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<u64>,
    /// What the error names, where it could be read: the change, and user or conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    temp_id: Option<TempId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Target>,
    /// The stream cannot be read any further.
    fatal: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Input {
    Hex(String),
    Json(String),
}

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", name].iter().collect()
}

/// Compares with the file, or writes it if asked to. One vector a line, so that diffs are readable.
fn check(name: &str, vectors: &[impl Serialize]) {
    let lines: Vec<String> =
        vectors.iter().map(|vector| serde_json::to_string(vector).expect("a plain value")).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    let path = file(name);
    if std::env::var_os("TERN_UPDATE_VECTORS").is_some() {
        std::fs::write(&path, text).expect("vectors can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).expect("the vectors are part of the crate");
    for (line, (old, new)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(old, new, "{name} line {}: the wire has changed", line + 1);
    }
    assert_eq!(golden.len(), text.len(), "{name}: vectors were added or lost");
}

fn hex(envelope: &Envelope) -> String {
    HEXLOWER.encode(&encode(envelope))
}

fn decode_one(bytes: &[u8]) -> Result<Option<Incoming>, DecodeError> {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    let first = decoder.next()?;
    if first.is_none() {
        decoder.finish()?;
    }
    Ok(first)
}

fn fresh() -> TempId {
    TempId::from_bytes([7; 16])
}

fn envelopes() -> Vec<(String, Envelope)> {
    let mut all = Vec::new();
    for frame in samples::ordinary() {
        let name = frame.name();
        all.push((name.to_owned(), Envelope { request: None, frame: frame.clone() }));
        all.push((format!("{name}: of a request"), Envelope { request: Some(5), frame }));
    }
    for (name, frame) in samples::edges() {
        all.push((name, Envelope { request: None, frame }));
    }
    let frame: Frame = Ping { nonce: 0 }.into();
    all.push(("ping: largest request id".into(), Envelope { request: Some(u64::MAX), frame }));
    all
}

#[test]
fn every_frame_has_golden_vectors() {
    let ordinary = samples::ordinary();
    let covered: Vec<_> = ordinary.iter().map(|frame| (frame.number(), frame.name(), frame.side())).collect();
    assert_eq!(covered, Frame::TABLE, "one ordinary sample for each row of the frame table, in its order");
}

#[test]
fn frames_have_the_golden_bytes_and_json_and_both_read_back() {
    let mut vectors = Vec::new();
    for (name, envelope) in envelopes() {
        let bytes = encode(&envelope);
        let json = to_json(&envelope);
        assert_eq!(decode_one(&bytes), Ok(Some(Incoming::Frame(envelope.clone()))), "{name}");
        assert_eq!(from_json(&json, fresh), Ok(envelope), "{name}");
        vectors.push(Valid { name, hex: HEXLOWER.encode(&bytes), json });
    }
    check("frames.json", &vectors);
}

#[test]
fn json_may_be_written_in_these_ways() {
    let texts = [
        ("bare send", r#"{"to":"user_123","text":"hi","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#),
        ("bare send without temp_id: the server makes one", r#"{"to":"user_123","text":"hi"}"#),
        ("send with its type", r#"{"type":"send","to":"bob","text":"hi"}"#),
        ("unknown fields are ignored", r#"{"type":"ping","nonce":1,"colour":"red","x":{"y":[1]}}"#),
        ("any order of fields", r#"{"nonce":1,"request_id":9,"type":"ping"}"#),
        ("null is absent", r#"{"type":"list_conversations","cursor":null,"request_id":null}"#),
        ("hello with a token only", r#"{"type":"hello","token":"t"}"#),
        ("close with nothing", r#"{"type":"close"}"#),
        ("sync with nothing", r#"{"type":"sync"}"#),
        (
            "create_group without members",
            r#"{"type":"create_group","name":"g","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#,
        ),
        (
            "a conversation id in capitals",
            r#"{"type":"list_members","conversation":"c:AAAQEAYEAUDAOCAJBIFQYDIOB4"}"#,
        ),
        (
            "a UUID without hyphens",
            r#"{"to":"bob","text":"hi","temp_id":"0190C7A25F2E7C3D9A413F6B2D8E1C05"}"#,
        ),
        ("escapes and spaces", " { \"to\" : \"b\\u006fb\" ,\n\"text\":\"\\ud83d\\ude00\" } "),
        (
            "a conversation id all in capitals",
            r#"{"type":"list_members","conversation":"C:AAAQEAYEAUDAOCAJBIFQYDIOB4"}"#,
        ),
        ("a recipient whose letters are put together", r#"{"to":"jose\u0301","text":"hi"}"#),
        ("no text beside data", r#"{"to":"bob","data":{"a":1}}"#),
        (
            "half a character is U+FFFD",
            r#"{"to":"bob","text":"cut \ud83d","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#,
        ),
        ("the other half, and a whole one", r#"{"to":"bob","text":"\udc4d \ud83d\udc4d"}"#),
        ("half a character in data", r#"{"to":"bob","data":{"\ud83d":"\\ud83d \ud83d"}}"#),
        ("a negative age is 0", r#"{"to":"bob","text":"hi","age_ms":-5}"#),
        ("an age with a fraction", r#"{"to":"bob","text":"hi","age_ms":12.9}"#),
        ("an age beyond all numbers", r#"{"to":"bob","text":"hi","age_ms":1e300}"#),
        (
            "whole numbers with a fraction of zero",
            r#"{"type":"fetch","request_id":5.0,"conversation":"c:aaaqeayeaudaocajbifqydiob4","before":12.0,"limit":2e1}"#,
        ),
        ("data that is not an object", r#"{"to":"bob","text":"hi","data":false}"#),
        ("data of null is absent", r#"{"to":"bob","text":"hi","data":null,"reply_to":null}"#),
        (
            "white space in data goes, all else stays",
            "{\"to\":\"bob\",\"data\": { \"b\" : [ 1.50 , 1E2 ] ,\n\"a b\": \" \\\" \\u0061 \" } }",
        ),
    ];
    let bodies = [
        ("a body whose kind comes last", r#"{"text":"hi","kind":"message"}"#),
        ("a body with a field of a later version", r#"{"kind":"left","user":"a","why":["x"]}"#),
        ("a body whose values are null", r#"{"kind":"message","text":"hi","data":null,"reply_to":null}"#),
        ("a body of a kind known by name", r#"{ "kind" : "reacted", "to": [1,  {"a b":null}] }"#),
        ("a body of a kind with a name and nothing else", r#"{"kind":"8"}"#),
        ("a body of a kind known by number", r#"{"kind":"opaque","number":200,"bytes":"AmhpAA"}"#),
        ("a body of a kind that the reader knows", r#"{"kind":"opaque","number":0,"bytes":"AmhpAAA"}"#),
    ];
    let bodies = bodies.map(|(name, body)| (name, deliver_json(body)));
    let texts = texts.into_iter().map(|(name, json)| (name, json.to_owned())).chain(bodies);
    let vectors: Vec<Accepted> = texts
        .map(|(name, json)| {
            let envelope = from_json(&json, fresh).unwrap_or_else(|error| panic!("{name}: {error}"));
            Accepted { name, json, hex: hex(&envelope) }
        })
        .collect();
    check("json_accepted.json", &vectors);
}

/// A deliver of one entry with this body.
fn deliver_json(body: &str) -> String {
    let id = "01010101-0101-0101-0101-010101010101";
    let entry = format!(r#"{{"seq":1,"id":"{id}","time_ms":2,"sender":"a","messages":1,"body":{body}}}"#);
    let conversation = "c:aaaqeayeaudaocajbifqydiob4";
    format!(r#"{{"type":"deliver","conversation":"{conversation}","entries":[{entry}]}}"#)
}

/// The same in binary: the body is its kind, its length and its fields.
fn deliver_bytes(body: &[u8]) -> Vec<u8> {
    let entry = [&[1u8][..], &[1; 16], &[2, 1, b'a', 0, 0, 1]].concat();
    framed(&[&[19u8, 1][..], &[7; 16], &[1], &entry, body].concat())
}

#[test]
fn bytes_may_be_written_in_these_ways() {
    let send = |data: &str| {
        let head = [&[16u8, 1, 0, 1, b'a', 0][..], &[3; 16], &[0, 1, data.len() as u8]].concat();
        framed(&[&head[..], data.as_bytes(), &[0]].concat())
    };
    let cases = [
        ("a message with fields of a later version", deliver_bytes(&[0, 7, 2, b'h', b'i', 0, 0, 0xff, 0xfe])),
        ("a tombstone with fields of a later version", deliver_bytes(&[7, 3, 1, 2, 3])),
        ("a kind and a length that are padded", deliver_bytes(&[0x87, 0x80, 0, 0x80, 0])),
        ("a later kind", deliver_bytes(&[0xc8, 1, 2, 0xff, 0xfe])),
        ("a later kind whose number and length are padded", deliver_bytes(&[0xc8, 0x81, 0, 0x81, 0, 9])),
        (
            "the number of kinds known by name, without JSON",
            deliver_bytes(&[0xff, 0xff, 0xff, 0xff, 0xf, 1, b'{']),
        ),
        ("data with white space", send(" { \"a\" : [ 1 ] }\n")),
    ];
    let vectors: Vec<AcceptedBytes> = cases
        .into_iter()
        .map(|(name, bytes)| match decode_one(&bytes) {
            Ok(Some(Incoming::Frame(envelope))) => {
                AcceptedBytes { name, hex: HEXLOWER.encode(&bytes), json: to_json(&envelope) }
            }
            other => panic!("{name}: {other:?}"),
        })
        .collect();
    check("binary_accepted.json", &vectors);
}

/// Whoever hands on what it does not know changes nothing of it.
#[test]
fn what_is_not_known_is_written_as_it_came() {
    for body in [&[0xc8, 1, 2, 0xff, 0xfe][..], &[8, 0], &[0xff, 0xff, 0xff, 0xff, 0xf, 1, b'{']] {
        let bytes = deliver_bytes(body);
        let Ok(Some(Incoming::Frame(envelope))) = decode_one(&bytes) else { panic!("{body:?} is a body") };
        let Frame::Deliver(deliver) = &envelope.frame else { panic!("a deliver") };
        assert!(matches!(deliver.entries[0].body, EntryBody::Opaque { .. }) && deliver.entries[0].seq == 1);
        assert_eq!(encode(&envelope), bytes);
        assert_eq!(from_json(&to_json(&envelope), fresh), Ok(envelope));
    }
    let named = deliver_json(r#"{"kind":"reacted","with":[1.50,"\ud83d\udc4d"]}"#);
    let read = from_json(&named, fresh).expect("a deliver");
    assert!(to_json(&read).contains(r#""body":{"kind":"reacted","with":[1.50,"\ud83d\udc4d"]}"#));
}

#[derive(Serialize)]
struct Derived {
    name: &'static str,
    kind: &'static str,
    /// The two users of a pair; the creator and the temp_id of a group.
    parts: [String; 2],
    hex: String,
    text: String,
}

#[test]
fn conversation_ids_derive_the_same_everywhere() {
    let pairs = [
        ("a pair", "alice", "bob"),
        ("the same pair in the other order", "bob", "alice"),
        ("a user alone", "alice", "alice"),
        ("lengths keep these apart: first", "ab", "c"),
        ("lengths keep these apart: second", "a", "bc"),
        ("order is by bytes, not by letters", "Zoe", "anna"),
        ("many bytes", "zoë", "世界"),
        ("letters that are put together", "zoe\u{308}", "世界"),
    ];
    let user = |text: &str| UserId::new(text).expect("a valid user id");
    let mut vectors: Vec<Derived> = pairs
        .into_iter()
        .map(|(name, a, b)| {
            derived(name, "pair", [a.into(), b.into()], ConversationId::pair(&user(a), &user(b)))
        })
        .collect();
    let temp_id = "0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05";
    for (name, creator) in [("a group", "alice"), ("the same temp_id of another creator", "bob")] {
        let id = ConversationId::group(&user(creator), &temp_id.parse().expect("a UUID"));
        vectors.push(derived(name, "group", [creator.into(), temp_id.into()], id));
    }
    assert_eq!(vectors[0].text, vectors[1].text);
    assert_ne!(vectors[3].text, vectors[4].text);
    check("conversation_ids.json", &vectors);
}

fn derived(name: &'static str, kind: &'static str, parts: [String; 2], id: ConversationId) -> Derived {
    assert_eq!(id.to_string().parse(), Ok(id));
    Derived { name, kind, parts, hex: HEXLOWER.encode(id.as_bytes()), text: id.to_string() }
}

/// A frame around a payload, with the length it has.
fn framed(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 128, "the length must fit in one byte");
    let mut bytes = vec![payload.len() as u8];
    bytes.extend_from_slice(payload);
    bytes
}

fn broken_bytes() -> Vec<(String, Vec<u8>)> {
    let whole = encode(&Envelope {
        request: Some(5),
        frame: samples::ordinary().into_iter().find(|frame| frame.name() == "send").expect("a send"),
    });
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for end in 1..whole.len() {
        cases.push((format!("the stream ends after {end} bytes of a send"), whole[..end].to_vec()));
    }
    for end in 1..whole.len() {
        cases.push((format!("a send of {} bytes only", end - 1), framed(&whole[1..end])));
    }
    let text = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let nine = [0x80u8; 9];
    let with = |head: &[u8], middle: &[u8], tail: &[u8]| framed(&[head, middle, tail].concat());
    cases.extend([
        text("length of 64 KiB and one", &[0x81, 0x80, 0x04]),
        text("length of 2^32-1", &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        text("length of 2^32", &[0x80, 0x80, 0x80, 0x80, 0x10]),
        text("length of six bytes", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        text("length of zero", &[0]),
        text("type of six bytes", &framed(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 1])),
        text("type of 2^32", &framed(&[0x80, 0x80, 0x80, 0x80, 0x10, 1])),
        text("reserved flag 4", &framed(&[6, 5, 0])),
        text("reserved flag 128", &framed(&[6, 0x81, 0])),
        ("request id of eleven bytes".into(), with(&[6, 3, 0x80], &nine, &[0, 0])),
        ("request id of 2^64".into(), with(&[6, 3], &nine, &[2, 0])),
        ("number of 2^64 in a body".into(), with(&[6, 1], &nine, &[2])),
        text("a byte too many", &framed(&[6, 1, 0, 0])),
        text("unknown type, critical", &framed(&[99, 1, 1, 2, 3])),
        text("unknown type, critical, of a request", &framed(&[99, 3, 5, 1, 2, 3])),
        text("text that is not UTF-8", &framed(&[3, 1, 2, 0xc3, 0x28])),
        text("text of a surrogate", &framed(&[3, 1, 3, 0xed, 0xa0, 0x80])),
        text("text longer than the frame", &framed(&[3, 1, 100, b'x'])),
        text("bool of 2", &framed(&[24, 1, 0, 2])),
        text("option of 2", &framed(&[38, 1, 2, 0])),
        text("list of 2^28 elements", &framed(&[48, 1, 0xff, 0xff, 0xff, 0x7f])),
        text("unknown role", &framed(&[&[37u8, 1][..], &[0; 16], &[1, b'b', 3], &[0; 16]].concat())),
        text("unknown variant of a target", &framed(&[50, 1, 2, 1, b'b'])),
        text("empty user id", &framed(&[50, 1, 0, 0])),
        text("user id that looks like a conversation id", &framed(&[50, 1, 0, 3, b'c', b':', b'x'])),
        text("user id that begins with C:", &framed(&[50, 1, 0, 3, b'C', b':', b'x'])),
        text("user id with a control character", &framed(&[50, 1, 0, 2, b'a', 7])),
        text("user id with a space at its end", &framed(&[50, 1, 0, 2, b'a', b' '])),
        text("user id with a character that shows nothing", &framed(&[50, 1, 0, 4, b'a', 0xe2, 0x80, 0x8b])),
        text("code of 2^16", &framed(&[10, 1, 0x80, 0x80, 0x04, 0, 0, 0])),
    ]);
    let bodies: [(&str, &[u8]); 14] = [
        ("nothing", &[]),
        ("no length", &[0]),
        ("a length beyond the frame", &[0xc8, 1, 3, 1, 2]),
        ("a length beyond any frame", &[0xc8, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a kind of 2^32", &[0x80, 0x80, 0x80, 0x80, 0x10, 0]),
        ("a message of no bytes", &[0, 0]),
        ("a message that ends after its text", &[0, 3, 2, b'h', b'i']),
        ("a message whose text is longer than its body", &[0, 4, 9, b'h', b'i', 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a message whose text is not UTF-8", &[0, 5, 2, 0xc3, 0x28, 0, 0]),
        ("data that is not JSON", &[0, 6, 0, 1, 1, b'{', 0, 0]),
        ("data of null", &[0, 8, 0, 1, 4, b'n', b'u', b'l', b'l', 0]),
        ("data of two values", &[0, 7, 0, 1, 3, b'1', b' ', b'2', 0]),
        ("an option of 2 in a body", &[0, 3, 0, 2, 0]),
        ("an unknown role", &[6, 3, 1, b'b', 3]),
    ];
    cases.extend(bodies.map(|(name, body)| (format!("an entry body: {name}"), deliver_bytes(body))));
    let mut long = vec![129 + 4, 1, 50, 1, 0, 129, 1];
    long.extend([b'u'; 129]);
    long.splice(..2, [134, 1]);
    cases.push(("user id of 129 bytes".into(), long));
    cases
}

fn kind(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::TooLarge(_) => "too_large",
        DecodeError::BadLength => "bad_length",
        DecodeError::Truncated => "truncated",
        DecodeError::Header(_) => "header",
        DecodeError::UnknownCritical { .. } => "unknown_critical",
        DecodeError::UnknownType { .. } => "unknown_type",
        DecodeError::Body { .. } => "body",
        DecodeError::Json { .. } => "json",
    }
}

fn refused(name: String, input: Input, error: &DecodeError) -> Refused {
    Refused {
        name,
        input,
        error: kind(error),
        code: error.code().0,
        request_id: error.request(),
        temp_id: error.about().temp_id,
        to: error.about().to,
        fatal: error.fatal(),
    }
}

#[test]
fn broken_bytes_are_refused_with_the_golden_error() {
    let vectors: Vec<Refused> = broken_bytes()
        .into_iter()
        .map(|(name, bytes)| match decode_one(&bytes) {
            Err(error) => refused(name, Input::Hex(HEXLOWER.encode(&bytes)), &error),
            Ok(read) => panic!("{name} was read as {read:?}"),
        })
        .collect();
    check("binary_refused.json", &vectors);
}

#[test]
fn after_a_broken_frame_the_next_is_read_unless_the_error_is_fatal() {
    let ping: Envelope = Ping { nonce: 1 }.into();
    for (name, mut bytes) in broken_bytes() {
        if matches!(decode_one(&bytes), Err(DecodeError::Truncated)) {
            continue; // what follows would be the rest of that frame
        }
        bytes.extend(encode(&ping));
        let mut decoder = Decoder::default();
        decoder.extend(&bytes);
        let error = decoder.next().expect_err("the frame is broken");
        let next = decoder.next();
        if error.fatal() {
            assert_eq!(next, Err(error), "{name}: the same error again");
        } else {
            assert_eq!(next, Ok(Some(Incoming::Frame(ping.clone()))), "{name}");
        }
    }
}

#[test]
fn an_unknown_optional_type_is_skipped_and_a_padded_number_is_read() {
    let skipped = framed(&[99, 0, 1, 2, 3]);
    assert_eq!(decode_one(&skipped), Ok(Some(Incoming::Skipped(99))));
    let skipped_request = framed(&[0xb9, 0x60, 2, 5, 1, 2, 3]);
    assert_eq!(decode_one(&skipped_request), Ok(Some(Incoming::Skipped(12_345))));
    // Senders write the shortest form; receivers need not insist on it.
    let padded = [0x84, 0x00, 6, 1, 0x81, 0x00];
    assert_eq!(decode_one(&padded), Ok(Some(Incoming::Frame(Ping { nonce: 1 }.into()))));
}

#[test]
fn broken_json_is_refused_with_the_golden_error() {
    let nested = format!(r#"{{"to":"bob","data":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    let texts = [
        ("nothing", ""),
        ("not JSON", "hello"),
        ("cut short", r#"{"type":"ping""#),
        ("two frames", r#"{"type":"ping"}{"type":"ping"}"#),
        ("not an object", r#"["ping"]"#),
        ("a type that is no string", r#"{"type":6}"#),
        ("an unknown type", r#"{"type":"shout","request_id":5}"#),
        ("a request id that is no number", r#"{"type":"ping","request_id":"5"}"#),
        ("a negative request id", r#"{"type":"ping","request_id":-1}"#),
        ("a negative number", r#"{"type":"ping","nonce":-1,"request_id":5}"#),
        ("a number with a fraction", r#"{"type":"ping","nonce":1.5}"#),
        ("a number of 2^64", r#"{"type":"ping","nonce":18446744073709551616}"#),
        ("a number as text", r#"{"type":"ping","nonce":"1"}"#),
        ("a missing field", r#"{"type":"send","text":"hi"}"#),
        ("a temp_id that is no UUID", r#"{"to":"bob","text":"hi","temp_id":"1"}"#),
        ("a recipient whose name ends in a space", r#"{"to":"bob ","text":"hi"}"#),
        ("a recipient with a character that shows nothing", r#"{"to":"bob\u200b","text":"hi"}"#),
        ("a recipient written from right to left", r#"{"to":"\u202ebob","text":"hi"}"#),
        ("a recipient that looks like a conversation in capitals", r#"{"to":"C:bob","text":"hi"}"#),
        ("an empty recipient", r#"{"to":"","text":"hi"}"#),
        ("a short conversation id", r#"{"to":"c:abc","text":"hi"}"#),
        ("a recipient with a control character", r#"{"to":"a\u0007","text":"hi"}"#),
        ("data with a number that nobody can hold", r#"{"to":"bob","data":[1e999]}"#),
        (
            "a request that can be named",
            r#"{"type":"send","request_id":5,"to":"c:aaaqeayeaudaocajbifqydiob4","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05","text":5}"#,
        ),
        (
            "a change that can be named",
            r#"{"type":"leave_group","request_id":"5","conversation":"c:aaaqeayeaudaocajbifqydiob4","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#,
        ),
        ("a type that is no string, of a request", r#"{"type":6,"request_id":5}"#),
        (
            "an age as text",
            r#"{"to":"bob","text":"hi","age_ms":"5","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#,
        ),
        (
            "a conversation id that ends in bits of no id",
            r#"{"to":"c:aaaqeayeaudaocajbifqydiobb","text":"hi"}"#,
        ),
        ("data nested 128 deep", &nested),
        ("reply_to as text", r#"{"to":"bob","text":"hi","reply_to":"1"}"#),
        ("the same field twice", r#"{"to":"bob","text":"hi","text":"ho"}"#),
        (
            "an unknown role",
            r#"{"type":"set_role","conversation":"c:aaaqeayeaudaocajbifqydiob4","user":"b","role":"king","temp_id":"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05"}"#,
        ),
    ];
    let bodies = [
        ("a body that is text", r#""message""#),
        ("a body without a kind", r#"{"text":"hi"}"#),
        ("a body whose kind is a number", r#"{"kind":0,"text":"hi"}"#),
        ("a body with two kinds", r#"{"kind":"message","kind":"left","text":"hi"}"#),
        ("a body of the form of before", r#"{"message":{"text":"hi"}}"#),
        ("a body that lacks a field", r#"{"kind":"left"}"#),
        ("a body with a user id that is none", r#"{"kind":"left","user":""}"#),
        ("an opaque body without a number", r#"{"kind":"opaque","bytes":""}"#),
        ("an opaque body of 2^32", r#"{"kind":"opaque","number":4294967296,"bytes":""}"#),
        ("an opaque body that is not base64url", r#"{"kind":"opaque","number":200,"bytes":"+/=="}"#),
        ("an opaque body of a known kind that is broken", r#"{"kind":"opaque","number":4,"bytes":""}"#),
    ];
    let bodies = bodies.map(|(name, body)| (name, deliver_json(body)));
    let vectors: Vec<Refused> = texts
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .chain(bodies)
        .map(|(name, text)| match from_json(&text, fresh) {
            Err(error) => refused(name.into(), Input::Json(text), &error),
            Ok(read) => panic!("{name} was read as {read:?}"),
        })
        .collect();
    check("json_refused.json", &vectors);
}
