//! The layout of keys: one letter for the kind, then the fields in the order they are read in.
//!
//! Numbers are big-endian, so byte order is number order. User ids carry their length in one byte,
//! so no key of one user is a prefix of another's.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tern_protocol::{ConversationId, TempId, USER_ID_BYTES_MAX, UserId};

use crate::store::{Intent, StoreError};

/// Commits that are remembered by number. A hole among them is noticed at open.
pub(super) const COMMITS_KEPT: u64 = 1 << 16;

/// Before all else of a log, so that a reader in order knows it first.
const KEPT: u8 = b'b';
const COMMIT: u8 = b'n';
const ENTRY: u8 = b'e';
const MARKER: u8 = b'm';
const HEAD: u8 = b'h';
const SHAPE: u8 = b'c';
const ROW: u8 = b'i';
const READ: u8 = b'r';
const USER: u8 = b'u';
const INTENT: u8 = b'p';
const ERASURE: u8 = b'x';
const FILLING: u8 = b'z';
const REVOCATION: u8 = b'v';
const BLOCK: u8 = b'k';
const TALLY: u8 = b'a';

/// Second letter of the key of a block: by whom, or of whom.
const BY: u8 = b'b';
const OF: u8 = b'o';

// The length of a user id is kept in one byte.
const _: () = assert!(USER_ID_BYTES_MAX <= u8::MAX as usize);

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Kept,
    Shape,
    Entry,
    Head,
    Row,
    Marker,
    Commit,
    Intent,
    Read,
    User,
    Erasure,
    Filling,
    Revocation,
    Block,
    Tally,
    Unknown,
}

/// The kind of row that a key stands for.
pub(super) fn kind(key: &[u8]) -> Kind {
    match key.first() {
        Some(&KEPT) => Kind::Kept,
        Some(&SHAPE) => Kind::Shape,
        Some(&ENTRY) => Kind::Entry,
        Some(&HEAD) => Kind::Head,
        Some(&ROW) => Kind::Row,
        Some(&MARKER) => Kind::Marker,
        Some(&COMMIT) => Kind::Commit,
        Some(&INTENT) => Kind::Intent,
        Some(&READ) => Kind::Read,
        Some(&USER) => Kind::User,
        Some(&ERASURE) => Kind::Erasure,
        Some(&FILLING) => Kind::Filling,
        Some(&REVOCATION) => Kind::Revocation,
        Some(&BLOCK) => Kind::Block,
        Some(&TALLY) => Kind::Tally,
        _ => Kind::Unknown,
    }
}

/// The slot of a commit, which holds its number. Slots are used in turn.
pub(super) fn commit(number: u64) -> Bytes {
    join(&[&[COMMIT], &((number % COMMITS_KEPT) as u16).to_be_bytes()])
}

/// What the keys of all commits start with.
pub(super) const COMMITS: &[u8] = &[COMMIT];

/// One entry of a log.
pub(super) fn entry(conversation: ConversationId, seq: u64) -> Bytes {
    join(&[&[ENTRY], conversation.as_bytes(), &seq.to_be_bytes()])
}

/// The seq in the key of an entry.
pub(super) fn entry_seq(key: &[u8]) -> Result<u64, StoreError> {
    number(key.get(17..)).ok_or_else(|| damaged("entry"))
}

/// The dedupe marker of one change.
pub(super) fn marker(conversation: ConversationId, sender: &UserId, temp_id: TempId) -> Bytes {
    join(&[&[MARKER], conversation.as_bytes(), &[length(sender)], text(sender), temp_id.as_bytes()])
}

/// Head and time of a log: what changes with every append.
pub(super) fn head(conversation: ConversationId) -> Bytes {
    join(&[&[HEAD], conversation.as_bytes()])
}

/// Kind, name and members: what changes seldom.
pub(super) fn shape(conversation: ConversationId) -> Bytes {
    join(&[&[SHAPE], conversation.as_bytes()])
}

/// What a user may see of a conversation.
pub(super) fn row(user: &UserId, conversation: ConversationId) -> Bytes {
    join(&[&[ROW, length(user)], text(user), conversation.as_bytes()])
}

/// What the keys of all rows of a user start with.
pub(super) fn rows(user: &UserId) -> Bytes {
    join(&[&[ROW, length(user)], text(user)])
}

/// How far a user has read.
pub(super) fn read(user: &UserId, conversation: ConversationId) -> Bytes {
    join(&[&[READ, length(user)], text(user), conversation.as_bytes()])
}

/// What the keys of all read positions of a user start with.
pub(super) fn reads(user: &UserId) -> Bytes {
    join(&[&[READ, length(user)], text(user)])
}

/// The user in the key of a row.
pub(super) fn row_user(key: &[u8]) -> Result<UserId, StoreError> {
    let text = key.get(1).and_then(|length| key.get(2..2 + usize::from(*length)));
    let user = text.and_then(|text| UserId::new(std::str::from_utf8(text).ok()?).ok());
    user.ok_or_else(|| damaged("inbox row"))
}

/// The conversation at the end of the key of a row or of a read position.
pub(super) fn row_conversation(key: &[u8]) -> Result<ConversationId, StoreError> {
    key.last_chunk().map(|id| ConversationId::from_bytes(*id)).ok_or_else(|| damaged("inbox row"))
}

/// What is left of a log.
pub(super) fn kept(conversation: ConversationId) -> Bytes {
    join(&[&[KEPT], conversation.as_bytes()])
}

/// The conversation that a key begins with, after its letter.
pub(super) fn conversation(key: &[u8]) -> Result<ConversationId, StoreError> {
    let id = key.get(1..17).and_then(|id| id.first_chunk());
    id.map(|id| ConversationId::from_bytes(*id)).ok_or_else(|| damaged("conversation"))
}

/// The erasure of a user: found by who knows the id, and telling nobody else.
pub(super) fn erasure(user: &UserId) -> Bytes {
    join(&[&[ERASURE], &hashed(user)])
}

/// Before when the tokens of a user are refused: found as an erasure is, and staying after one.
pub(super) fn revocation(user: &UserId) -> Bytes {
    join(&[&[REVOCATION], &hashed(user)])
}

/// What a user is known by who may have been erased.
pub(super) fn hashed(user: &UserId) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(user.as_str())[..16]);
    hash
}

/// The user's hash in the key of an erasure or a revocation.
pub(super) fn user_hash(key: &[u8]) -> Result<[u8; 16], StoreError> {
    key.get(1..).and_then(|hash| hash.try_into().ok()).ok_or_else(|| damaged("erasure or revocation"))
}

/// What the keys of all erasures start with.
pub(super) const ERASURES: &[u8] = &[ERASURE];

/// What fills a journal up, and is gone with the next commit of it.
pub(super) fn filling() -> Bytes {
    join(&[&[FILLING]])
}

/// What the keys of all revocations start with.
pub(super) const REVOCATIONS: &[u8] = &[REVOCATION];

/// A user.
pub(super) fn user(user: &UserId) -> Bytes {
    join(&[&[USER], text(user)])
}

/// What is counted of a user.
pub(super) fn tally(user: &UserId) -> Bytes {
    join(&[&[TALLY], text(user)])
}

/// The user in the key of a user or of what is counted of one.
pub(super) fn named_user(key: &[u8]) -> Result<UserId, StoreError> {
    let user = key.get(1..).and_then(|text| UserId::new(std::str::from_utf8(text).ok()?).ok());
    user.ok_or_else(|| damaged("user"))
}

/// That one user blocks another; its value says since when.
pub(super) fn block(by: &UserId, user: &UserId) -> Bytes {
    join(&[&[BLOCK, BY, length(by)], text(by), text(user)])
}

/// The same, found by who is blocked.
pub(super) fn block_of(user: &UserId, by: &UserId) -> Bytes {
    join(&[&[BLOCK, OF, length(user)], text(user), text(by)])
}

/// What the keys of all blocks by a user start with.
pub(super) fn blocks_by(by: &UserId) -> Bytes {
    join(&[&[BLOCK, BY, length(by)], text(by)])
}

/// What the keys of all blocks of a user start with.
pub(super) fn blocks_of(user: &UserId) -> Bytes {
    join(&[&[BLOCK, OF, length(user)], text(user)])
}

/// Who blocks and who is blocked, in either of the two keys of a block.
pub(super) fn block_sides(key: &[u8]) -> Result<(UserId, UserId), StoreError> {
    let (first, second) = block_users(key)?;
    Ok(if key[1] == BY { (first, second) } else { (second, first) })
}

/// The first and the second user in the key of a block.
pub(super) fn block_users(key: &[u8]) -> Result<(UserId, UserId), StoreError> {
    let parse = || {
        let (first, second) = key.get(3..)?.split_at_checked(usize::from(*key.get(2)?))?;
        let user = |text: &[u8]| UserId::new(std::str::from_utf8(text).ok()?).ok();
        Some((user(first)?, user(second)?))
    };
    parse().ok_or_else(|| damaged("block"))
}

/// A push intent: shard, time, conversation and first seq.
pub(super) fn intent(intent: &Intent) -> Bytes {
    join(&[
        &[INTENT, intent.shard()],
        &intent.time_ms.to_be_bytes(),
        intent.conversation.as_bytes(),
        &intent.from_seq.to_be_bytes(),
    ])
}

/// What no intent of a shard before `time_ms` reaches and every other one of it does.
pub(super) fn intents_from(shard: u8, time_ms: u64) -> Bytes {
    join(&[&[INTENT, shard], &time_ms.to_be_bytes()])
}

/// What sorts after every push intent of a shard.
pub(super) fn intents_end(shard: u8) -> Bytes {
    match shard.checked_add(1) {
        Some(next) => join(&[&[INTENT, next]]),
        None => join(&[&[INTENT + 1]]),
    }
}

/// What the keys of all push intents start with.
pub(super) const INTENTS: &[u8] = &[INTENT];

/// The shard in the key of an intent.
pub(super) fn intent_shard(key: &[u8]) -> Result<u8, StoreError> {
    key.get(1).copied().ok_or_else(|| damaged("push intent"))
}

/// Time, conversation and first seq in the key of an intent.
pub(super) fn parse_intent(key: &[u8]) -> Result<(u64, ConversationId, u64), StoreError> {
    let parse = || {
        let conversation: [u8; 16] = key.get(10..26)?.try_into().ok()?;
        Some((number(key.get(2..10))?, ConversationId::from_bytes(conversation), number(key.get(26..))?))
    };
    parse().ok_or_else(|| damaged("push intent"))
}

fn join(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn length(user: &UserId) -> u8 {
    user.as_str().len() as u8
}

fn text(user: &UserId) -> &[u8] {
    user.as_str().as_bytes()
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    bytes?.try_into().ok().map(u64::from_be_bytes)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("the key of an {what} has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_intents_sort_by_shard_and_time() {
        let conversation = ConversationId::from_bytes([9; 16]);
        let sender = Some(UserId::new("alice").unwrap());
        let early = Intent { conversation, from_seq: 300, to_seq: 310, time_ms: 255, sender };
        let late = Intent { from_seq: 1, time_ms: 256, ..early.clone() };
        let shard = early.shard();
        assert_eq!(parse_intent(&intent(&early)).unwrap(), (255, conversation, 300));
        assert!(intent(&early) < intent(&late));
        assert!(intents_from(shard, 256) > intent(&early) && intents_from(shard, 256) < intent(&late));
        assert!(intents_end(shard) > intent(&late) && intents_end(255) > intents_from(255, u64::MAX));
    }

    #[test]
    fn no_key_of_one_user_starts_with_the_keys_of_another() {
        let id = ConversationId::from_bytes([b'b'; 16]);
        let (a, ab) = (UserId::new("a").unwrap(), UserId::new("ab").unwrap());
        assert!(!row(&ab, id).starts_with(&rows(&a)));
        assert!(!read(&ab, id).starts_with(&reads(&a)));
        assert!(
            !block(&ab, &a).starts_with(&blocks_by(&a)) && !block_of(&ab, &a).starts_with(&blocks_of(&a))
        );
        assert_eq!(block_users(&block(&ab, &a)).unwrap(), (ab.clone(), a.clone()));
        assert_eq!(block_users(&block_of(&a, &ab)).unwrap(), (a.clone(), ab.clone()));
        for key in [block(&ab, &a), block_of(&a, &ab)] {
            assert_eq!(block_sides(&key).unwrap(), (ab.clone(), a.clone()));
        }
        assert_eq!(row_conversation(&row(&a, id)).unwrap(), id);
    }
}
