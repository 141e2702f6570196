//! `docs/protocol.md` says what the code does: a client written from the page alone would work.

mod page;
#[path = "page/reader.rs"]
mod reader;
#[allow(dead_code)] // the edge values are for other tests
mod samples;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use tern_protocol::*;

use page::{Field, Structure, plain};
use reader::{Bytes, Reader};

fn fresh() -> TempId {
    TempId::from_bytes([7; 16])
}

fn object(frame: &Frame) -> Map<String, Value> {
    let text = to_json(&Envelope { request: None, frame: frame.clone() });
    match serde_json::from_str(&text).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("a frame is an object, not {other}"),
    }
}

#[test]
fn the_page_has_every_frame_with_its_number_name_and_direction() {
    let sections: Vec<_> =
        page::frames().iter().map(|frame| (frame.number, frame.name.clone(), frame.side.clone())).collect();
    let side = |side| match side {
        Side::Client => "client → server",
        Side::Server => "server → client",
        Side::Both => "both ways",
    };
    let table: Vec<_> =
        Frame::TABLE.iter().map(|row| (row.0, row.1.to_owned(), side(row.2).to_owned())).collect();
    assert_eq!(sections, table);
}

#[test]
fn the_page_has_every_field_of_every_frame() {
    for (section, frame) in page::frames().iter().zip(samples::ordinary()) {
        let mut documented: Vec<_> = section.fields.iter().map(|field| field.name.clone()).collect();
        documented.push("type".into());
        documented.sort();
        let written: Vec<_> = object(&frame).into_iter().map(|(name, _)| name).collect();
        let mut sorted = written.clone();
        sorted.sort();
        assert_eq!(documented, sorted, "{}", section.name);
    }
}

#[test]
fn exactly_the_fields_that_the_page_says_may_be_left_out_of_json() {
    for (section, frame) in page::frames().iter().zip(samples::ordinary()) {
        if matches!(frame.side(), Side::Server) {
            continue; // servers write all fields
        }
        for Field { name, kind, text } in &section.fields {
            let mut left_out = object(&frame);
            left_out.remove(name);
            let read = from_json(&Value::Object(left_out).to_string(), fresh);
            let may = kind.starts_with("optional ") || text.contains("Left out");
            assert_eq!(read.is_ok(), may, "{}.{name}", section.name);
        }
    }
}

/// Reads every golden vector with nothing but the page's tables and compares with the JSON form.
#[test]
fn a_client_written_from_the_page_reads_every_vector() {
    let reader = Reader { frames: page::frames(), structures: page::structures() };
    let vectors: Vec<Map<String, Value>> =
        serde_json::from_str(include_str!("../vectors/frames.json")).expect("golden vectors");
    assert!(vectors.len() > Frame::TABLE.len());
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().expect("a string");
        let bytes = HEXLOWER.decode(text("hex").as_bytes()).expect("hex");
        let mut bytes = Bytes(&bytes);
        let read = reader.frame(&mut bytes);
        let golden: Value = serde_json::from_str(text("json")).expect("JSON");
        assert_eq!(read, golden, "{}", text("name"));
        assert!(bytes.0.is_empty(), "{}", text("name"));
    }
}

#[test]
fn the_page_has_every_structure_that_a_field_names_and_no_other() {
    let structures = page::structures();
    let mut used = std::collections::BTreeSet::new();
    let in_frames = page::frames().into_iter().flat_map(|frame| frame.fields);
    let in_structures = structures.values().flat_map(|structure| match structure {
        Structure::Record(fields) => fields.clone(),
        Structure::Enumeration(_) => Vec::new(),
        Structure::Kinds(kinds) => kinds.iter().flat_map(|(_, fields)| fields.clone()).collect(),
    });
    for field in in_frames.chain(in_structures) {
        let name = field.kind.rsplit(' ').next().unwrap_or_default().to_owned();
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            used.insert(name);
        }
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), structures.into_keys().collect::<Vec<_>>());
}

#[test]
fn the_page_has_every_kind_of_body_with_its_fields() {
    let structures = page::structures();
    let Some(Structure::Kinds(kinds)) = structures.get("EntryBody") else { panic!("no kinds") };
    let names: Vec<_> = (0u32..).zip(kinds.iter().map(|(name, _)| name.as_str())).collect();
    assert_eq!(names, EntryBody::KINDS);
    // With all its fields: of each kind the sample that has most.
    for (name, fields) in kinds {
        let bodies = samples::bodies().into_iter().map(|(_, body)| serde_json::to_value(body).expect("JSON"));
        let of_kind = bodies.filter(|body| body["kind"] == name.as_str());
        let most = of_kind.max_by_key(|body| body.as_object().map_or(0, Map::len)).expect("a sample");
        let mut written: Vec<_> = most.as_object().expect("an object").keys().cloned().collect();
        written.retain(|field| field != "kind");
        let mut documented: Vec<_> = fields.iter().map(|field| field.name.clone()).collect();
        documented.sort();
        assert_eq!(written, documented, "{name}");
    }
}

#[test]
fn the_page_has_every_code() {
    let rows: Vec<_> = page::rows(page::chapter("Codes"))
        .into_iter()
        .filter(|cells| cells.len() == 4 && cells[0] != "code")
        .map(|cells| (cells[0].parse::<u16>().expect("a number"), plain(&cells[1]), cells[2].clone()))
        .collect();
    let table: Vec<_> = Code::TABLE.iter().map(|row| (row.0.0, row.1.to_owned(), row.2.to_owned())).collect();
    assert_eq!(rows, table);
}

#[test]
fn the_page_says_of_every_range_what_it_means() {
    let rows = page::rows(page::chapter("Codes"));
    let class = |name: &str| rows.iter().find(|cells| cells.len() == 3 && cells[1] == name).expect(name);
    for (name, expected, numbers) in [
        ("normal", Class::Normal, vec![0, 1000]),
        ("fix", Class::Fix, vec![4000, 4099]),
        ("authenticate", Class::Authenticate, vec![4100, 4199]),
        ("reconnect", Class::Reconnect, vec![4200, 4299]),
        ("back off", Class::BackOff, vec![4300, 4399]),
        ("resync", Class::Resync, vec![4400, 4499]),
    ] {
        for number in numbers {
            assert_eq!(Code(number).class(), expected);
            assert!(class(name)[0].contains(&number.to_string()), "{number} in the range of {name}");
        }
    }
}

fn number(cell: &str) -> u64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell:?} is no number"))
}

#[test]
fn the_page_has_every_limit_with_its_value() {
    let rows = page::rows(page::chapter("Limits"));
    let value = |name: &str| {
        let row = rows.iter().find(|cells| plain(&cells[0]) == name);
        number(&row.unwrap_or_else(|| panic!("the page lacks {name}"))[1])
    };
    let welcome = samples::ordinary().into_iter().find(|frame| frame.name() == "welcome").expect("a welcome");
    let limits = object(&welcome).remove("limits").expect("limits");
    for (name, told) in limits.as_object().expect("an object") {
        assert_eq!(Some(value(name)), told.as_u64(), "{name}");
    }
    for (name, constant) in [
        ("user id", USER_ID_BYTES_MAX),
        ("device id", DEVICE_ID_BYTES_MAX),
        ("token", TOKEN_BYTES_MAX),
        ("reason of a close", CLOSE_REASON_BYTES_MAX),
        ("detail about a broken frame", DETAIL_BYTES_MAX),
        ("JSON text from the server", JSON_BYTES_MAX),
        ("malformed frames of a session", BAD_FRAMES_MAX as usize),
    ] {
        assert_eq!(value(name), constant as u64, "{name}");
    }
    let chapter = page::chapter("Limits");
    for part in [format!("without `limit` {PAGE_ENTRIES_DEFAULT}"), "cut at 61,440 bytes".to_owned()] {
        assert!(chapter.contains(&part), "{part}");
    }
    assert_eq!(PAGE_BYTES_MAX, 61_440);
}

#[test]
fn the_page_has_the_names_that_are_negotiated_and_the_stream_kinds() {
    let connecting = page::chapter("Connecting");
    let alpn = std::str::from_utf8(ALPN).expect("ASCII");
    for name in [alpn, SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON] {
        assert!(connecting.contains(&format!("`{name}`")), "{name}");
    }
    assert!(connecting.contains(CONNECT_PATH));
    let rows = page::rows(page::chapter("Streams and datagrams"));
    let kinds: Vec<_> = rows[1..].iter().map(|cells| (number(&cells[0]), cells[1].as_str())).collect();
    assert_eq!(
        kinds,
        [
            (StreamKind::Conversation as u64, "conversation"),
            (StreamKind::Inbox as u64, "inbox"),
            (StreamKind::Backlog as u64, "backlog"),
        ]
    );
}

#[test]
fn the_worked_example_is_the_bytes_it_says() {
    let blocks = page::blocks("hex");
    let hex: String = blocks[0].1.lines().filter_map(|line| line.split("  ").next()).collect();
    let hex = hex.replace(' ', "");
    let temp_id = "0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05".parse().expect("a UUID");
    let to = Target::User(UserId::new("bob").expect("a valid user id"));
    let frame = Send { to, text: "hi".into(), temp_id, age_ms: Some(0), data: None, reply_to: None }.into();
    assert_eq!(hex, HEXLOWER.encode(&encode(&Envelope { request: Some(5), frame })));
}

/// A line of the transcript with values in place of its placeholders.
fn filled(line: &str) -> String {
    line.replace("\"<uuid>\"", "\"0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05\"")
        .replace("\"<number>\"", "1")
        .replace("<string>", "text")
}

#[test]
fn the_transcript_is_made_of_valid_frames_of_the_right_side() {
    let blocks = page::blocks("transcript");
    assert!(blocks.len() >= 6);
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for line in blocks.iter().flat_map(|(_, body)| body.lines()).filter(|line| *line != "---") {
        let (who, text) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} has no side"));
        let envelope = from_json(&filled(text), fresh).unwrap_or_else(|error| panic!("{error}: {text}"));
        let (other, frames) = match who {
            "C" => (Side::Server, &mut sent),
            "S" => (Side::Client, &mut received),
            _ => panic!("{who:?} is neither C nor S"),
        };
        assert_ne!(envelope.frame.side(), other, "{line}");
        if who == "S" {
            let written: Value = serde_json::from_str(&to_json(&envelope)).expect("JSON");
            let read: Value = serde_json::from_str(&filled(text)).expect("JSON");
            assert_eq!(written, read, "a server writes all fields");
        }
        frames.push(envelope.frame.name());
    }
    for name in ["hello", "send", "create_group", "fetch", "sync", "ack", "read", "watch"] {
        assert!(sent.contains(&name), "no {name} in the transcript");
    }
    for name in ["welcome", "send_ack", "deliver", "page", "sync_page", "sync_end", "error", "presence"] {
        assert!(received.contains(&name), "no {name} in the transcript");
    }
}

#[test]
fn the_ids_in_the_transcript_are_the_derived_ones() {
    let user = |text: &str| UserId::new(text).expect("a valid user id");
    let pair = ConversationId::pair(&user("alice"), &user("bob"));
    let temp_id = "0190c7a2-0000-7000-8000-000000000003".parse().expect("a UUID");
    let group = ConversationId::group(&user("alice"), &temp_id);
    let transcript = page::chapter("A whole conversation");
    for id in transcript.split('"').filter(|part| part.starts_with("c:")) {
        assert!(id == pair.to_string() || id == group.to_string(), "{id}");
    }
    assert!(page::chapter("Types").contains(&format!("`{pair}`")));
}

#[test]
fn the_json_examples_are_frames() {
    let frames =
        page::blocks("json").into_iter().map(|(_, body)| body).filter(|body| body.contains("\"type\""));
    let mut checked = 0;
    for text in frames {
        from_json(text, fresh).unwrap_or_else(|error| panic!("{error}: {text}"));
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let slug = |title: &str| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect::<String>()
    };
    let anchors: Vec<_> = page::TEXT
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect();
    for link in page::TEXT.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link}");
    }
}
