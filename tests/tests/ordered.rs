//! Ordered: one dense sequence, the same for everybody; a session's sends commit in their order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tern_protocol::{Abandon, Code, Entry, Frame, Send, Target, TempId};
use tern_tests::{
    Options, RawClient, Server, Wire, loose, message, newest, on_a_wire, pair, seqs, text, to, user,
};

/// Sends of one user at once in these tests: few, so that a pipeline meets the limit.
fn narrow() -> Options {
    loose().set("QUOTA__USER_SENDS_PER_SECOND", "40").set("QUOTA__USER_SENDS_BURST", "10")
}

/// What became of pipelined sends.
#[derive(Default)]
struct Pipelined {
    seq_of: BTreeMap<TempId, u64>,
    refusals: Vec<Code>,
}

/// Sends all of them by go-back-N: after a temporary refusal, from the first unresolved one on again.
async fn pipeline(client: &mut RawClient, sends: &[Send]) -> Pipelined {
    let mut done = Pipelined::default();
    let mut unresolved: VecDeque<&Send> = sends.iter().collect();
    while !unresolved.is_empty() {
        for send in &unresolved {
            client.send((*send).clone()).await;
        }
        let mut wait_ms = 0;
        for _ in 0..unresolved.len() {
            match client.recv().await {
                Frame::SendAck(ack) => {
                    done.seq_of.insert(ack.temp_id, ack.seq);
                }
                Frame::Error(error) => {
                    assert!(error.temporary, "{error:?}");
                    assert!(error.temp_id.is_some(), "{error:?}");
                    done.refusals.push(error.code);
                    wait_ms = wait_ms.max(error.retry_after_ms.unwrap_or(0));
                }
                other => panic!("{other:?}"),
            }
        }
        unresolved.retain(|send| !done.seq_of.contains_key(&send.temp_id));
        tokio::time::sleep(Duration::from_millis(wait_ms.into())).await;
    }
    done
}

on_a_wire! {
    async fn every_member_sees_the_same_dense_log_with_each_senders_order(wire: Wire) {
        const EACH: usize = 40;
        let server = Server::start().await;
        let names = ["alice", "bob", "carol", "erin"];
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob", "carol", "erin", "dave"]).await;
        // One of them uses each of the wires.
        let senders = names.iter().zip(Wire::ALL).map(|(name, wire)| {
            let (server, name) = (&server, *name);
            async move {
                let mut client = RawClient::open(server, wire, name).await;
                for number in 0..EACH {
                    client.request(message(Target::Conversation(group), &format!("{name} {number}"))).await;
                }
                let mut acks = 0;
                while acks < EACH {
                    if let Frame::SendAck(_) = client.recv().await {
                        acks += 1;
                    }
                }
            }
        });
        futures_util::future::join_all(senders).await;

        let mut logs: Vec<Vec<Entry>> = Vec::new();
        for name in names.into_iter().chain(["dave"]) {
            let mut client = RawClient::open(&server, wire, name).await;
            logs.push(client.sync(&[]).await.entries.remove(&group).expect("the log"));
        }
        let total = 1 + (names.len() * EACH) as u64;
        assert_eq!(seqs(&logs[0]), (1..=total).collect::<Vec<_>>());
        assert!(logs.iter().all(|log| *log == logs[0]), "all have the same log");
        assert!(logs[0].is_sorted_by_key(|entry| entry.time_ms), "time never goes back");
        for name in names {
            let mine = logs[0].iter().filter(|entry| entry.seq > 1 && entry.sender == user(name)).map(text);
            let expected: Vec<String> = (0..EACH).map(|number| format!("{name} {number}")).collect();
            assert_eq!(mine.collect::<Vec<_>>(), expected);
        }
    }

    async fn pipelined_sends_that_meet_a_limit_are_never_reordered(wire: Wire) {
        let server = narrow().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let sends: Vec<Send> = (0..60).map(|number| to("bob", &format!("{number}"))).collect();
        let done = pipeline(&mut alice, &sends).await;
        assert!(done.refusals.contains(&Code::RATE_LIMITED), "the limit was met: {:?}", done.refusals);
        assert!(done.refusals.contains(&Code::OUT_OF_ORDER), "later ones waited: {:?}", done.refusals);
        let placed: Vec<u64> = sends.iter().map(|send| done.seq_of[&send.temp_id]).collect();
        assert_eq!(placed, (1..=60).collect::<Vec<_>>());
    }

    async fn a_later_send_does_not_pass_an_unresolved_one_even_when_there_is_room_again(wire: Wire) {
        let server = loose().set("QUOTA__USER_SENDS_PER_SECOND", "1").set("QUOTA__USER_SENDS_BURST", "1").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "takes the only token").await;
        let (first, second) = (to("bob", "first"), to("bob", "second"));
        let error = alice.refused(first.clone()).await;
        assert_eq!(error.code, Code::RATE_LIMITED);
        let wait = Duration::from_millis(error.retry_after_ms.expect("a hint").into());
        tokio::time::sleep(wait).await;
        // There is a token now, but not for this one.
        assert_eq!(alice.refused(second.clone()).await.code, Code::OUT_OF_ORDER);
        let other = alice.ask(to("carol", "another conversation does not wait")).await;
        assert!(matches!(other, Frame::SendAck(_)), "{other:?}");
        // Given up, the first does not hold the second any more.
        alice.send(Abandon { to: Target::User(user("bob")), temp_id: first.temp_id }).await;
        let mut answer = alice.ask(second.clone()).await;
        while let Frame::Error(error) = answer {
            assert_eq!(error.code, Code::RATE_LIMITED);
            tokio::time::sleep(Duration::from_millis(error.retry_after_ms.expect("a hint").into())).await;
            answer = alice.ask(second.clone()).await;
        }
        let page = alice.fetch(newest(pair("alice", "bob"))).await;
        let texts: Vec<_> = page.entries.iter().map(text).collect();
        assert_eq!(texts, ["second", "takes the only token"]);
    }

    async fn a_send_refused_for_good_holds_nothing_up(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        let (good, bad) = (message(Target::Conversation(group), "good"), message(Target::Conversation(group), ""));
        alice.send(bad).await;
        alice.send(good.clone()).await;
        let error = alice.find("a refusal", |envelope| match &envelope.frame {
            Frame::Error(error) => Some(error.code),
            _ => None,
        });
        assert_eq!(error.await, Code::TEXT_EMPTY);
        let ack = alice.find("an ack", |envelope| match &envelope.frame {
            Frame::SendAck(ack) => Some(ack.clone()),
            _ => None,
        });
        assert_eq!(ack.await.temp_id, good.temp_id);
    }

    async fn pipelined_sends_that_are_all_refused_for_good_need_no_second_try(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut eve = RawClient::open(&server, wire, "eve").await;
        let group = alice.group("team", &["bob"]).await;
        for number in 0..100 {
            eve.send(message(Target::Conversation(group), &format!("{number}"))).await;
        }
        for _ in 0..100 {
            match eve.recv().await {
                Frame::Error(error) => assert_eq!(error.code, Code::NOT_FOUND),
                other => panic!("{other:?}"),
            }
        }
    }
}
