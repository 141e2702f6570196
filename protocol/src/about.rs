//! What a frame was about that cannot be read: its error names it, so that a client knows which of its
//! requests it is.

use serde::Deserialize;
use serde_json::Value;

use crate::data::Data;
use crate::id::{ConversationId, DeviceId, IdError, Target, TempId, UserId};
use crate::role::Role;
use crate::varint::read_varint64;

/// Which change, and where. Found where the frame can be read that far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The change, if the frame was one.
    pub temp_id: Option<TempId>,
    /// User or conversation.
    pub to: Option<Target>,
}

/// Looks into a JSON text for the fields by which frames say what they are about.
pub(crate) fn in_json(text: &str) -> About {
    #[derive(Deserialize)]
    struct Ids {
        temp_id: Option<Value>,
        to: Option<Value>,
        conversation: Option<Value>,
    }
    let Ok(Ids { temp_id, to, conversation }) = serde_json::from_str(text) else { return About::default() };
    let id = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
    About {
        temp_id: id(&temp_id).and_then(|text| text.parse().ok()),
        to: id(&to).or(id(&conversation)).and_then(|text| text.parse().ok()),
    }
}

/// How a field is written in binary.
#[derive(Clone, Copy)]
enum Shape {
    Target,
    Conversation,
    Conversations,
    TempId,
    User,
    Users,
    Text,
    Number,
    Role,
    OptionalNumber,
    OptionalData,
    OptionalText,
    OptionalDevice,
    OptionalUser,
}

/// The frames of clients whose fields can be wrong by more than their length.
#[rustfmt::skip]
const FRAMES: &[(&str, &[(&str, Shape)])] = &[
    ("hello", &[("token", Shape::Text), ("device", Shape::OptionalDevice), ("agent", Shape::OptionalText),
        ("features", Shape::Number)]),
    ("send", &[("to", Shape::Target), ("text", Shape::Text), ("temp_id", Shape::TempId),
        ("age_ms", Shape::OptionalNumber), ("data", Shape::OptionalData), ("reply_to", Shape::OptionalNumber)]),
    ("abandon", &[("to", Shape::Target), ("temp_id", Shape::TempId)]),
    ("read", &[("conversation", Shape::Conversation), ("seq", Shape::Number)]),
    ("fetch", &[("conversation", Shape::Conversation), ("before", Shape::OptionalNumber),
        ("after", Shape::OptionalNumber), ("around", Shape::OptionalNumber), ("limit", Shape::OptionalNumber)]),
    ("create_group", &[("name", Shape::Text), ("members", Shape::Users), ("temp_id", Shape::TempId)]),
    ("add_members", &[("conversation", Shape::Conversation), ("users", Shape::Users), ("temp_id", Shape::TempId)]),
    ("remove_members", &[("conversation", Shape::Conversation), ("users", Shape::Users), ("temp_id", Shape::TempId)]),
    ("leave_group", &[("conversation", Shape::Conversation), ("temp_id", Shape::TempId)]),
    ("rename_group", &[("conversation", Shape::Conversation), ("name", Shape::Text), ("temp_id", Shape::TempId)]),
    ("set_role", &[("conversation", Shape::Conversation), ("user", Shape::User), ("role", Shape::Role),
        ("temp_id", Shape::TempId)]),
    ("leave_groups", &[("conversations", Shape::Conversations), ("temp_id", Shape::TempId)]),
    ("keep_group", &[("conversation", Shape::Conversation)]),
    ("block", &[("user", Shape::User)]),
    ("unblock", &[("user", Shape::User)]),
    ("list_blocks", &[("after", Shape::OptionalUser)]),
    ("list_conversations", &[("cursor", Shape::OptionalText), ("limit", Shape::OptionalNumber)]),
    ("list_members", &[("conversation", Shape::Conversation)]),
    ("watch", &[("users", Shape::Users)]),
    ("typing", &[("to", Shape::Target)]),
];

/// Looks into the body of a frame in binary: what it is about, and the first field that is wrong.
pub(crate) fn in_binary(name: &str, body: &[u8]) -> (About, Option<String>) {
    let Some((_, fields)) = FRAMES.iter().find(|frame| frame.0 == name) else {
        return (About::default(), None);
    };
    let (mut walk, mut wrong) = (Walk { rest: body, about: About::default() }, None);
    for (field, shape) in *fields {
        let read = walk.field(*shape);
        if let Err(why) = &read {
            wrong.get_or_insert_with(|| format!("{field}: {}", why.0));
        }
        if read.is_err_and(|why| why.1) {
            break;
        }
    }
    (walk.about, wrong)
}

/// Why a field is wrong, and whether what follows cannot be found therefore.
struct Wrong(String, bool);

impl From<IdError> for Wrong {
    fn from(error: IdError) -> Self {
        Self(error.to_string(), false)
    }
}

fn end(why: &str) -> Wrong {
    Wrong(why.to_owned(), true)
}

struct Walk<'a> {
    rest: &'a [u8],
    about: About,
}

impl<'a> Walk<'a> {
    fn field(&mut self, shape: Shape) -> Result<(), Wrong> {
        match shape {
            Shape::Target => {
                let to = match self.number()? {
                    0 => Target::User(self.user()?),
                    1 => Target::Conversation(self.conversation()?),
                    _ => return Err(end("neither a user nor a conversation")),
                };
                self.about.to = Some(to);
            }
            Shape::Conversation => self.about.to = Some(Target::Conversation(self.conversation()?)),
            Shape::Conversations => {
                for _ in 0..self.number()? {
                    self.conversation()?;
                }
            }
            Shape::TempId => self.about.temp_id = Some(TempId::from_bytes(self.sixteen()?)),
            Shape::User => drop(self.user()?),
            Shape::Users => return self.users(),
            Shape::Text => drop(self.text()?),
            Shape::Number => drop(self.number()?),
            Shape::Role => {
                if self.number()? > Role::Owner as u64 {
                    return Err(Wrong("no role has this number".to_owned(), false));
                }
            }
            Shape::OptionalNumber => {
                if self.given()? {
                    self.number()?;
                }
            }
            Shape::OptionalText | Shape::OptionalData | Shape::OptionalDevice | Shape::OptionalUser => {
                if self.given()? {
                    let text = self.text()?;
                    match shape {
                        Shape::OptionalData => {
                            drop(Data::new(text).map_err(|why| Wrong(why.to_string(), false))?)
                        }
                        Shape::OptionalDevice => drop(DeviceId::new(text)?),
                        Shape::OptionalUser => drop(UserId::new(text)?),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// All of them, whatever is wrong with one.
    fn users(&mut self) -> Result<(), Wrong> {
        let mut first = Ok(());
        for _ in 0..self.number()? {
            match self.user() {
                Err(why) if why.1 => return Err(why),
                read => first = first.and(read.map(drop)),
            }
        }
        first
    }

    fn user(&mut self) -> Result<UserId, Wrong> {
        Ok(UserId::new(self.text()?)?)
    }

    fn conversation(&mut self) -> Result<ConversationId, Wrong> {
        Ok(ConversationId::from_bytes(self.sixteen()?))
    }

    fn sixteen(&mut self) -> Result<[u8; 16], Wrong> {
        let bytes = self.bytes(16)?;
        bytes.try_into().map_err(|_| end("it ends too early"))
    }

    fn text(&mut self) -> Result<&'a str, Wrong> {
        let length = self.number()?;
        let bytes = self.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map_err(|_| Wrong("not UTF-8".to_owned(), false))
    }

    fn given(&mut self) -> Result<bool, Wrong> {
        match self.bytes(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(end("an optional begins with 0 or 1")),
        }
    }

    fn number(&mut self) -> Result<u64, Wrong> {
        match read_varint64(self.rest) {
            Ok((number, used)) => {
                self.rest = &self.rest[used..];
                Ok(number)
            }
            Err(why) => Err(end(why)),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(|| end("it ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// Whether the table reads this frame to its end and finds nothing wrong.
#[cfg(test)]
fn fits(name: &str, body: &[u8]) -> Option<bool> {
    let (_, fields) = FRAMES.iter().find(|frame| frame.0 == name)?;
    let mut walk = Walk { rest: body, about: About::default() };
    Some(fields.iter().all(|(_, shape)| walk.field(*shape).is_ok()) && walk.rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateGroup, Fetch, Frame, Hello, Send, SetRole, Token};

    fn send() -> Send {
        Send {
            to: UserId::new("bob").unwrap().into(),
            text: "hi".into(),
            temp_id: TempId::from_bytes([3; 16]),
            age_ms: Some(300),
            data: Some(Data::new("[1]").unwrap()),
            reply_to: None,
        }
    }

    #[test]
    fn the_table_is_that_of_the_frames() {
        let user = UserId::new("bob").unwrap();
        let (conversation, temp_id) = (ConversationId::from_bytes([1; 16]), TempId::from_bytes([2; 16]));
        let frames: Vec<Frame> = vec![
            Hello {
                token: Token("t".into()),
                device: Some(DeviceId::new("d").unwrap()),
                agent: Some("a".into()),
                features: 300,
            }
            .into(),
            send().into(),
            crate::Abandon { to: conversation.into(), temp_id }.into(),
            crate::Read { conversation, seq: 300 }.into(),
            Fetch { conversation, before: None, after: Some(300), around: None, limit: Some(1) }.into(),
            CreateGroup { name: "g".into(), members: vec![user.clone(), user.clone()], temp_id }.into(),
            crate::AddMembers { conversation, users: vec![user.clone()], temp_id }.into(),
            crate::RemoveMembers { conversation, users: vec![user.clone()], temp_id }.into(),
            crate::LeaveGroup { conversation, temp_id }.into(),
            crate::RenameGroup { conversation, name: "g".into(), temp_id }.into(),
            SetRole { conversation, user: user.clone(), role: Role::Owner, temp_id }.into(),
            crate::ListConversations { cursor: Some("c".into()), limit: Some(300) }.into(),
            crate::LeaveGroups { conversations: vec![conversation, conversation], temp_id }.into(),
            crate::KeepGroup { conversation }.into(),
            crate::Block { user: user.clone() }.into(),
            crate::Unblock { user: user.clone() }.into(),
            crate::ListBlocks { after: Some(user.clone()) }.into(),
            crate::ListMembers { conversation }.into(),
            crate::Watch { users: vec![user.clone()] }.into(),
            crate::Typing { to: user.into() }.into(),
        ];
        for frame in &frames {
            let body = frame.encode_body(Vec::new()).unwrap();
            assert_eq!(fits(frame.name(), &body), Some(true), "{}", frame.name());
        }
        assert_eq!(frames.len(), FRAMES.len());
        let changes = Frame::TABLE.iter().filter(|row| row.2 == crate::Side::Client);
        let left_out: Vec<_> =
            changes.map(|row| row.1).filter(|name| !FRAMES.iter().any(|frame| frame.0 == *name)).collect();
        assert_eq!(left_out, ["reauth", "ack", "sync"], "numbers and one text only");
    }

    #[test]
    fn what_comes_behind_a_wrong_field_is_found() {
        let mut body = Frame::from(send()).encode_body(Vec::new()).unwrap();
        body[6] = 0xff; // in the text
        let (about, wrong) = in_binary("send", &body);
        assert_eq!(about, About { temp_id: Some(TempId::from_bytes([3; 16])), to: Some(send().to) });
        assert_eq!(wrong.as_deref(), Some("text: not UTF-8"));
        body[2] = 7; // in the user id, before it
        let (about, wrong) = in_binary("send", &body);
        assert_eq!((about.temp_id, about.to), (Some(TempId::from_bytes([3; 16])), None));
        assert_eq!(wrong.as_deref(), Some("to: user id must not contain control characters or line breaks"));
        let (about, wrong) = in_binary("send", &body[..10]);
        assert_eq!((about.temp_id, wrong.is_some()), (None, true));
    }

    #[test]
    fn a_field_of_any_kind_is_named_with_what_is_wrong_and_the_rest_is_read() {
        let temp_id = TempId::from_bytes([2; 16]);
        let (bob, carol) = (UserId::new("bob").unwrap(), UserId::new("carol").unwrap());
        let conversation = ConversationId::from_bytes([1; 16]);
        let device = Some(DeviceId::new("dev").unwrap());
        let about = |frame: Frame, from: &[u8], to: &[u8]| {
            let body = frame.encode_body(Vec::new()).unwrap();
            let at = body.windows(from.len()).position(|bytes| bytes == from).unwrap();
            let body = [&body[..at], to, &body[at + from.len()..]].concat();
            let (about, wrong) = in_binary(frame.name(), &body);
            (about.temp_id, wrong.expect("something is wrong"))
        };
        let hello = Hello { token: Token("t".into()), device, agent: None, features: 0 };
        let said = about(hello.into(), b"dev", b"d\nv");
        assert!(said.1.starts_with("device: device id must not"), "{}", said.1);
        let (_, said) = about(send().into(), b"[1]", b"[1}");
        assert!(said.starts_with("data: "), "{said}");
        let role = SetRole { conversation, user: bob.clone(), role: Role::Owner, temp_id };
        let said = about(role.into(), b"bob\x02", b"bob\x03");
        assert_eq!(said, (Some(temp_id), "role: no role has this number".into()));
        let create = CreateGroup { name: "g".into(), members: vec![bob, carol], temp_id };
        let (found, said) = about(create.into(), b"bob", b"b\nb");
        assert_eq!(found, Some(temp_id));
        assert!(said.starts_with("members: user id must not"), "{said}");
    }
}
