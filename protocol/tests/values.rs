//! Small questions that both sides ask of what came over the wire.

use tern_protocol::{Code, EntryBody, StreamKind, UserId};

#[test]
fn a_code_says_whether_it_is_temporary_and_what_it_is_called() {
    for (code, temporary) in [
        (Code::NORMAL, false),
        (Code::MALFORMED, false),
        (Code::TOKEN_EXPIRED, false),
        (Code::DRAINING, true),
        (Code::RATE_LIMITED, true),
        (Code::CURSOR_AHEAD, false),
        (Code(4999), true),
    ] {
        assert_eq!(code.temporary(), temporary, "{code}");
    }
    assert_eq!((Code::RATE_LIMITED.name(), Code::MALFORMED.name()), ("RATE_LIMITED", "MALFORMED"));
    assert_eq!(Code(4999).name(), "UNKNOWN");
    assert_eq!(Code::RATE_LIMITED.to_string(), format!("{} RATE_LIMITED", Code::RATE_LIMITED.0));
}

#[test]
fn a_stream_is_known_by_its_first_byte() {
    for kind in [StreamKind::Conversation, StreamKind::Inbox, StreamKind::Backlog] {
        assert_eq!(StreamKind::from_byte(kind as u8), Some(kind));
    }
    assert_eq!((StreamKind::from_byte(0), StreamKind::from_byte(4)), (None, None));
}

#[test]
fn only_messages_are_messages_and_only_made_ids_stand_for_who_was_erased() {
    assert!(EntryBody::text("hi").is_message());
    assert!(!EntryBody::Erased.is_message() && !EntryBody::Renamed { name: "x".into() }.is_message());
    assert!(UserId::erased([7; 16]).is_erased());
    assert!(!UserId::new("alice").unwrap().is_erased());
}
