//! The frames. One table gives each type its number, its JSON name and who may send it.

use serde::Serialize;

mod catch_up;
mod group;
mod message;
mod people;
mod presence;
mod session;

pub use catch_up::*;
pub use group::*;
pub use message::*;
pub use people::*;
pub use presence::*;
pub use session::*;

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

/// A frame as it stands in JSON: the type first, so that people see it first.
#[derive(Serialize)]
struct Tagged<'a, Body> {
    #[serde(rename = "type")]
    name: &'static str,
    #[serde(rename = "request_id", skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(flatten)]
    body: &'a Body,
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

            /// The binary form of every body, in the order of [`Frame::TABLE`]: what codecs in other
            /// languages are made from.
            #[cfg(feature = "schema")]
            pub const SCHEMAS: &'static [&'static postcard_schema::schema::NamedType] =
                &[$(<$variant as postcard_schema::Schema>::SCHEMA),*];

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
            pub(crate) fn from_json_text(name: &str, text: &str) -> Option<serde_json::Result<Self>> {
                match name {
                    $($json => Some(serde_json::from_str::<$variant>(text).map(Self::$variant)),)*
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
    21 "read" Read Client;
    22 "lagged" Lagged Server;
    23 "have_read" HaveRead Server;
    24 "sync" Sync Client;
    25 "sync_page" SyncPage Server;
    26 "sync_end" SyncEnd Server;
    27 "gap" Gap Server;
    28 "fetch" Fetch Client;
    29 "page" Page Server;
    30 "erased" Erased Server;
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
    42 "leave_groups" LeaveGroups Client;
    43 "groups_left" GroupsLeft Server;
    44 "keep_group" KeepGroup Client;
    45 "group_kept" GroupKept Server;
    48 "watch" Watch Client;
    49 "presence" Presence Server;
    50 "typing" Typing Client;
    51 "user_typing" UserTyping Server;
    56 "block" Block Client;
    57 "unblock" Unblock Client;
    58 "block_changed" BlockChanged Server;
    59 "list_blocks" ListBlocks Client;
    60 "block_list" BlockList Server;
}
