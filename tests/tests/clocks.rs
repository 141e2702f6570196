//! The wall clock may step, by a second or by forty days, while a node runs: nothing is withheld, doubled or
//! ended that should not be, and what was wrong for a moment is not kept.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tern_protocol::{Code, Frame, Ping, PresenceState, Send, Watch};
use tern_tests::{Options, RawClient, Server, Wire, loose, on_a_wire, to, token, until, user};

/// Steps in seconds: each ahead and then back.
const STEPS_S: [i64; 8] = [1, -1, 600, -600, 12 * 3600, -12 * 3600, 40 * 24 * 3600, -40 * 24 * 3600];
const DAY_S: i64 = 24 * 3600;

/// Waits are short, so that only the clock could make them long.
fn hasty() -> Options {
    loose().set("PUSH__DELAY_MS", "200").set("PRESENCE__GRACE_MS", "1").set("PRESENCE__BATCH_MS", "10")
}

/// A server whose clock can be set, with the file that sets it.
async fn server() -> (Server, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = dir.path().join("clock");
    (hasty().settable_clock(&clock).start().await, clock, dir)
}

/// A session with a token that outlives every step.
async fn enter(server: &Server, wire: Wire, name: &str) -> RawClient {
    let mut claims = token::claims(name);
    claims["exp"] = (token::now_s() + 100 * DAY_S).into();
    let mut client = RawClient::connect(server, wire).await;
    client.hello(&server.sign(&claims), "device").await;
    client
}

/// Previews of the push events that have left.
fn pushed(server: &Server) -> Vec<String> {
    let dir = std::fs::read_dir(server.data_dir().join("events")).expect("events");
    let texts = dir.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let lines: Vec<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    // A line without its end is still being written.
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.map(|event| event["preview"].as_str().expect("a text").to_owned()).collect()
}

async fn push_of(server: &Server, preview: &str) {
    until("a push event", || pushed(server).iter().any(|pushed| pushed == preview).then_some(())).await;
}

fn now_ms() -> u64 {
    token::now_s() as u64 * 1000
}

/// Within a minute of the right time.
fn is_now(time_ms: u64) -> bool {
    time_ms.abs_diff(now_ms()) < 60_000
}

on_a_wire! {
    async fn a_step_withholds_no_push_and_leaves_no_wrong_time(wire: Wire) {
        let (server, clock, _dir) = server().await;
        let mut alice = enter(&server, wire, "alice").await;
        let mut last_ms = alice.say("bob", "first").await.time_ms;
        for step_s in STEPS_S {
            for (ahead_s, when) in [(step_s, "wrong"), (0, "right again")] {
                Server::set_clock(&clock, ahead_s);
                let text = format!("{step_s} {when}");
                let ack = alice.say("bob", &text).await;
                assert!(ack.time_ms >= last_ms, "{text}: times of a conversation never decrease");
                assert!(is_now(ack.time_ms), "{text}: stamped {}, it is {}", ack.time_ms, now_ms());
                last_ms = ack.time_ms;
                push_of(&server, &text).await;
            }
        }
        let texts = pushed(&server);
        assert_eq!(texts.len(), 1 + 2 * STEPS_S.len(), "each once: {texts:?}");
    }

    async fn a_retry_finds_its_message_whatever_the_clock_says_meanwhile(wire: Wire) {
        let (server, clock, _dir) = server().await;
        let mut alice = enter(&server, wire, "alice").await;
        for step_s in STEPS_S {
            Server::set_clock(&clock, 0);
            let send = to("bob", &format!("{step_s}"));
            let first = alice.acked(send.clone()).await;
            Server::set_clock(&clock, step_s);
            for age_ms in [1, 5_000, 6 * DAY_S as u64 * 1000] {
                let again = alice.acked(Send { age_ms: Some(age_ms), ..send.clone() }).await;
                assert_eq!((again.duplicate, again.seq, again.id), (true, first.seq, first.id), "{step_s} s");
            }
        }
    }

    async fn a_token_ends_by_the_wall_clock_and_is_good_again_when_that_is_right(wire: Wire) {
        let (server, clock, _dir) = server().await;
        let token = server.token("alice");
        let mut bob = enter(&server, Wire::WebSocketJson, "bob").await;
        for step_s in STEPS_S {
            let mut alice = RawClient::connect(&server, wire).await;
            alice.hello(&token, "phone").await;
            Server::set_clock(&clock, step_s);
            // It is good for an hour.
            if step_s < 3600 {
                alice.say("bob", "it counts").await;
            } else {
                alice.send(Ping { nonce: 1 }).await;
                let close = alice.end().await.close.expect("a Close");
                assert_eq!(close.code, Code::TOKEN_EXPIRED, "{step_s} s");
                let mut late = RawClient::connect(&server, wire).await;
                match late.greet(&token, "phone").await {
                    Frame::Close(close) => assert_eq!(close.code, Code::TOKEN_EXPIRED, "{step_s} s"),
                    other => panic!("{step_s} s: {other:?}"),
                }
            }
            Server::set_clock(&clock, 0);
            let mut alice = RawClient::connect(&server, wire).await;
            alice.hello(&token, "phone").await;
            alice.say("bob", "and again").await;
            // Who had nothing to say while it was wrong is not cut off.
            bob.say("alice", "here I am").await;
        }
    }

    async fn nobody_was_last_seen_at_a_time_that_was_wrong_for_a_moment(wire: Wire) {
        let (server, clock, _dir) = server().await;
        let mut alice = enter(&server, wire, "alice").await;
        for step_s in STEPS_S {
            let mut bob = enter(&server, wire, "bob").await;
            bob.say("alice", "hi").await;
            alice.say("bob", "hi").await;
            Server::set_clock(&clock, step_s);
            bob.leave().await;
            let seen = loop {
                let watch = Watch { users: vec![user("bob")] };
                let Frame::Presence(mut presence) = alice.ask(watch).await else { panic!("no answer") };
                let bob = presence.users.remove(0);
                if bob.state == PresenceState::Offline {
                    break bob;
                }
            };
            assert!(seen.last_seen_ms.is_some_and(is_now), "{step_s} s: {seen:?}, it is {}", now_ms());
            Server::set_clock(&clock, 0);
        }
    }
}

/// Sets the clock, and sends until what is stamped follows it.
async fn until_stamped(alice: &mut RawClient, clock: &Path, ahead_s: i64) -> u64 {
    Server::set_clock(clock, ahead_s);
    loop {
        let conversation = format!("carol-{}", tern_tests::fresh());
        let ack = alice.say(&conversation, "what time is it?").await;
        if ack.time_ms.abs_diff(now_ms().saturating_add_signed(ahead_s * 1000)) < 60_000 {
            return ack.time_ms;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

on_a_wire! {
    async fn a_step_that_stands_is_followed_and_what_it_has_stamped_is_told_in_time(wire: Wire) {
        let (server, clock, _dir) = server().await;
        let mut alice = enter(&server, wire, "alice").await;
        until_stamped(&mut alice, &clock, DAY_S / 2).await;
        let ahead = alice.say("bob", "half a day ahead").await;
        push_of(&server, "half a day ahead").await;
        until_stamped(&mut alice, &clock, 0).await;
        let after = alice.say("bob", "right again").await;
        assert_eq!(after.time_ms, ahead.time_ms, "times of a conversation never decrease");
        push_of(&server, "right again").await;
    }
}
