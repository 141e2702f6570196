//! Memory is given back: after each storm of sessions that read nothing, the node is as small as after the first.

use tern_protocol::{Envelope, Frame, Target};
use tern_tests::meter::resident_bytes;
use tern_tests::{RawClient, Server, Wire, loose, message, pair, until, user};

/// Storms, unless `TERN_STORMS` says another number.
const ROUNDS: usize = 3;
/// Sessions of a storm.
const USERS: usize = 120;
/// What waits for each of them: more than its outbox and the window of its connection hold.
const MESSAGES: usize = 40;
/// A storm may leave so many MiB more than the one before it: caches of the store fill up to their limits.
const LEFT_MIB: u64 = 48;

/// What the process holds of the machine's memory, in MiB.
fn rss_mib(server: &Server) -> u64 {
    resident_bytes(server) / (1024 * 1024)
}

async fn storm(server: &Server, round: usize) -> f64 {
    let mut deaf = Vec::new();
    for number in 0..USERS {
        let name = format!("deaf-{round}-{number}");
        let mut client = RawClient::open(server, Wire::Quic, &name).await;
        client.quic().hold(pair("loud", &name));
        deaf.push((name, client));
    }
    let mut loud = RawClient::open(server, Wire::WebSocketBinary, "loud").await;
    let text = "x".repeat(15_000);
    for _ in 0..MESSAGES {
        for (name, _) in &deaf {
            loud.request(message(Target::User(user(name)), &text)).await;
        }
        for _ in &deaf {
            let ack = |envelope: &Envelope| matches!(envelope.frame, Frame::SendAck(_)).then_some(());
            loud.find("an ack", ack).await;
        }
    }
    server.metric_becomes("tern_memory_bytes{part=\"outboxes\"}", |bytes| bytes > 1024.0 * 1024.0).await;
    server.metric("tern_memory_bytes{part=\"outboxes\"}").await.expect("it is shown")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_storm_took_is_given_back_and_the_next_finds_the_same_node() {
    let server = loose()
        .set("CONVERSATION__IDLE_S", "1")
        .set("SESSION__STALLED_S", "600")
        .set("STORE__CACHE_MIB", "8")
        .start()
        .await;
    let start = rss_mib(&server);
    let mut after = Vec::new();
    let rounds = std::env::var("TERN_STORMS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        let outboxes = storm(&server, round).await;
        let high = rss_mib(&server);
        // The clients are gone; what they made the node keep is not counted any more …
        for part in ["connections", "sessions", "outboxes", "conversations", "reads", "commits", "push"] {
            let series = format!("tern_memory_bytes{{part=\"{part}\"}}");
            server.metric_becomes(&series, |bytes| bytes < 256.0 * 1024.0).await;
        }
        // … and not held.
        let limit = after.first().map_or(u64::MAX, |first| first + LEFT_MIB * round as u64);
        let low =
            until("memory to be given back", || Some(rss_mib(&server)).filter(|rss| *rss <= limit)).await;
        println!(
            "storm {}: {start} MiB at the start, {high} with {:.0} MiB in outboxes, {low} after it",
            round + 1,
            outboxes / 1048576.0
        );
        after.push(low);
    }
}
