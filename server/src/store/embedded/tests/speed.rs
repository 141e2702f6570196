//! Measurements, run by hand: `cargo test --release -p tern --lib store::embedded::tests::speed --
//! --ignored --nocapture`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tern_protocol::TempId;
use uuid::Uuid;

use super::*;
use crate::store::contract::Talk;

const TEXT: &str = "a message of usual length, as people write them all day long";

fn temp_id() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: prints its figures"]
async fn durable_messages_per_second_by_senders() {
    for senders in [1, 64, 512] {
        let disk = OnDisk::new(true);
        let each = if senders == 1 { 500 } else { 40_000 / senders };
        let started = Instant::now();
        let tasks = (0..senders).map(|number| {
            let store = disk.store();
            tokio::spawn(async move {
                let alice = UserId::new(&format!("alice-{number}")).unwrap();
                let bob = UserId::new(&format!("bob-{number}")).unwrap();
                let mut talk = Talk::new(&[&alice, &bob]);
                let mut latencies = Vec::new();
                for _ in 0..each {
                    let begun = Instant::now();
                    let group = talk.group(&alice, &[(temp_id(), TEXT)]);
                    talk.apply(&store, group).await;
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        });
        let latencies = join_all(tasks.collect::<Vec<_>>()).await;
        let mut latencies: Vec<_> = latencies.into_iter().flat_map(Result::unwrap).collect();
        latencies.sort();
        let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
        let (p50, p99) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
        println!("{senders} senders: {rate:.0} durable messages/s, p50 {p50:?}, p99 {p99:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: prints its figure"]
async fn a_killed_store_of_100_000_messages_opens_within_2_s() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let alice = UserId::new("alice").unwrap();
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..1000 {
        let many: Vec<_> = (0..100).map(|_| (temp_id(), TEXT)).collect();
        let group = talk.group(&alice, &many);
        talk.apply(&store, group).await;
    }
    damage::copy_dir(source.path(), dir.path());
    let started = Instant::now();
    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    let took = started.elapsed();
    println!("opened 100,000 messages in {took:?}");
    assert_eq!(store.conversation(talk.id).await.unwrap().unwrap().head, 100_000);
    assert!(took < Duration::from_secs(2), "{took:?}");
}
