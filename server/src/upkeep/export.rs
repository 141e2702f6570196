//! What a user gets to take along: one JSON object a line, each with its `type`.

use serde_json::{Value, json};
use tern_protocol::{ConversationId, StoreId, UserId};

use crate::clock::unix_ms;
use crate::store::{
    Apart, Glance, Kept, Order, PageLimit, Store, StoreError, User, glance_apart, users_apart,
};

/// Entries read at a time.
const PAGE: PageLimit = PageLimit { entries: 500, bytes: 512 * 1024 };

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing is known of them.
    #[error("nothing is kept of the user {0}")]
    Unknown(UserId),
    /// Whoever takes the lines has gone.
    #[error("the export was not taken to its end")]
    Gone,
}

/// Takes lines.
#[async_trait::async_trait]
pub trait Lines: Send {
    /// Takes one; an error ends the export.
    async fn line(&mut self, line: Value) -> Result<(), ExportError>;
}

/// Writes all that is kept of a user: profile, whom they block, conversations with members and read position, and every
/// entry of their own that they may still see. The last line says how many there were.
pub async fn export(store: &dyn Store, user: &UserId, out: &mut dyn Lines) -> Result<(), ExportError> {
    let Apart { mut found, damaged } = users_apart(store, std::slice::from_ref(user)).await?;
    let (profile, is_damaged) = (found.pop().flatten(), !damaged.is_empty());
    let rows = store.inbox(user, None, usize::MAX).await?;
    if profile.is_none() && !is_damaged && rows.is_empty() {
        return Err(ExportError::Unknown(user.clone()));
    }
    out.line(profile_line(user, profile, store.store_id())).await?;
    if is_damaged {
        out.line(json!({"type": "unreadable", "user": user})).await?;
    }
    let mut after = None;
    loop {
        let page = store.blocks(user, after.as_ref(), PAGE.entries).await?;
        for blocked in &page {
            let (user, since_ms) = (&blocked.user, blocked.since_ms);
            out.line(json!({"type": "block", "user": user, "since_ms": since_ms})).await?;
        }
        match page.last() {
            Some(last) if page.len() == PAGE.entries => after = Some(last.user.clone()),
            _ => break,
        }
    }
    let mut entries = 0_u64;
    for row in &rows {
        let id = row.conversation;
        let Apart { mut found, damaged } = glance_apart(store, &[id]).await?;
        if !damaged.is_empty() {
            unreadable(out, id).await?;
            continue;
        }
        let Some(Glance { state, kept }) = found.pop().flatten() else { continue };
        let Kept { first_seq, .. } = kept;
        let member = state.member(user);
        out.line(json!({
            "type": "conversation",
            "conversation": id,
            "kind": state.kind,
            "name": state.name,
            // Who else is in it is theirs to know while they are.
            "members": member.map(|_| state.members.iter().map(|member| &member.user).collect::<Vec<_>>()),
            "role": member.map(|member| member.role),
            "first_seq": row.first_seq.max(first_seq),
            "last_seq": row.until_seq.unwrap_or(state.head),
            "read_seq": row.read.seq,
        }))
        .await?;
        // Own entries of earlier stays are theirs too, so from the first one there is.
        let mut next = first_seq;
        loop {
            let page = match store.entries(id, next..=u64::MAX, Order::Ascending, PAGE).await {
                // The rest of this log.
                Err(StoreError::Corrupt(_)) => {
                    unreadable(out, id).await?;
                    break;
                }
                page => page?,
            };
            let Some(last) = page.last() else { break };
            next = last.seq + 1;
            for entry in page.iter().filter(|entry| entry.sender == *user) {
                entries += 1;
                out.line(json!({"type": "entry", "conversation": id, "entry": entry})).await?;
            }
        }
    }
    out.line(json!({"type": "end", "conversations": rows.len(), "entries": entries})).await
}

/// The whole conversation, or its entries from here on, cannot be read: stored data is damaged.
async fn unreadable(out: &mut dyn Lines, id: ConversationId) -> Result<(), ExportError> {
    out.line(json!({"type": "unreadable", "conversation": id})).await
}

fn profile_line(user: &UserId, profile: Option<User>, store_id: StoreId) -> Value {
    let last_seen_ms = profile.as_ref().map(|user| user.last_seen_ms).filter(|time| *time > 0);
    json!({
        "type": "user",
        "user": user,
        "name": profile.and_then(|user| user.name),
        "last_seen_ms": last_seen_ms,
        "store_id": store_id,
        "exported_ms": unix_ms(),
    })
}
