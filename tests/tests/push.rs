//! Push: one event for each member who has not confirmed a message on any device, at least once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tern_protocol::{Frame, Target};
use tern_tests::{Options, RawClient, Server, Wire, loose, message, on_a_wire, pair, until};

/// Time to confirm a message.
const DELAY: Duration = Duration::from_millis(1500);

/// Events soon after the message.
fn hasty() -> Options {
    loose().set("PUSH__DELAY_MS", "200")
}

/// The events that have left, in their order.
fn events(server: &Server) -> Vec<Value> {
    let dir = server.data_dir().join("events");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("events").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    // A line without its end is still being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Waits for the event of this message to this user, and gives all events so far.
async fn events_up_to(server: &Server, preview: &str, recipient: &str) -> Vec<Value> {
    until("a push event", || {
        let events = events(server);
        let there = |event: &Value| event["preview"] == preview && event["recipient_id"] == recipient;
        events.iter().any(there).then_some(events)
    })
    .await
}

fn recipients(events: &[Value], preview: &str) -> Vec<String> {
    let of_it = events.iter().filter(|event| event["preview"] == preview);
    of_it.map(|event| event["recipient_id"].as_str().expect("an id").to_owned()).collect()
}

on_a_wire! {
    async fn who_is_away_gets_one_event_and_who_has_confirmed_gets_none(wire: Wire) {
        let server = loose().set("PUSH__DELAY_MS", &DELAY.as_millis().to_string()).start().await;
        let mut alice = RawClient::connect(&server, wire).await;
        let mut claims = tern_tests::token::claims("alice");
        claims["name"] = "Alice".into();
        alice.hello(&server.sign(&claims), "device").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group("team", &["bob", "carol"]).await;
        // On a machine that is too slow for bob to confirm in time, with another message.
        let mut number = 0;
        let (news, ack) = loop {
            number += 1;
            let (news, begun) = (format!("news {number}"), Instant::now());
            let ack = alice.say_in(group, &news).await;
            while bob.entry(group).await.seq != ack.seq {}
            bob.ack(group, ack.seq).await;
            bob.settle().await;
            if begun.elapsed() < DELAY {
                break (news, ack);
            }
        };
        events_up_to(&server, &news, "carol").await;
        // Events leave in the order of the messages: with this one, all of the first have left.
        let long = "x".repeat(500);
        alice.say("dave", &long).await;
        let events = events_up_to(&server, &long[..120], "dave").await;
        assert_eq!(recipients(&events, &news), ["carol"]);
        let event = events.iter().find(|event| event["preview"] == news.as_str()).unwrap();
        assert_eq!(event["event_id"], format!("{}:carol", ack.id));
        assert_eq!(event["conversation"], group.to_string());
        assert_eq!((event["seq"].as_u64(), event["time_ms"].as_u64()), (Some(ack.seq), Some(ack.time_ms)));
        assert_eq!((&event["sender_id"], &event["sender_name"]), (&"alice".into(), &"Alice".into()));
        assert_eq!((&event["group_name"], &event["entry_id"]), (&"team".into(), &ack.id.to_string().into()));
        assert!(events.iter().all(|event| event["preview"].as_str().is_some_and(|text| !text.is_empty())), "{events:?}");
        let of_carol = events.iter().filter(|event| event["recipient_id"] == "carol").count();
        assert_eq!(of_carol, number, "changes of a group are no messages: {events:?}");
    }

    async fn a_link_that_confirms_nothing_does_not_keep_the_event_back(wire: Wire) {
        let server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        alice.say("bob", "are you there?").await;
        // It was delivered, and nobody says that it was seen.
        bob.entry(pair("alice", "bob")).await;
        let events = events_up_to(&server, "are you there?", "bob").await;
        assert_eq!(recipients(&events, "are you there?"), ["bob"]);
    }

    async fn an_event_that_was_due_in_a_crash_leaves_after_it(wire: Wire) {
        // Longer than it takes to crash, on most machines: then no event has left before.
        let mut server = loose().set("PUSH__DELAY_MS", &DELAY.as_millis().to_string()).start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let numbers: BTreeSet<String> = (0..20).map(|number| format!("message {number}")).collect();
        for text in &numbers {
            alice.say("bob", text).await;
        }
        server.restart().await;
        until("all events", || {
            let sent: BTreeSet<String> = events(&server)
                .iter()
                .filter(|event| event["recipient_id"] == "bob")
                .map(|event| event["preview"].as_str().expect("text").to_owned())
                .collect();
            (sent == numbers).then_some(())
        })
        .await;
    }

    async fn events_survive_crashes_in_the_middle_of_publishing(wire: Wire) {
        let mut server = loose().set("PUSH__DELAY_MS", "1").start().await;
        let mut ids = BTreeSet::new();
        for round in 0..3 {
            let mut alice = RawClient::open(&server, wire, "alice").await;
            for number in 0..50 {
                alice.send(message(Target::User(tern_tests::user("bob")), &format!("{round}.{number}"))).await;
            }
            for _ in 0..50 {
                if let Frame::SendAck(ack) = alice.recv().await {
                    ids.insert(format!("{}:bob", ack.id));
                }
            }
            server.restart().await;
        }
        assert_eq!(ids.len(), 150);
        // Every one at least once; one sent twice has the same id.
        until("all events", || {
            let sent: BTreeSet<String> =
                events(&server).iter().map(|event| event["event_id"].as_str().expect("an id").to_owned()).collect();
            (sent == ids).then_some(())
        })
        .await;
    }
}
