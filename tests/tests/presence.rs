//! Presence: seen only by those who share a conversation, over all devices, and remembered.

use std::time::Duration;

use serde_json::json;
use tern_protocol::{
    Code, Frame, PresenceState, Target, Typing, UserPresence, UserTyping, WATCH_USERS_MAX, Watch,
};
use tern_tests::http::{Ask, Http};
use tern_tests::{Channel, Options, RawClient, Server, Wire, loose, on_a_wire, pair, user, within};

/// Offline at once, so that it need not be waited for.
fn hasty() -> Options {
    loose().set("PRESENCE__GRACE_MS", "1").set("PRESENCE__BATCH_MS", "10")
}

fn watch(names: &[&str]) -> Watch {
    Watch { users: names.iter().map(|name| user(name)).collect() }
}

async fn watching(client: &mut RawClient, names: &[&str]) -> Vec<UserPresence> {
    match client.ask(watch(names)).await {
        Frame::Presence(presence) => presence.users,
        other => panic!("{other:?}"),
    }
}

fn states(users: &[UserPresence]) -> Vec<(&str, PresenceState)> {
    users.iter().map(|presence| (presence.user.as_str(), presence.state)).collect()
}

/// The next change of the watched users.
async fn change(client: &mut RawClient) -> UserPresence {
    let mut users = client
        .find("a change of presence", |envelope| match &envelope.frame {
            Frame::Presence(presence) => Some(presence.users.clone()),
            _ => None,
        })
        .await;
    assert_eq!(users.len(), 1, "{users:?}");
    users.remove(0)
}

/// Somebody writes to another, who sees them from then on.
async fn shown(server: &Server, who: &str, to: &str) {
    let body = json!({"to": to, "text": "hi"});
    let ask = Ask::new("POST", "/v1/messages").token(&server.token(who)).json(&body);
    assert!(server.ask(Http::One, ask).await.status.is_success());
}

on_a_wire! {
    async fn only_users_who_share_a_conversation_are_visible(wire: Wire) {
        let server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let _bob = RawClient::open(&server, wire, "bob").await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        let _stranger = RawClient::open(&server, wire, "stranger").await;
        shown(&server, "bob", "alice").await;
        carol.group("team", &["alice"]).await;
        let seen = watching(&mut alice, &["bob", "carol", "stranger", "nobody"]).await;
        let expected = [
            ("bob", PresenceState::Online),
            ("carol", PresenceState::Online),
            ("stranger", PresenceState::Unknown),
            ("nobody", PresenceState::Unknown),
        ];
        assert_eq!(states(&seen), expected);
        assert!(seen.iter().all(|presence| presence.last_seen_ms.is_none()));
    }

    async fn somebody_who_leaves_is_offline_with_last_seen_also_after_a_restart(wire: Wire) {
        let mut server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        shown(&server, "bob", "alice").await;
        let before = alice.welcome().time_ms;
        let bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(states(&watching(&mut alice, &["bob"]).await), [("bob", PresenceState::Online)]);
        bob.leave().await;
        let gone = change(&mut alice).await;
        let last_seen_ms = gone.last_seen_ms.expect("offline with last seen");
        assert_eq!(gone.state, PresenceState::Offline);
        assert!(last_seen_ms >= before, "{last_seen_ms}, and alice came at {before}");
        // It is told when it is durable.
        server.restart().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(watching(&mut alice, &["bob"]).await, [gone]);
        let _bob = RawClient::open(&server, wire, "bob").await;
        let back = change(&mut alice).await;
        assert_eq!((back.state, back.last_seen_ms), (PresenceState::Online, None));
    }

    async fn a_user_is_online_until_the_last_device_is_gone(wire: Wire) {
        let server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        shown(&server, "bob", "alice").await;
        shown(&server, "carol", "alice").await;
        let phone = RawClient::open(&server, wire, "bob").await;
        let laptop = RawClient::open(&server, wire, "bob").await;
        watching(&mut alice, &["bob", "carol"]).await;
        phone.leave().await;
        // Bob is still there: the next news is of carol.
        let carol = RawClient::open(&server, wire, "carol").await;
        assert_eq!(states(&[change(&mut alice).await]), [("carol", PresenceState::Online)]);
        laptop.leave().await;
        assert_eq!(states(&[change(&mut alice).await]), [("bob", PresenceState::Offline)]);
        carol.leave().await;
        assert_eq!(states(&[change(&mut alice).await]), [("carol", PresenceState::Offline)]);
    }

    async fn a_flap_within_the_grace_is_not_seen(wire: Wire) {
        let server = loose().set("PRESENCE__GRACE_MS", "600000").set("PRESENCE__BATCH_MS", "10").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        shown(&server, "bob", "alice").await;
        shown(&server, "carol", "alice").await;
        let bob = RawClient::open(&server, wire, "bob").await;
        watching(&mut alice, &["bob", "carol"]).await;
        bob.leave().await;
        let _bob = RawClient::open(&server, wire, "bob").await;
        let _carol = RawClient::open(&server, wire, "carol").await;
        assert_eq!(states(&[change(&mut alice).await]), [("carol", PresenceState::Online)]);
    }

    async fn a_new_watch_replaces_the_one_before(wire: Wire) {
        let server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        shown(&server, "bob", "alice").await;
        shown(&server, "carol", "alice").await;
        watching(&mut alice, &["bob"]).await;
        watching(&mut alice, &["carol"]).await;
        let _bob = RawClient::open(&server, wire, "bob").await;
        let _carol = RawClient::open(&server, wire, "carol").await;
        assert_eq!(states(&[change(&mut alice).await]), [("carol", PresenceState::Online)]);
        assert_eq!(watching(&mut alice, &[]).await, []);
    }

    async fn more_users_than_fit_on_a_screen_are_refused(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let names: Vec<String> = (0..=WATCH_USERS_MAX).map(|number| format!("user{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(alice.refused(watch(&names)).await.code, Code::LIMIT_EXCEEDED);
        assert_eq!(watching(&mut alice, &names[1..]).await.len(), WATCH_USERS_MAX);
    }

    async fn typing_is_seen_by_the_other_members_only(wire: Wire) {
        let server = loose()
            .set("QUOTA__CONNECTION_TYPING_PER_SECOND", "1000")
            .set("QUOTA__CONNECTION_TYPING_BURST", "1000")
            .start()
            .await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let mut eve = RawClient::open(&server, wire, "eve").await;
        alice.say("bob", "hi").await;
        let conversation = pair("alice", "bob");
        eve.send(Typing { to: Target::Conversation(conversation) }).await;
        eve.settle().await;
        // It may be lost, so it is sent until it comes.
        let typing = async {
            loop {
                bob.send(Typing { to: Target::User(user("alice")) }).await;
                bob.settle().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let seen = alice.find("typing", |envelope| match &envelope.frame {
            Frame::UserTyping(typing) => Some(typing.clone()),
            _ => None,
        });
        let seen = tokio::select! {
            seen = seen => seen,
            () = typing => unreachable!("it does not end"),
        };
        assert_eq!(seen, UserTyping { conversation, user: user("bob") });
        assert!(!bob.unread().any(|frame| matches!(frame, Frame::UserTyping(_))), "not to oneself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_a_datagram_on_quic_in_both_directions() {
    for wire in [Wire::Quic, Wire::WebTransport] {
        typing_is_a_datagram(wire).await;
    }
}

async fn typing_is_a_datagram(wire: Wire) {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, wire, "alice").await;
    let mut bob = RawClient::open(&server, wire, "bob").await;
    alice.say("bob", "hi").await;
    bob.entry(pair("alice", "bob")).await;
    let typing = async {
        loop {
            let frame = Typing { to: Target::User(user("alice")) };
            bob.quic().send_datagram(&frame.into());
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    let seen = tokio::select! {
        seen = within("typing", alice.quic().next()) => seen.expect("the session goes on"),
        () = typing => unreachable!("it does not end"),
    };
    assert_eq!(seen.channel, Channel::Datagram);
    let expected = UserTyping { conversation: pair("alice", "bob"), user: user("bob") };
    assert_eq!(seen.envelope.frame, expected.into());
}
