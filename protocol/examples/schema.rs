//! Writes `protocol/schema.json`: the frames, their binary form, the codes and the limits as data,
//! from which codecs in other languages are made. With `--check` it only says whether the file is
//! what it would write.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use tern_protocol::{Code, EntryBody, Frame, Side};

fn main() -> ExitCode {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "schema.json"].iter().collect();
    let text = schema();
    if std::env::args().any(|word| word == "--check") {
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "protocol/schema.json is out of date: run `cargo run -p tern-protocol --features schema --example schema`"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = std::fs::write(&path, text) {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One frame, kind of body, code and limit a line, so that diffs are readable.
///
/// The body of an entry stands among the types of `frames` as any reader may take it: `kind`, a varint, and
/// `fields`, bytes with their length in front. `bodies` says for each kind what the bytes are: its fields one
/// after the other like those of a frame. A reader ignores what comes after the fields that it knows (those
/// of a later version), refuses what ends before them, and keeps the bytes of a kind that is not listed.
/// In JSON a body is an object of its `fields` and `"kind"`, the name; see docs/protocol.md.
fn schema() -> String {
    let frames = Frame::TABLE.iter().zip(Frame::SCHEMAS).map(|((number, name, side), body)| {
        let side = match side {
            Side::Client => "client",
            Side::Server => "server",
            Side::Both => "both",
        };
        json!({ "number": number, "name": name, "side": side, "body": body })
    });
    let bodies = EntryBody::KINDS
        .iter()
        .zip(EntryBody::SCHEMAS)
        .map(|((number, name), fields)| json!({ "number": number, "name": name, "fields": fields }));
    let codes = Code::TABLE
        .iter()
        .map(|(code, name, meaning)| json!({ "code": code.0, "name": name, "meaning": meaning }));
    let limits = LIMITS.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let mut text = String::from("{\n");
    let parts: [(&str, Vec<serde_json::Value>); 4] = [
        ("frames", frames.collect()),
        ("bodies", bodies.collect()),
        ("codes", codes.collect()),
        ("limits", limits.collect()),
    ];
    for (index, (name, rows)) in parts.iter().enumerate() {
        let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
        let end = if index + 1 == parts.len() { "" } else { "," };
        writeln!(text, "\"{name}\":[\n{}\n]{end}", rows.join(",\n")).expect("a string takes all");
    }
    text.push_str("}\n");
    text
}

/// The limits that a client needs before Welcome tells it those of the server.
const LIMITS: &[(&str, u64)] = &[
    ("USER_ID_BYTES_MAX", tern_protocol::USER_ID_BYTES_MAX as u64),
    ("DEVICE_ID_BYTES_MAX", tern_protocol::DEVICE_ID_BYTES_MAX as u64),
    ("FRAME_BYTES_MAX", tern_protocol::FRAME_BYTES_MAX as u64),
    ("TEXT_BYTES_MAX", tern_protocol::TEXT_BYTES_MAX as u64),
    ("NAME_BYTES_MAX", tern_protocol::NAME_BYTES_MAX as u64),
    ("GROUP_MEMBERS_MAX", tern_protocol::GROUP_MEMBERS_MAX as u64),
    ("PAGE_ENTRIES_MAX", tern_protocol::PAGE_ENTRIES_MAX as u64),
    ("WATCH_USERS_MAX", tern_protocol::WATCH_USERS_MAX as u64),
    ("SYNC_CURSORS_MAX", tern_protocol::SYNC_CURSORS_MAX as u64),
    ("SYNC_CURSORS_TOTAL_MAX", tern_protocol::SYNC_CURSORS_TOTAL_MAX as u64),
    ("ACK_POSITIONS_MAX", tern_protocol::ACK_POSITIONS_MAX as u64),
    ("GAP_WHOLE_MAX", tern_protocol::GAP_WHOLE_MAX),
    ("GAP_TAIL", tern_protocol::GAP_TAIL),
    ("TOKEN_BYTES_MAX", tern_protocol::TOKEN_BYTES_MAX as u64),
];
