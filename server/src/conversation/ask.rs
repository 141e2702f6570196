//! What can be asked of a conversation: plain data that may come from another node.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tern_protocol::{
    AddMembers, ConversationId, CreateGroup, DEDUPE_WINDOW_S, Data, Frame, GROUP_MEMBERS_MAX, LeaveGroup,
    RemoveMembers, RenameGroup, Role, SetRole, TEXT_BYTES_MAX, Target, TempId, UserId,
};

use super::answer::{Refusal, Reply};
use crate::cluster::SessionRef;
use crate::store::Right;

/// Age of a change whose client does not say: markers are looked for a day back.
pub const AGE_UNSAID_MS: u64 = 24 * 3600 * 1000;

/// Most bytes of what a change writes besides its content: ids, two names, two users who come back to a pair.
const ENTRY_BYTES_BESIDES: usize = 1024;

/// A change of a conversation. Whoever reads one from a client checks it with [`Change::check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Write a message.
    Message {
        /// The text; empty only beside data.
        text: String,
        /// What the application put beside it.
        data: Option<Data>,
        /// The earlier entry that it answers.
        reply_to: Option<u64>,
    },
    /// Make the group.
    Create {
        /// Its name.
        name: String,
        /// Members besides the sender.
        members: Vec<UserId>,
    },
    /// Add members.
    Add {
        /// Who joins.
        users: Vec<UserId>,
    },
    /// Remove members.
    Remove {
        /// Who goes.
        users: Vec<UserId>,
    },
    /// Leave the group.
    Leave,
    /// Rename the group.
    Rename {
        /// The new name.
        name: String,
    },
    /// Change a member's role.
    SetRole {
        /// Whose.
        user: UserId,
        /// The new role.
        role: Role,
    },
    /// Take a user out who is being erased; the sender stands in their place. Asked for by the server only.
    Erase {
        /// Who.
        user: UserId,
    },
}

impl Change {
    /// First 16 bytes of SHA-256 over the encoded change: a retry asks for exactly the same.
    pub fn digest(&self) -> [u8; 16] {
        postcard::serialize_with_flavor(self, Hashing(Sha256::new()))
            .expect("a change encodes without failing")
    }

    /// Finds what is wrong with the change whatever the conversation: sizes, and texts that show nothing.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Message { text, data: None, .. } if text.is_empty() => Err(Refusal::TextEmpty),
            Self::Message { text, data, .. } => match content_bytes(text, data.as_ref()) {
                bytes if bytes > TEXT_BYTES_MAX => Err(Refusal::TextTooLong(bytes)),
                _ => Ok(()),
            },
            Self::Create { name, members } => {
                check_name(name)?;
                check_group_size(members)
            }
            Self::Rename { name } => check_name(name),
            Self::Add { users } | Self::Remove { users } => check_group_size(users),
            Self::Leave | Self::SetRole { .. } | Self::Erase { .. } => Ok(()),
        }
    }

    /// At least as many bytes as its entries take in the store.
    pub fn weight(&self) -> usize {
        let content = match self {
            Self::Message { text, data, .. } => content_bytes(text, data.as_ref()),
            Self::Rename { name } => name.len(),
            Self::Create { name, members } => {
                name.len() + members.iter().map(|u| u.as_str().len()).sum::<usize>()
            }
            Self::Add { users } | Self::Remove { users } => users.iter().map(|u| u.as_str().len()).sum(),
            Self::Leave | Self::SetRole { .. } | Self::Erase { .. } => 0,
        };
        content + ENTRY_BYTES_BESIDES
    }
}

/// Hashes what postcard writes, instead of keeping it.
struct Hashing(Sha256);

impl postcard::ser_flavors::Flavor for Hashing {
    type Output = [u8; 16];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.update([byte]);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.update(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<[u8; 16]> {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0.finalize()[..16]);
        Ok(digest)
    }
}

/// What the limit of a text counts.
fn content_bytes(text: &str, data: Option<&Data>) -> usize {
    text.len() + data.map_or(0, |data| data.as_str().len())
}

fn check_name(name: &str) -> Result<(), Refusal> {
    tern_protocol::check_name(name).map_err(|error| Refusal::Invalid(error.to_string()))
}

fn check_group_size(users: &[UserId]) -> Result<(), Refusal> {
    if users.len() > GROUP_MEMBERS_MAX { Err(Refusal::GroupFull(GROUP_MEMBERS_MAX)) } else { Ok(()) }
}

/// A change that a client wants, before anybody looked at order and rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which log.
    pub conversation: ConversationId,
    /// The other user, where a message named a user.
    pub peer: Option<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
    /// Milliseconds since the first attempt, if the client says so.
    pub age_ms: Option<u64>,
    /// What is wanted.
    pub change: Change,
}

impl Wanted {
    /// A change of a group; its age is not said.
    pub fn group(conversation: ConversationId, temp_id: TempId, change: Change) -> Self {
        Self { conversation, peer: None, temp_id, age_ms: None, change }
    }

    /// Finds what is wrong with it whatever the conversation; its age for the [`Ask`].
    pub fn check(&self) -> Result<u64, Refusal> {
        self.change.check()?;
        match self.age_ms.unwrap_or(AGE_UNSAID_MS) {
            // Older than markers are kept: it could not be recognised.
            age_ms if age_ms > u64::from(DEDUPE_WINDOW_S) * 1000 => Err(Refusal::TooOld),
            age_ms => Ok(age_ms),
        }
    }
}

/// The change that a frame of `me` asks for, or the frame if it asks for none. The only place that
/// says which frames are changes: each of them has a place in the order of its session, whatever
/// becomes of it.
#[expect(clippy::result_large_err, reason = "it is the frame that came in")]
pub fn change_of(frame: Frame, me: &UserId) -> Result<Wanted, Frame> {
    Ok(match frame {
        Frame::Send(send) => {
            let conversation = send.to.conversation(me);
            let peer = match send.to {
                Target::User(user) => Some(user),
                Target::Conversation(_) => None,
            };
            let change = Change::Message { text: send.text, data: send.data, reply_to: send.reply_to };
            Wanted { conversation, peer, temp_id: send.temp_id, age_ms: send.age_ms, change }
        }
        Frame::CreateGroup(CreateGroup { name, members, temp_id }) => {
            let conversation = ConversationId::group(me, &temp_id);
            Wanted::group(conversation, temp_id, Change::Create { name, members })
        }
        Frame::AddMembers(AddMembers { conversation, users, temp_id }) => {
            Wanted::group(conversation, temp_id, Change::Add { users })
        }
        Frame::RemoveMembers(RemoveMembers { conversation, users, temp_id }) => {
            Wanted::group(conversation, temp_id, Change::Remove { users })
        }
        Frame::LeaveGroup(LeaveGroup { conversation, temp_id }) => {
            Wanted::group(conversation, temp_id, Change::Leave)
        }
        Frame::RenameGroup(RenameGroup { conversation, name, temp_id }) => {
            Wanted::group(conversation, temp_id, Change::Rename { name })
        }
        Frame::SetRole(SetRole { conversation, user, role, temp_id }) => {
            Wanted::group(conversation, temp_id, Change::SetRole { user, role })
        }
        other => return Err(other),
    })
}

/// All that deciding about a change needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which log.
    pub conversation: ConversationId,
    /// The other user, where a message named a user: the pair is made on first use.
    pub peer: Option<UserId>,
    /// In whose name.
    pub sender: UserId,
    /// Their display name.
    pub sender_name: Option<String>,
    /// The session that asks: it gets the answer instead of a Deliver for a message. Without one all
    /// sessions get a Deliver.
    pub asker: Option<SessionRef>,
    /// The same for every retry.
    pub temp_id: TempId,
    /// The send of the same session in this conversation that must be in the log before this one.
    pub after: Option<TempId>,
    /// Milliseconds since the first attempt.
    pub age_ms: u64,
    /// By which token it is asked for. `None`: the server itself asks.
    pub right: Option<Right>,
    /// What is asked.
    pub change: Change,
}

impl Ask {
    /// Memory it takes with its reply while it waits, about.
    pub fn bytes(&self) -> usize {
        size_of::<Submission>() + self.change.weight()
    }
}

/// A change on its way to the log.
#[derive(Debug)]
pub struct Submission {
    /// What is asked.
    pub ask: Ask,
    /// When it arrived on this node, for the times that are measured.
    pub arrived: Instant,
    /// Takes the answer.
    pub reply: Reply,
}
