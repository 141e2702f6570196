//! Ageing where parts of a table cannot be read: whatever can be read has its turn.

use std::collections::BTreeSet;
use std::fs;

use tern_protocol::{ConversationId, ConversationKind};

use super::damage::{copy_dir, files};
use super::*;
use crate::store::Upkeep;
use crate::store::embedded::table::Table;

/// Several blocks of heads.
const CONVERSATIONS: usize = 1000;
/// Looked for so many bytes apart: a block has some thousand.
const STEP: usize = 1500;

/// Every conversation, page by page as a pass over them asks.
async fn listed(store: &EmbeddedStore) -> BTreeSet<ConversationId> {
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.conversations(after, 64).await.unwrap();
        let Some(last) = page.last() else { return found };
        assert!(after < Some(*last), "it goes on");
        after = Some(*last);
        found.extend(page);
    }
}

/// Asks for all conversations with damage at many places, and with or without lists of members; the places where
/// heads were lost.
async fn damaged(has_lists: bool) -> usize {
    let source = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap();
    let ids: BTreeSet<_> = (0..CONVERSATIONS).map(|_| ConversationId::from_bytes(rand::random())).collect();
    let mut rows = store.disk.space.start_ingestion().unwrap();
    for id in ids.iter().filter(|_| has_lists) {
        let (kind, members, blocked_by) = (ConversationKind::Group, Vec::new(), Vec::new());
        let shape = values::Shape { kind, name: None, members, blocked_by };
        rows.write(keys::shape(*id), values::encode(&shape)).unwrap();
    }
    for id in &ids {
        let head = values::Head { seq: 1, messages: 1, time_ms: 1 };
        rows.write(keys::head(*id), values::encode(&head)).unwrap();
    }
    rows.finish().unwrap();
    assert_eq!(listed(&store).await, ids);
    drop(store);
    let tables = files(&source.path().join("store/db/keyspaces/1/tables"));
    let table = tables.into_iter().max_by_key(|table| fs::metadata(table).unwrap().len()).unwrap();
    let relative = table.strip_prefix(source.path()).unwrap();
    let (mut damaged, length) = (0, fs::metadata(&table).unwrap().len() as usize);
    for place in (0..length).step_by(STEP) {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(source.path(), dir.path());
        let table = dir.path().join(relative);
        let mut bytes = fs::read(&table).unwrap();
        bytes[place] ^= 0x10;
        fs::write(&table, bytes).unwrap();
        let gaps = Table::open(&table, 0).unwrap().gaps();
        // Some damage is found at once: salvage is the way out of that.
        let Ok(store) = EmbeddedStore::open(config(dir.path()), Metrics::none()) else { continue };
        let listed = listed(&store).await;
        assert!(listed.is_subset(&ids));
        let covered = |id: &&ConversationId| gaps.iter().any(|gap| gap.covers(&keys::head(**id)));
        let lost: Vec<_> = ids.iter().filter(covered).copied().collect();
        // What the database does not give since it reads ahead.
        let ahead = ids.iter().rev().skip_while(|id| lost.first().is_none_or(|lost| *id > lost)).take(2);
        let may_lack: BTreeSet<_> = match has_lists {
            true => BTreeSet::new(),
            false => lost.iter().chain(ahead).copied().collect(),
        };
        let mut skipped = ids.difference(&listed).filter(|id| !may_lack.contains(id));
        assert_eq!(skipped.next(), None, "damaged at {place} of {length}");
        if let Some(last) = lost.last().filter(|last| gaps[0].before == Some(keys::head(**last))) {
            assert!(listed.contains(last), "damaged at {place} of {length}: the first behind it");
        }
        damaged += usize::from(!lost.is_empty());
    }
    damaged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_in_a_damaged_block_of_heads_are_found_by_their_members() {
    let damaged = damaged(true).await;
    assert!(damaged > 3, "{damaged} places were in a block of heads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_of_heads_keeps_no_conversation_behind_it_from_ageing() {
    let damaged = damaged(false).await;
    assert!(damaged > 3, "{damaged} places were in a block of heads");
}
