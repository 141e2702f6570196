//! What a first attempt wrote of the log only is made whole before anybody is acked.

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Fault, Shaky};
use crate::store::{INTENT_SHARDS, Inbox, Intents};

/// A node over a store whose appends can die half-way.
struct Bench {
    memory: Arc<MemoryStore>,
    shaky: Arc<Shaky>,
    node: Node,
}

impl Bench {
    async fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let shaky = Shaky::new(memory.clone());
        let node = Node::new(shaky.clone(), shaky.clone(), &Roster::default());
        node.group(&["bob"]).await;
        Self { memory, shaky, node }
    }

    /// Intents, and bob's row: the newest entry that his list knows.
    async fn marks(&self) -> (usize, u64) {
        let shards: Vec<u8> = (0..INTENT_SHARDS).map(|shard| shard as u8).collect();
        let intents = self.memory.intents(&shards, 0..=u64::MAX, 9).await.unwrap().len();
        let row = self.memory.inbox_rows(&user("bob"), &[GROUP]).await.unwrap().remove(0);
        (intents, row.unwrap().last_seq)
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_attempt_that_died_half_way_is_made_whole_before_the_ack() {
    let bench = Bench::new().await;
    bench.memory.tear();
    bench.shaky.script([Fault::UnknownApplied]);
    let committed = bench.node.ask(say("alice", 1, "hello")).await.unwrap();
    assert_eq!((committed.seq, committed.duplicate), (2, false));
    assert_eq!(bench.marks().await, (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_finds_half_way_is_made_whole_before_the_ack() {
    let bench = Bench::new().await;
    bench.memory.tear();
    bench.shaky.script([Fault::UnknownApplied]);
    // The owner dies before it hears of it; another one gets the retry.
    drop(bench.node.submit(say("alice", 1, "hello")));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.marks().await, (0, 1), "the log has it, nothing else does");
    let other = Node::new(bench.shaky.clone(), bench.shaky.clone(), &Roster::default());
    let committed = other.ask(say("alice", 1, "hello")).await.unwrap();
    assert_eq!((committed.seq, committed.duplicate), (2, true));
    assert_eq!(bench.marks().await, (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_whole_is_not_acked() {
    let bench = Bench::new().await;
    bench.memory.tear();
    bench.shaky.script([Fault::UnknownApplied]);
    bench.shaky.fail(Call::Redo, 1);
    let refused = bench.node.ask(say("alice", 1, "hello")).await.unwrap_err();
    assert!(refused.code().temporary(), "{refused:?}");
    let committed = bench.node.ask(say("alice", 1, "hello")).await.unwrap();
    assert_eq!((committed.seq, committed.duplicate), (2, true));
    assert_eq!(bench.marks().await, (1, 2));
}
