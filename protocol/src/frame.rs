//! The frames. One table gives each type its number, its JSON name and whether it is critical.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::entry::{Entry, Role};
use crate::id::{ConversationId, DeviceId, EntryId, StoreId, Target, TempId, UserId};
use crate::json::Tagged;
use crate::limits::Limits;

/// Who may send a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Only clients.
    Client,
    /// Only servers.
    Server,
    /// Both.
    Both,
}

macro_rules! frames {
    ($($number:literal $json:literal $variant:ident $side:ident;)*) => {
        /// Any frame of this version.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the body type of each variant has the words
        pub enum Frame {
            $($variant($variant),)*
        }

        $(impl From<$variant> for Frame {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*

        impl Frame {
            /// Every frame type: number, JSON name, who sends it.
            pub const TABLE: &'static [(u32, &'static str, Side)] =
                &[$(($number, $json, Side::$side)),*];

            /// Its number on the wire.
            pub fn number(&self) -> u32 {
                match self { $(Self::$variant(_) => $number,)* }
            }

            /// Its `"type"` in JSON.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $json,)* }
            }

            /// Who may send it.
            pub fn side(&self) -> Side {
                match self { $(Self::$variant(_) => Side::$side,)* }
            }

            pub(crate) fn encode_body(&self, out: Vec<u8>) -> postcard::Result<Vec<u8>> {
                match self { $(Self::$variant(body) => postcard::to_extend(body, out),)* }
            }

            /// `None` for a number this version does not know.
            pub(crate) fn decode_body(number: u32, bytes: &[u8]) -> Option<postcard::Result<(Self, usize)>> {
                match number {
                    $($number => Some(
                        postcard::take_from_bytes::<$variant>(bytes)
                            .map(|(body, rest)| (Self::$variant(body), rest.len())),
                    ),)*
                    _ => None,
                }
            }

            pub(crate) fn to_json_text(&self, request: Option<u64>) -> serde_json::Result<String> {
                let name = self.name();
                match self {
                    $(Self::$variant(body) => serde_json::to_string(&Tagged { name, request, body }),)*
                }
            }

            /// `None` for a name this version does not know.
            pub(crate) fn from_value(name: &str, value: serde_json::Value) -> Option<serde_json::Result<Self>> {
                match name {
                    $($json => Some(serde_json::from_value::<$variant>(value).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }
    };
}

frames! {
    1 "hello" Hello Client;
    2 "welcome" Welcome Server;
    3 "reauth" Reauth Client;
    4 "reauthed" Reauthed Server;
    5 "token_expiring" TokenExpiring Server;
    6 "ping" Ping Both;
    7 "pong" Pong Both;
    8 "go_away" GoAway Server;
    9 "error" Error Server;
    10 "close" Close Both;
    16 "send" Send Client;
    17 "send_ack" SendAck Server;
    18 "abandon" Abandon Client;
    19 "deliver" Deliver Server;
    20 "ack" Ack Client;
    21 "read" Read Both;
    22 "lagged" Lagged Server;
    24 "sync" Sync Client;
    25 "sync_page" SyncPage Server;
    26 "sync_end" SyncEnd Server;
    27 "gap" Gap Server;
    28 "fetch" Fetch Client;
    29 "page" Page Server;
    32 "create_group" CreateGroup Client;
    33 "add_members" AddMembers Client;
    34 "remove_members" RemoveMembers Client;
    35 "leave_group" LeaveGroup Client;
    36 "rename_group" RenameGroup Client;
    37 "set_role" SetRole Client;
    38 "list_conversations" ListConversations Client;
    39 "conversation_page" ConversationPage Server;
    40 "list_members" ListMembers Client;
    41 "member_list" MemberList Server;
    48 "watch" Watch Client;
    49 "presence" Presence Server;
    50 "typing" Typing Client;
    51 "user_typing" UserTyping Server;
}

/// A token as text. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// First frame of a session: who is there. Answered by Welcome, or by Close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// JWT of the user.
    pub token: Token,
    /// The device; the server makes one up where it is absent (send order is kept per device).
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Name and version of the client, for the server's logs; at most 128 bytes are kept.
    #[serde(default)]
    pub agent: Option<String>,
    /// Optional abilities of the client, as a bit set; none are defined yet.
    #[serde(default)]
    pub features: u64,
}

/// The session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Number of the session on this node, as it stands in the server's logs.
    pub session: u64,
    /// The user of the token.
    pub user: UserId,
    /// Their display name, from the token's `name` claim.
    pub name: Option<String>,
    /// The device of this session.
    pub device: DeviceId,
    /// The store this server speaks for. Saved state of another store does not apply here.
    pub store_id: StoreId,
    /// Name and version of the server.
    pub server: String,
    /// Optional abilities of the server, as a bit set; none are defined yet.
    pub features: u64,
    /// Server time in Unix milliseconds.
    pub time_ms: u64,
    /// When the token expires, in Unix milliseconds.
    pub token_expires_ms: u64,
    /// The limits of this server.
    pub limits: Limits,
}

/// A new token for the same user on the live session. Answered by Reauthed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reauth {
    /// JWT of the same user.
    pub token: Token,
}

/// The new token counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reauthed {
    /// When it expires, in Unix milliseconds.
    pub token_expires_ms: u64,
}

/// The token of this session expires soon: Reauth, or the session will be closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenExpiring {
    /// When, in Unix milliseconds.
    pub token_expires_ms: u64,
}

/// Are you there? Answered by Pong with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the Pong.
    #[serde(default)]
    pub nonce: u64,
}

/// Answer to Ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The number of the Ping.
    #[serde(default)]
    pub nonce: u64,
}

/// This node is going away. Open a new session, catch up, then close this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// The session is closed after this many milliseconds.
    pub deadline_ms: u32,
    /// Wait a random time up to this many milliseconds before moving, so that not all move at once.
    pub spread_ms: u32,
    /// Where to go; absent: the address used before.
    pub target: Option<String>,
}

/// A request was refused. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Why; the number says what to do.
    pub code: Code,
    /// The same request may succeed later.
    pub temporary: bool,
    /// Wait at least this many milliseconds before the retry.
    pub retry_after_ms: Option<u32>,
    /// For people.
    pub detail: String,
    /// The change that was refused, where the request was one.
    pub temp_id: Option<TempId>,
}

/// Last frame of a session, with the code that the transport's own close carries as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Why; the number says what to do.
    #[serde(default = "normal")]
    pub code: Code,
    /// For people; at most 120 bytes.
    #[serde(default)]
    pub reason: String,
    /// Wait at least this many milliseconds before coming back.
    #[serde(default)]
    pub retry_after_ms: Option<u32>,
    /// Where to go instead.
    #[serde(default)]
    pub target: Option<String>,
}

fn normal() -> Code {
    Code::NORMAL
}

/// A message. Answered by SendAck once it is durable, or by Error.
///
/// In JSON this is the frame without a `"type"`: `{"to":"bob","text":"hi","temp_id":"<uuid>"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// User or conversation.
    pub to: Target,
    /// UTF-8, 1 byte to 16 KiB.
    pub text: String,
    /// The same for every retry of the same message.
    pub temp_id: TempId,
    /// Milliseconds since the first attempt: 0 or absent for the first, at most 7 days.
    #[serde(default)]
    pub age_ms: Option<u64>,
}

/// The change is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAck {
    /// The change that is acked.
    pub temp_id: TempId,
    /// Where it is.
    pub conversation: ConversationId,
    /// Its place in the log.
    pub seq: u64,
    /// Its id.
    pub id: EntryId,
    /// Server time of the entry in Unix milliseconds.
    pub time_ms: u64,
    /// It was durable before this attempt.
    pub duplicate: bool,
    /// A recipient whom this server has never seen: perhaps a typo. They get it if they ever arrive.
    pub recipient_unknown: bool,
}

/// The client gives an unresolved send up, so that later ones need not wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandon {
    /// User or conversation of the send.
    pub to: Target,
    /// The send given up. It may still have become durable if it was tried.
    pub temp_id: TempId,
}

/// Consecutive entries of one conversation, ascending: live or catching up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliver {
    /// Which log.
    pub conversation: ConversationId,
    /// At least one entry.
    pub entries: Vec<Entry>,
}

/// A position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which log.
    pub conversation: ConversationId,
    /// Up to and including this entry.
    pub seq: u64,
}

/// The application has everything up to these positions (cumulative).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// At most 100.
    pub positions: Vec<Position>,
}

/// The user has read up to here. Private to the user: the server tells their other devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Which log.
    pub conversation: ConversationId,
    /// Up to and including this entry; never goes back.
    pub seq: u64,
}

/// Entries of this conversation were dropped from the session's queue: fetch what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagged {
    /// Which log.
    pub conversation: ConversationId,
    /// Its newest entry known to the queue.
    pub head: u64,
}

/// Tell me what changed since these cursors. Answered by SyncPage frames, the missing entries
/// (Deliver, and Gap where they are many) and SyncEnd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// What the client has; conversations not named are new to it. At most 512 a frame.
    #[serde(default)]
    pub cursors: Vec<Position>,
    /// Another Sync frame with more cursors follows; the answer comes after the last.
    #[serde(default)]
    pub more: bool,
}

/// Changed conversations, the most recently changed first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPage {
    /// At most 64 KiB of them a frame.
    pub conversations: Vec<ConversationSummary>,
}

/// The sync is complete: everything up to each summary's head was sent or named in a Gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncEnd {
    /// How many conversations had changed.
    pub changed: u32,
}

/// These entries were too many to send; history has them when someone scrolls there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which log.
    pub conversation: ConversationId,
    /// First entry left out.
    pub from: u64,
    /// Last entry left out.
    pub to: u64,
}

/// A page of history. At most one of `before`, `after`, `around`; none: the newest.
/// Answered by Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which log.
    pub conversation: ConversationId,
    /// Entries below this seq.
    #[serde(default)]
    pub before: Option<u64>,
    /// Entries above this seq.
    #[serde(default)]
    pub after: Option<u64>,
    /// Entries on both sides of this seq, itself included.
    #[serde(default)]
    pub around: Option<u64>,
    /// 1 to 200; absent: 20.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Which log.
    pub conversation: ConversationId,
    /// Consecutive entries, newest first.
    pub entries: Vec<Entry>,
    /// First entry this member may see.
    pub first_seq: u64,
    /// Newest entry this member may see.
    pub head: u64,
}

/// What kind of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// 1-on-1.
    Pair,
    /// A group.
    Group,
}

/// A conversation as its member sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationSummary {
    /// Which.
    pub conversation: ConversationId,
    /// 1-on-1 or group.
    pub kind: ConversationKind,
    /// Name of the group; of a pair, the display name of the other user.
    pub name: Option<String>,
    /// The other user of a pair.
    pub peer: Option<UserId>,
    /// Newest entry this member may see.
    pub head: u64,
    /// First entry this member may see.
    pub first_seq: u64,
    /// The user has read up to here.
    pub read_seq: u64,
    /// Messages of others after `read_seq`; 999 means 999 or more.
    pub unread: u32,
    /// Time of the newest entry in Unix milliseconds.
    pub last_time_ms: u64,
    /// The user's role; absent: the user is no longer a member.
    pub role: Option<Role>,
}

/// Make a group of these users and the sender. Its id derives from the sender and `temp_id`.
/// Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroup {
    /// 1 to 128 bytes of UTF-8.
    pub name: String,
    /// Members besides the sender; at most 100 with the sender.
    #[serde(default)]
    pub members: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Add members (admins and owners). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddMembers {
    /// The group.
    pub conversation: ConversationId,
    /// Who joins; members already there are left as they are.
    pub users: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Remove members (admins remove members, owners anyone). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMembers {
    /// The group.
    pub conversation: ConversationId,
    /// Who goes.
    pub users: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Leave a group. The last owner's leaving promotes the oldest admin, else the oldest member.
/// Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The group.
    pub conversation: ConversationId,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Rename a group (admins and owners). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameGroup {
    /// The group.
    pub conversation: ConversationId,
    /// 1 to 128 bytes of UTF-8.
    pub name: String,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Change a member's role (owners). The last owner cannot step down. Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRole {
    /// The group.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// The new role.
    pub role: Role,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// The user's conversations, most recently changed first. Answered by ConversationPage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConversations {
    /// `next` of the page before; absent: from the start.
    #[serde(default)]
    pub cursor: Option<String>,
    /// 1 to 200; absent: 20.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A page of the user's conversations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationPage {
    /// Most recently changed first.
    pub conversations: Vec<ConversationSummary>,
    /// Cursor of the next page; absent: this was the last.
    pub next: Option<String>,
}

/// The members of a conversation. Answered by MemberList.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMembers {
    /// Which.
    pub conversation: ConversationId,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Who.
    pub user: UserId,
    /// Their display name, if known.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
}

/// The members of a conversation, in the order they joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// Which.
    pub conversation: ConversationId,
    /// At most 100.
    pub members: Vec<MemberInfo>,
}

/// Tell me about the presence of these users, and of these only. Answered by Presence with all
/// of them; changes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// At most 200; an empty list ends all watching.
    pub users: Vec<UserId>,
}

/// Whether a user is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// Not known, or not visible: the two users share no conversation.
    Unknown,
    /// At least one session.
    Online,
    /// No session.
    Offline,
}

/// Presence of one user, over all their devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPresence {
    /// Who.
    pub user: UserId,
    /// There or not.
    pub state: PresenceState,
    /// When they were last seen, in Unix milliseconds; only with `offline`.
    pub last_seen_ms: Option<u64>,
}

/// Presence of watched users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Those that changed, or all of them in the answer to Watch.
    pub users: Vec<UserPresence>,
}

/// The user is typing. A datagram where there are datagrams; may be lost; never answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// User or conversation.
    pub to: Target,
}

/// A member is typing. Show it for some 5 s unless it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserTyping {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
}
