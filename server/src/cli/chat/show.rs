//! How a conversation looks in the terminal, and as lines of JSON.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tern_client::{
    CloseCause, ConversationId, Entry, EntryBody, Event, PresenceState, Role, SendError, State, UserPresence,
};

/// An entry as one line.
pub(super) fn entry(entry: &Entry) -> String {
    let name = entry.sender_name.as_deref().unwrap_or(entry.sender.as_str());
    let time = clock(entry.time_ms);
    let words = match &entry.body {
        EntryBody::Message { text, .. } => return format!("{time}  {}: {}", clean(name), clean(text)),
        EntryBody::Erased => "wrote something that was erased".into(),
        EntryBody::Opaque { .. } => "did something that this version does not know".into(),
        EntryBody::Created { name, members } => format!("made the group \"{name}\" with {}", list(members)),
        EntryBody::Added { users } => format!("added {}", list(users)),
        EntryBody::Removed { users } => format!("removed {}", list(users)),
        EntryBody::Left { user } if user.is_erased() => "was erased".into(),
        EntryBody::Left { .. } => "left".into(),
        EntryBody::Renamed { name } => format!("renamed the group to \"{name}\""),
        EntryBody::RoleChanged { user, role } => format!("{user} is now {}", role_name(*role)),
    };
    format!("{time}  * {} {}", clean(name), clean(&words))
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Member => "a member",
        Role::Admin => "an admin",
        Role::Owner => "an owner",
    }
}

/// The presence of a user as words.
pub(super) fn presence(presence: &UserPresence) -> String {
    let user = clean(presence.user.as_str());
    match (presence.state, presence.last_seen_ms) {
        (PresenceState::Online, _) => format!("{user} is online"),
        (PresenceState::Offline, Some(seen)) => format!("{user} is offline, last seen {}", clock(seen)),
        (PresenceState::Offline, None) => format!("{user} is offline"),
        (PresenceState::Unknown, _) => format!("{user}: presence unknown until they have written to you"),
    }
}

/// The state of the connection as words.
pub(super) fn state(state: &State) -> String {
    match state {
        State::Connecting => "connecting…".into(),
        State::Online { transport } => format!("connected over {transport}"),
        State::Degraded { transport, cause } => {
            format!("connected over {transport}, since the preferred transport failed: {}", clean(cause))
        }
        State::Offline { cause, .. } => {
            format!("offline: {}; what you type is kept and sent later", clean(cause))
        }
        State::Draining { .. } => "the server is going away; moving over".into(),
        State::Closed { cause } => closed(cause),
    }
}

/// Why the client has stopped.
pub(super) fn closed(cause: &CloseCause) -> String {
    format!("stopped: {}", clean(&cause.to_string()))
}

/// A message that will not be sent.
pub(super) fn failed(text: &str, error: &SendError) -> String {
    format!("not sent ({}): {}", clean(&error.to_string()), clean(text))
}

/// An event as JSON, `None` for those that say nothing to a program.
pub(super) fn json_event(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Entry { conversation, entry } => json_entry(*conversation, entry),
        Event::Gap { conversation, from, to } => {
            json!({"event": "gap", "conversation": conversation, "from": from, "to": to})
        }
        Event::Erased { conversation, seq } => {
            json!({"event": "erased", "conversation": conversation, "seq": seq})
        }
        Event::Presence(users) => json!({"event": "presence", "users": users}),
        Event::Typing { conversation, user } => {
            json!({"event": "typing", "conversation": conversation, "user": user})
        }
        Event::Read { conversation, seq, messages } => {
            json!({"event": "read", "conversation": conversation, "seq": seq, "messages": messages})
        }
        Event::State(now) => json!({"event": "state", "online": now.is_online(), "detail": state(now)}),
        Event::SendFailed { temp_id, error, .. } => {
            json!({"event": "send_failed", "temp_id": temp_id, "error": error.to_string()})
        }
        _ => return None,
    })
}

/// An entry as JSON.
pub(super) fn json_entry(conversation: ConversationId, entry: &Entry) -> Value {
    json!({"event": "entry", "conversation": conversation, "entry": entry})
}

/// Local time of day, with the date if it is not today.
fn clock(time_ms: u64) -> String {
    let zone = TimeZone::system();
    let Ok(time) = Timestamp::from_millisecond(time_ms as i64) else { return "--:--".into() };
    let time = time.to_zoned_datetime(zone.clone());
    if time.date() == Timestamp::now().to_zoned_datetime(zone).date() {
        time.strftime("%H:%M").to_string()
    } else {
        time.strftime("%Y-%m-%d %H:%M").to_string()
    }
}

/// What others wrote must not drive this terminal.
fn clean(text: &str) -> String {
    let shown = |char: char| match char {
        '\n' | '\t' => ' ',
        // Overrides of the writing direction can make one text look like another.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        char if char.is_control() => '\u{fffd}',
        char => char,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn what_others_write_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}c\nd"), "a\u{fffd}[2Jb\u{fffd}c d");
        assert_eq!(clean("grüße 👋🏽 שלום"), "grüße 👋🏽 שלום");
    }
}
