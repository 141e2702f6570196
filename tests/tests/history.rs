//! History: newest first, both directions, by frame and over HTTP; what is not yours does not exist.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;
use tern_protocol::{AddMembers, Code, ConversationId, Fetch, RemoveMembers};
use tern_tests::http::{Http, HttpAnswer};
use tern_tests::{RawClient, Server, Wire, fresh, newest, on_a_wire, pair, seqs, text, token, user};

fn down(from: u64, to: u64) -> Vec<u64> {
    (to..=from).rev().collect()
}

/// A log of `count` messages between alice and bob.
async fn filled(server: &Server, wire: Wire, count: u64) -> (RawClient, ConversationId) {
    let mut alice = RawClient::open(server, wire, "alice").await;
    for seq in 1..=count {
        alice.say("bob", &seq.to_string()).await;
    }
    (alice, pair("alice", "bob"))
}

fn entry_seqs(page: &Value) -> Vec<u64> {
    let entries = page["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["seq"].as_u64().expect("a seq")).collect()
}

fn problem(answer: &HttpAnswer) -> (u16, String) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["status"], answer.status.as_u16());
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    (answer.status.as_u16(), body["code"].as_str().expect("a code").to_owned())
}

on_a_wire! {
    async fn a_page_lies_before_after_or_around_a_seq(wire: Wire) {
        let server = Server::start().await;
        let (mut alice, id) = filled(&server, wire, 60).await;
        let page = alice.fetch(newest(id)).await;
        assert_eq!((seqs(&page.entries), page.first_seq, page.head), (down(60, 41), 1, 60));
        assert!(page.entries.iter().all(|entry| text(entry) == entry.seq.to_string()));
        let at = |before, after, around, limit| Fetch { conversation: id, before, after, around, limit: Some(limit) };
        let table = [
            (at(Some(41), None, None, 10), down(40, 31)),
            (at(Some(3), None, None, 10), down(2, 1)),
            (at(Some(1), None, None, 10), down(0, 1)),
            (at(Some(0), None, None, 10), down(0, 1)),
            (at(Some(u64::MAX), None, None, 2), down(60, 59)),
            (at(None, Some(0), None, 3), down(3, 1)),
            (at(None, Some(57), None, 10), down(60, 58)),
            (at(None, Some(60), None, 10), down(0, 1)),
            (at(None, Some(u64::MAX), None, 10), down(0, 1)),
            (at(None, None, Some(30), 5), down(32, 28)),
            (at(None, None, Some(1), 4), down(3, 1)),
            (at(None, None, Some(60), 4), down(60, 57)),
            (at(None, None, Some(30), 1), down(30, 30)),
            (at(None, None, None, 200), down(60, 1)),
            (at(None, None, None, 1), down(60, 60)),
        ];
        for (fetch, expected) in table {
            let what = format!("{fetch:?}");
            let page = alice.fetch(fetch).await;
            let found = seqs(&page.entries);
            if what.contains("around: Some(1)") || what.contains("around: Some(60)") {
                // At an end of the log a page may be shorter than its limit, never with holes.
                let (top, bottom) = (found[0], *found.last().expect("entries"));
                assert_eq!(found, down(top, bottom), "{what}");
                assert!(found.len() <= 4 && (found.contains(&1) || found.contains(&60)), "{what}: {found:?}");
            } else {
                assert_eq!(found, expected, "{what}");
            }
        }
    }

    async fn bad_limits_and_two_places_are_refused(wire: Wire) {
        let server = Server::start().await;
        let (mut alice, id) = filled(&server, wire, 2).await;
        for limit in [0, 201, 1 << 31, u32::MAX] {
            let error = alice.refused(Fetch { limit: Some(limit), ..newest(id) }).await;
            assert_eq!((error.code, error.temporary), (Code::INVALID_ARGUMENT, false), "{limit}");
        }
        let error = alice.refused(Fetch { before: Some(1), after: Some(1), ..newest(id) }).await;
        assert_eq!(error.code, Code::INVALID_ARGUMENT);
        assert_eq!(alice.fetch(newest(id)).await.entries.len(), 2);
    }

    async fn pages_of_long_texts_are_cut_by_bytes_without_a_hole(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let id = pair("alice", "bob");
        let long = "\u{1F426}".repeat(4096);
        for _ in 0..12 {
            alice.say("bob", &long).await;
        }
        let mut log = Vec::new();
        let mut before = u64::MAX;
        while before > 1 {
            let page = alice.fetch(Fetch { before: Some(before), limit: Some(200), ..newest(id) }).await;
            assert!(!page.entries.is_empty() && page.entries.len() < 12, "{} entries", page.entries.len());
            assert!(page.entries.iter().all(|entry| text(entry) == long));
            before = page.entries.last().expect("entries").seq;
            log.extend(seqs(&page.entries));
        }
        assert_eq!(log, down(12, 1));
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(bob.sync(&[]).await.entries[&id].len(), 12);
    }
}

#[tokio::test]
async fn http_pages_go_down_and_up_by_their_cursors() {
    let server = Server::start().await;
    let (_alice, id) = filled(&server, Wire::Quic, 25).await;
    let token = server.token("bob");
    for how in Http::ALL {
        let first = server.get(how, &format!("/v1/history/{id}?limit=10"), Some(&token)).await;
        assert_eq!(first.status, StatusCode::OK, "{how:?}: {}", first.body);
        let mut page = first.json();
        assert_eq!(page["conversation"], id.to_string());
        assert_eq!((page["first_seq"].as_u64(), page["head"].as_u64()), (Some(1), Some(25)));
        assert_eq!(entry_seqs(&page), down(25, 16));
        let entry = &page["entries"][0];
        assert_eq!((&entry["sender"], &entry["body"]["text"]), (&"alice".into(), &"25".into()));
        assert_eq!(page["newer"], Value::Null, "there is nothing newer");
        let mut log = entry_seqs(&page);
        while let Some(cursor) = page["older"].as_str() {
            let path = format!("/v1/history/{id}?limit=10&cursor={cursor}");
            page = server.get(how, &path, Some(&token)).await.json();
            log.extend(entry_seqs(&page));
        }
        assert_eq!(log, down(25, 1), "{how:?}");
        let mut back = entry_seqs(&page);
        while let Some(cursor) = page["newer"].as_str() {
            let path = format!("/v1/history/{id}?limit=10&cursor={cursor}");
            page = server.get(how, &path, Some(&token)).await.json();
            back.splice(0..0, entry_seqs(&page));
        }
        assert_eq!(back, down(25, 1), "{how:?}");
    }
}

#[tokio::test]
async fn http_takes_a_seq_or_a_time_as_well() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let mut times = Vec::new();
    for _ in 0..10 {
        times.push(alice.say("bob", "x").await.time_ms);
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let id = pair("alice", "bob");
    let token = server.token("alice");
    let get = async |query: String| {
        let answer = server.get(Http::One, &format!("/v1/history/{id}?{query}"), Some(&token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.body);
        entry_seqs(&answer.json())
    };
    assert_eq!(get("before=5&limit=2".into()).await, [4, 3]);
    assert_eq!(get("after=5&limit=2".into()).await, [7, 6]);
    assert_eq!(get("around=5&limit=3".into()).await, [6, 5, 4]);
    for (seq, time) in (1u64..).zip(&times) {
        let newest_then = times.iter().filter(|other| *other <= time).count() as u64;
        assert!(newest_then >= seq);
        assert_eq!(get(format!("cursor={time}")).await, down(newest_then, 1), "at {time}");
    }
    assert_eq!(get(format!("cursor={}", times[0] - 1)).await, down(0, 1), "before everything");
    assert_eq!(get("cursor=9999999999999".into()).await, down(10, 1), "in the future");
}

#[tokio::test]
async fn http_refuses_bad_questions_with_a_reason() {
    let server = Server::start().await;
    let (_alice, id) = filled(&server, Wire::Quic, 3).await;
    let token = server.token("alice");
    let bad = [
        "limit=0",
        "limit=201",
        "limit=2147483648",
        "limit=-1",
        "limit=ten",
        "cursor=nonsense",
        "before=x",
        "before=1&after=1",
        "page=2",
        "cursor=",
    ];
    for query in bad {
        let answer = server.get(Http::One, &format!("/v1/history/{id}?{query}"), Some(&token)).await;
        assert_eq!(problem(&answer), (400, "invalid_argument".into()), "{query}");
    }
    let path = format!("/v1/history/{id}");
    let mut expired = token::claims("alice");
    expired["exp"] = (token::now_s() - 3600).into();
    for (bearer, code) in [
        (None, "token_invalid"),
        (Some("nonsense".to_owned()), "token_invalid"),
        (Some(server.sign(&expired)), "token_expired"),
    ] {
        let answer = server.get(Http::Two, &path, bearer.as_deref()).await;
        assert_eq!(problem(&answer), (401, code.into()));
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let nowhere = server.get(Http::One, "/v1/nothing", Some(&token)).await;
    assert_eq!(problem(&nowhere), (404, "not_found".into()));
}

#[tokio::test]
async fn absent_and_forbidden_are_the_same_byte_for_byte() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let group = alice.group("secret", &["bob"]).await;
    let nowhere = ConversationId::from_bytes([9; 16]);
    let token = server.token("eve");
    for how in Http::ALL {
        let forbidden = server.get(how, &format!("/v1/history/{group}"), Some(&token)).await;
        let absent = server.get(how, &format!("/v1/history/{nowhere}"), Some(&token)).await;
        let no_id = server.get(how, "/v1/history/nonsense", Some(&token)).await;
        assert_eq!(problem(&forbidden), (404, "not_found".into()));
        let answers = BTreeSet::from([forbidden.bytes(), absent.bytes(), no_id.bytes()]);
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn http_shows_a_member_only_the_time_of_their_membership() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let group = alice.group("team", &["bob"]).await;
    alice.say_in(group, "2").await;
    let users = vec![user("carol")];
    alice.acked(AddMembers { conversation: group, users: users.clone(), temp_id: fresh() }).await;
    alice.say_in(group, "4").await;
    let path = format!("/v1/history/{group}");
    let page = server.get(Http::One, &path, Some(&server.token("carol"))).await.json();
    assert_eq!((entry_seqs(&page), page["first_seq"].as_u64()), (vec![4, 3], Some(3)));
    assert_eq!(page["older"], Value::Null);
    alice.acked(RemoveMembers { conversation: group, users, temp_id: fresh() }).await;
    alice.say_in(group, "6").await;
    let page = server.get(Http::One, &path, Some(&server.token("carol"))).await.json();
    assert_eq!((entry_seqs(&page), page["head"].as_u64()), (vec![5, 4, 3], Some(5)));
    assert_eq!(page["newer"], Value::Null);
    let before =
        server.get(Http::One, &format!("{path}?before=3"), Some(&server.token("carol"))).await.json();
    assert_eq!(entry_seqs(&before), down(0, 1));
}
