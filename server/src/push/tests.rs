use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tern_protocol::UserId;

use super::*;
use crate::budget::Budget;
use crate::ops::metrics::Exporter;
use crate::store::contract::{Talk, change, fresh_temp_id};
use crate::store::intent_shard;
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Shaky};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A way out that can be closed, and notes what was still an intent whenever events left.
#[derive(Default)]
struct Door {
    closed: AtomicBool,
    attempts: AtomicUsize,
    left: Mutex<Vec<PushEvent>>,
}

#[async_trait]
impl Events for Door {
    async fn publish(&self, events: &[PushEvent]) -> Result<(), EventsError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            return Err(EventsError("closed for the test".into()));
        }
        self.left.lock().extend_from_slice(events);
        Ok(())
    }

    async fn health(&self) -> Result<(), EventsError> {
        Ok(())
    }
}

impl Door {
    fn told(&self) -> Vec<(String, u64)> {
        let left = self.left.lock();
        left.iter().map(|event| (event.recipient_id.to_string(), event.seq)).collect()
    }
}

struct Bench {
    shaky: Arc<Shaky>,
    store: Arc<dyn Store>,
    door: Arc<Door>,
    confirmed: Confirmed,
    exporter: Exporter,
    publisher: Publisher,
}

impl Bench {
    fn new() -> Self {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let (door, confirmed) = (Arc::new(Door::default()), Confirmed::new(Instant::now()));
        let exporter = Exporter::new();
        let publisher = Publisher::new(
            &PushConfig::default(),
            shaky.clone(),
            door.clone(),
            confirmed.clone(),
            exporter.metrics(),
            &Budget::new(usize::MAX),
        );
        Self { store: shaky.clone(), shaky, door, confirmed, exporter, publisher }
    }

    /// A message of long ago, so that it is due.
    async fn say(&self, talk: &mut Talk, sender: &UserId) {
        let group = talk.group(sender, &[(fresh_temp_id(), "hello")]);
        talk.apply(&self.store, group).await;
    }

    async fn waiting(&self, talk: &Talk) -> u64 {
        self.store.intents_waiting(&[intent_shard(talk.id)]).await.unwrap()[0]
    }

    fn pending(&self) -> String {
        let text = self.exporter.render();
        let line = text.lines().find(|line| line.starts_with("tern_push_pending "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_cannot_leave_for_minutes_all_leave_afterwards() {
    let bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talks: Vec<Talk> = (0..20).map(|_| Talk::new(&[&alice, &bob])).collect();
    bench.door.closed.store(true, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let (door, shaky, store) = (bench.door.clone(), bench.shaky.clone(), bench.store.clone());
    let task = tokio::spawn(bench.publisher.run(stop.clone()));
    for minute in 0..5 {
        for talk in &mut talks[minute * 4..minute * 4 + 4] {
            let group = talk.group(&alice, &[(fresh_temp_id(), "hello")]);
            talk.apply(&store, group).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!((door.told(), shaky.calls(Call::ClearIntents)), (Vec::new(), 0), "nothing is forgotten");
    let attempts = door.attempts.load(Ordering::SeqCst);
    assert!((8..40).contains(&attempts), "it backs off: {attempts} attempts in 5 minutes");
    door.closed.store(false, Ordering::SeqCst);
    tokio::time::sleep(PAUSE_MAX + Duration::from_secs(1)).await;
    let mut told = door.told();
    told.sort_unstable();
    assert_eq!(told, vec![("bob".to_owned(), 1); 20]);
    for talk in &talks {
        assert_eq!(store.intents_waiting(&[intent_shard(talk.id)]).await.unwrap(), [0]);
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_crash_between_events_and_their_intents_repeats_events_and_loses_none() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    bench.say(&mut talk, &alice).await;
    // Events cannot leave: the intent must still be there.
    bench.door.closed.store(true, Ordering::SeqCst);
    assert!(bench.publisher.publish_due().await.is_err());
    assert_eq!(bench.waiting(&talk).await, 1);
    bench.door.closed.store(false, Ordering::SeqCst);
    // They leave, and then it dies.
    bench.shaky.fail(Call::ClearIntents, 1);
    assert!(bench.publisher.publish_due().await.is_err());
    assert_eq!((bench.door.told().len(), bench.waiting(&talk).await), (1, 1));
    assert!(!bench.publisher.publish_due().await.unwrap());
    let left = bench.door.left.lock().clone();
    assert_eq!(left.len(), 2);
    assert_eq!(left[0], left[1], "the same event, by the same id");
    assert_eq!(bench.waiting(&talk).await, 0);
}

#[tokio::test]
async fn a_store_that_fails_now_and_then_loses_no_event() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    bench.say(&mut talk, &alice).await;
    bench.shaky.slow_reads(Duration::from_millis(2));
    for call in [Call::IntentsWaiting, Call::Intents, Call::Glance, Call::Runs] {
        bench.shaky.fail(call, 1);
        assert!(bench.publisher.publish_due().await.is_err(), "{call:?}");
    }
    assert_eq!(bench.door.told(), []);
    bench.publisher.publish_due().await.unwrap();
    assert_eq!(bench.door.told(), [("bob".to_owned(), 1)]);
}

#[tokio::test]
async fn where_nobody_waits_no_log_is_read() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut seen = Talk::new(&[&alice, &bob]);
    let mut unseen = Talk::new(&[&alice, &bob]);
    for _ in 0..3 {
        bench.say(&mut seen, &alice).await;
    }
    bench.confirmed.note(seen.id, &bob, 3);
    bench.publisher.publish_due().await.unwrap();
    let reads = || bench.shaky.calls(Call::Runs) + bench.shaky.calls(Call::Entries);
    assert_eq!((reads(), bench.door.told(), bench.waiting(&seen).await), (0, vec![], 0));

    for _ in 0..3 {
        bench.say(&mut unseen, &alice).await;
    }
    bench.confirmed.note(unseen.id, &bob, 1);
    let before = bench.shaky.round_trips();
    bench.publisher.publish_due().await.unwrap();
    let bob = |seq| ("bob".to_owned(), seq);
    assert_eq!((reads(), bench.door.told()), (1, vec![bob(2), bob(3)]), "three intents, one range");
    assert_eq!(bench.shaky.round_trips() - before, 5, "count, intents, states, log, end");
}

#[tokio::test]
async fn a_log_of_many_waiting_intents_is_read_whole() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let (mut long, mut short) = (Talk::new(&[&alice, &bob]), Talk::new(&[&alice, &bob]));
    // More than one read takes.
    let text = "x".repeat(16 * 1024);
    for _ in 0..150 {
        let group = long.group(&alice, &[(fresh_temp_id(), &text)]);
        long.apply(&bench.store, group).await;
    }
    bench.say(&mut short, &bob).await;
    while bench.publisher.publish_due().await.unwrap() {}
    assert!(bench.shaky.calls(Call::Runs) > 1);
    let mut expected: Vec<_> = (1..=150).map(|seq| ("bob".to_owned(), seq)).collect();
    expected.push(("alice".to_owned(), 1));
    let mut told = bench.door.told();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_state_that_is_behind_hides_nobody() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talk = Talk::new(&[&alice]);
    bench.say(&mut talk, &alice).await;
    bench.shaky.stale_glances(1);
    bench.store.glance(&[talk.id]).await.unwrap();
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "bob comes"), (fresh_temp_id(), "hello")]);
    let member =
        crate::store::Member { user: bob, role: tern_protocol::Role::Member, first_seq: 2, added_by: None };
    Arc::make_mut(&mut group.state).members.push(member);
    talk.apply(&bench.store, group).await;
    bench.publisher.publish_due().await.unwrap();
    assert_eq!(bench.door.told(), [("bob".to_owned(), 2), ("bob".to_owned(), 3)]);
}

#[tokio::test]
async fn the_gauge_tells_how_many_intents_wait_due_or_not() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    for _ in 0..BATCH + 7 {
        bench.say(&mut talk, &alice).await;
    }
    bench.door.closed.store(true, Ordering::SeqCst);
    assert!(bench.publisher.publish_due().await.is_err());
    assert_eq!(bench.pending(), (BATCH + 7).to_string(), "more than one look takes");
    bench.door.closed.store(false, Ordering::SeqCst);
    assert!(bench.publisher.publish_due().await.unwrap(), "there is more");
    assert_eq!(bench.pending(), "7");
    bench.publisher.publish_due().await.unwrap();
    assert_eq!(bench.pending(), "0");
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "now")]);
    crate::store::contract::change(&mut group.entries[0], |entry| entry.time_ms = stamp_ms());
    talk.apply(&bench.store, group).await;
    bench.publisher.publish_due().await.unwrap();
    assert_eq!(bench.pending(), "1", "not due yet, and waiting all the same");
}

#[tokio::test(start_paused = true)]
async fn what_is_stamped_with_a_time_that_has_not_come_is_told_after_the_delay_all_the_same() {
    let bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let delay = bench.publisher.delay;
    // The clock was ahead for a while, by half a day or by forty.
    let mut talks: Vec<(Talk, u64)> = [12 * 3_600_000, 40 * 24 * 3_600_000]
        .map(|ahead_ms| (Talk::new(&[&alice, &bob]), stamp_ms() + ahead_ms))
        .into();
    let stop = CancellationToken::new();
    let (door, store) = (bench.door.clone(), bench.store.clone());
    let task = tokio::spawn(bench.publisher.run(stop.clone()));
    for seq in 1..=3 {
        for (talk, time_ms) in &mut talks {
            let mut group = talk.group(&alice, &[(fresh_temp_id(), "hello")]);
            change(&mut group.entries[0], |entry| entry.time_ms = *time_ms);
            talk.apply(&store, group).await;
        }
        tokio::time::sleep(delay - Duration::from_millis(1)).await;
        assert_eq!(door.told().len(), 2 * (seq - 1), "not before the delay");
        tokio::time::sleep(delay).await;
        assert_eq!(door.told().len(), 2 * seq);
    }
    for (talk, _) in &talks {
        assert_eq!(store.intents_waiting(&[intent_shard(talk.id)]).await.unwrap(), [0]);
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn what_is_damaged_keeps_nobody_else_from_being_told() {
    let mut bench = Bench::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talks: Vec<Talk> = (0..9).map(|_| Talk::new(&[&alice, &bob])).collect();
    for talk in &mut talks {
        bench.say(talk, &alice).await;
    }
    bench.shaky.damage(talks[2].id);
    bench.shaky.damage_entries(talks[6].id);
    while bench.publisher.publish_due().await.unwrap() {}
    assert_eq!(bench.door.told().len(), 7);
    for talk in &talks {
        assert_eq!(bench.waiting(talk).await, 0, "and none of it is tried for ever");
    }
    let lost = bench.exporter.render();
    assert!(lost.contains("tern_push_lost_total 2"), "{lost}");
    bench.say(&mut talks[0], &alice).await;
    bench.publisher.publish_due().await.unwrap();
    assert_eq!(bench.door.told().len(), 8);
}
