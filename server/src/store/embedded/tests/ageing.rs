//! Ageing where parts of a table cannot be read: whatever can be read has its turn.

use std::collections::BTreeSet;
use std::fs;

use tern_protocol::ConversationId;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_of_heads_keeps_no_readable_conversation_from_ageing() {
    let source = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap();
    let ids: BTreeSet<_> = (0..CONVERSATIONS).map(|_| ConversationId::from_bytes(rand::random())).collect();
    let mut rows = store.disk.space.start_ingestion().unwrap();
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
        let is_lost = |key: &[u8]| {
            gaps.iter().any(|gap| {
                let is_end = [&gap.after, &gap.before].into_iter().flatten().any(|end| &end[..] == key);
                gap.covers(key) && !is_end
            })
        };
        let readable: BTreeSet<_> = ids.iter().copied().filter(|id| !is_lost(&keys::head(*id))).collect();
        // Some damage is found at once: salvage is the way out of that.
        let Ok(store) = EmbeddedStore::open(config(dir.path()), Metrics::none()) else { continue };
        let listed = listed(&store).await;
        let skipped: Vec<_> = readable.difference(&listed).collect();
        assert!(skipped.is_empty(), "damaged at {place} of {length}: {skipped:?}");
        assert!(listed.is_subset(&ids));
        damaged += usize::from(readable.len() < ids.len());
    }
    assert!(damaged > 3, "{damaged} places were in a block of heads");
}
