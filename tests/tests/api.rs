//! The HTTP API does what sessions do, by the same rules, and answers bad questions with a reason.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};
use tern_protocol::{Code, ConversationId, RemoveMembers};
use tern_tests::http::{Ask, Http, HttpAnswer};
use tern_tests::{Options, RawClient, Server, Wire, fresh, loose, pair, text, token, until, user, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ask(server: &Server, ask: Ask<'_>) -> HttpAnswer {
    server.ask(Http::One, ask).await
}

async fn post(server: &Server, path: &str, who: &str, body: Value) -> HttpAnswer {
    ask(server, Ask::new("POST", path).token(&server.token(who)).json(&body)).await
}

async fn ok(answer: impl Future<Output = HttpAnswer>) -> Value {
    let answer = answer.await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer.json()
}

/// The status and code of a problem, which must be one in full.
fn problem(answer: &HttpAnswer) -> (u16, String) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{answer:?}");
    let body = answer.json();
    assert_eq!(body["status"], answer.status.as_u16());
    assert!(body["title"].is_string(), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    if let Some(number) = body["number"].as_u64() {
        assert_eq!(body["code"], Code(number as u16).name().to_lowercase(), "{body}");
    }
    (answer.status.as_u16(), body["code"].as_str().expect("a code").to_owned())
}

fn detail(answer: &HttpAnswer) -> String {
    answer.json()["detail"].as_str().expect("a detail").to_owned()
}

fn back_end(server: &Server) -> String {
    let mut claims = token::claims("shop");
    claims["scope"] = "orders:read messages:write".into();
    server.sign(&claims)
}

#[tokio::test]
async fn a_message_by_http_is_durable_and_reaches_every_session_of_every_member() {
    let mut server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let mut bob = RawClient::open(&server, Wire::WebSocketJson, "bob").await;
    let body = json!({"to": "bob", "text": "hi", "temp_id": fresh()});
    let ack = ok(post(&server, "/v1/messages", "alice", body.clone())).await;
    assert_eq!(
        (&ack["seq"], &ack["duplicate"], &ack["temp_id"]),
        (&json!(1), &json!(false), &body["temp_id"])
    );
    let id = pair("alice", "bob");
    assert_eq!(ack["conversation"], id.to_string());
    for client in [&mut alice, &mut bob] {
        let entry = client.entry(id).await;
        assert_eq!((entry.seq, text(&entry), entry.sender.as_str()), (1, "hi", "alice"));
        assert_eq!(json!(entry.id), ack["id"]);
    }
    server.restart().await;
    let again = ok(post(&server, "/v1/messages", "alice", body.clone())).await;
    assert_eq!((&again["seq"], &again["id"], &again["duplicate"]), (&json!(1), &ack["id"], &json!(true)));
    let other = json!({"to": "bob", "text": "something else", "temp_id": body["temp_id"]});
    let conflict = post(&server, "/v1/messages", "alice", other).await;
    assert_eq!(problem(&conflict), (409, "conflict".into()));
    // Without a temp_id each is a message of its own.
    let bare = json!({"to": id, "text": "hi"});
    assert_eq!(ok(post(&server, "/v1/messages", "bob", bare.clone())).await["seq"], 2);
    assert_eq!(ok(post(&server, "/v1/messages", "bob", bare)).await["seq"], 3);
}

#[tokio::test]
async fn a_back_end_sends_as_anybody_and_a_user_as_themselves_only() {
    let server = Server::start().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let shop = back_end(&server);
    let body = json!({"to": "bob", "text": "it is on its way", "from": "alice"});
    let send = |token: String, body: Value| {
        let server = &server;
        async move { ask(server, Ask::new("POST", "/v1/messages").token(&token).json(&body)).await }
    };
    let ack = ok(send(shop.clone(), body.clone())).await;
    assert_eq!(ack["recipient_unknown"], false);
    let entry = bob.entry(pair("alice", "bob")).await;
    assert_eq!((entry.sender.as_str(), entry.sender_name), ("alice", None));
    ok(send(shop.clone(), json!({"to": "bob", "text": "from the shop"}))).await;
    assert_eq!(bob.entry(pair("bob", "shop")).await.sender.as_str(), "shop");
    // The name that alice's own token has is hers in what is sent for her.
    let mut named = token::claims("alice");
    named["name"] = "Alice".into();
    let mut alice = RawClient::connect(&server, Wire::Quic).await;
    alice.hello(&server.sign(&named), "phone").await;
    ok(send(shop.clone(), body.clone())).await;
    assert_eq!(alice.entry(pair("alice", "bob")).await.sender_name.as_deref(), Some("Alice"));
    // A group that alice is not in is not there, whoever asks for her.
    let group = bob.group("without alice", &[]).await;
    let outside = json!({"to": group, "text": "x", "from": "alice"});
    assert_eq!(problem(&send(shop.clone(), outside).await), (404, "not_found".into()));

    let refused = send(server.token("carol"), body.clone()).await;
    assert_eq!(problem(&refused), (403, "forbidden".into()));
    assert!(detail(&refused).contains("messages:write"));
    assert!(refused.headers["www-authenticate"].to_str().unwrap().contains("insufficient_scope"));
    ok(send(server.token("alice"), body)).await;
}

#[tokio::test]
async fn a_conversation_is_listed_with_what_a_screen_shows_of_it() {
    let server = Server::start().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let group = bob.group("crew", &["alice", "carol"]).await;
    bob.say_in(group, "one").await;
    bob.say_in(group, "two").await;
    bob.say("alice", "just us").await;
    let token = server.token("alice");
    let list = ok(server.get(Http::Two, "/v1/conversations", Some(&token))).await;
    assert_eq!(list["next"], Value::Null);
    let [pair_row, group_row] = &list["conversations"].as_array().unwrap()[..] else { panic!("{list}") };
    assert_eq!(
        (&pair_row["title"], &pair_row["peer"], &pair_row["unread"]),
        (&json!("bob"), &json!("bob"), &json!(1))
    );
    assert_eq!((&group_row["title"], &group_row["unread"]), (&json!("crew"), &json!(2)));
    assert_eq!(group_row["last_entry"]["body"]["text"], "two");
    assert_eq!(
        (&group_row["head"], &group_row["read_seq"], &group_row["role"]),
        (&json!(3), &json!(0), &json!("member"))
    );
    let members: Vec<&str> = group_row["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["user"].as_str().unwrap())
        .collect();
    assert_eq!(members, ["bob", "alice", "carol"]);
    let one = ok(server.get(Http::One, &format!("/v1/conversations/{group}"), Some(&token))).await;
    assert_eq!(one, *group_row);
    let members =
        ok(server.get(Http::One, &format!("/v1/conversations/{group}/members"), Some(&token))).await;
    assert_eq!(members["members"], group_row["members"]);
    // Page by page it is the same list.
    let first = ok(server.get(Http::One, "/v1/conversations?limit=1", Some(&token))).await;
    assert_eq!(first["conversations"][0], *pair_row);
    let path = format!("/v1/conversations?limit=1&cursor={}", first["next"].as_str().unwrap());
    let second = ok(server.get(Http::One, &path, Some(&token))).await;
    assert_eq!((&second["conversations"][0], &second["next"]), (group_row, &Value::Null));
}

#[tokio::test]
async fn pages_of_large_conversations_are_cut_and_still_hold_each_once() {
    let server = Server::start().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let long = "x".repeat(16 * 1024);
    let mut expected = BTreeSet::new();
    for n in 0..9 {
        let group = bob.group(&format!("group {n}"), &["alice"]).await;
        bob.say_in(group, &long).await;
        expected.insert(group.to_string());
    }
    let (mut found, mut pages, mut path) = (BTreeSet::new(), 0, "/v1/conversations?limit=200".to_owned());
    loop {
        let page = ok(server.get(Http::One, &path, Some(&server.token("alice")))).await;
        for row in page["conversations"].as_array().unwrap() {
            assert!(found.insert(row["conversation"].as_str().unwrap().to_owned()), "twice");
        }
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/conversations?limit=200&cursor={next}");
    }
    assert_eq!(found, expected);
    assert!(pages > 1, "9 × 16 KiB in one page");
}

#[tokio::test]
async fn a_group_is_made_once_and_lives_as_its_members_say() {
    let server = Server::start().await;
    let mut carol = RawClient::open(&server, Wire::Quic, "carol").await;
    let body = json!({"name": "crew", "members": ["bob"], "temp_id": fresh()});
    let made = post(&server, "/v1/conversations", "alice", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let id: ConversationId = made.json()["conversation"].as_str().unwrap().parse().unwrap();
    assert_eq!(made.headers["location"], format!("/v1/conversations/{id}"));
    let again = post(&server, "/v1/conversations", "alice", body).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (StatusCode::OK, &json!(true)));

    let base = format!("/v1/conversations/{id}");
    let add = json!({"users": ["carol"], "temp_id": fresh()});
    let members = format!("{base}/members");
    assert_eq!(ok(post(&server, &members, "alice", add.clone())).await["seq"], 2);
    assert_eq!(ok(post(&server, &members, "alice", add)).await["duplicate"], true);
    assert_eq!(carol.entry(id).await.seq, 2, "a session learns of it");
    let token = server.token("alice");
    let patch = |path: String, who: &str, body: Value| {
        let (server, token) = (&server, server.token(who));
        async move { ask(server, Ask::new("PATCH", &path).token(&token).json(&body)).await }
    };
    let refused = patch(base.clone(), "bob", json!({"name": "mine"})).await;
    assert_eq!(problem(&refused), (403, "forbidden".into()));
    ok(patch(format!("{members}/bob"), "alice", json!({"role": "admin"}))).await;
    ok(patch(base.clone(), "bob", json!({"name": "renamed"}))).await;
    let shown = ok(server.get(Http::One, &base, Some(&token))).await;
    assert_eq!((&shown["title"], &shown["members"][1]["role"]), (&json!("renamed"), &json!("admin")));
    let gone = format!("{members}/carol?temp_id={}", fresh());
    let remove = || ask(&server, Ask::new("DELETE", &gone).token(&token));
    let seq = ok(remove()).await["seq"].clone();
    let again = ok(remove()).await;
    assert_eq!((&again["seq"], &again["duplicate"]), (&seq, &json!(true)));
    let oneself = format!("{members}/alice");
    let refused = ask(&server, Ask::new("DELETE", &oneself).token(&token)).await;
    assert_eq!(problem(&refused), (422, "invalid_argument".into()));
    ok(post(&server, &format!("{base}/leave"), "alice", json!({}))).await;
    let bob = ok(server.get(Http::One, &base, Some(&server.token("bob")))).await;
    assert_eq!((&bob["role"], &bob["members"][0]["user"]), (&json!("owner"), &json!("bob")));
    assert_eq!(bob["members"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_key_of_a_request_is_its_temp_id() {
    let server = Server::start().await;
    let key = fresh().to_string();
    let send = |key: &str, body: Value| {
        let ask =
            Ask::new("POST", "/v1/messages").token(&server.token("alice")).header("idempotency-key", key);
        server.ask(Http::One, ask.json(&body))
    };
    let message = json!({"to": "bob", "text": "hi"});
    let first = ok(send(&key, message.clone())).await;
    assert_eq!((&first["temp_id"], &first["duplicate"]), (&json!(key), &json!(false)));
    for key in [key.clone(), format!("\"{key}\""), key.to_uppercase()] {
        let again = ok(send(&key, message.clone())).await;
        assert_eq!((&again["seq"], &again["duplicate"]), (&first["seq"], &json!(true)));
    }
    let mut both = message.clone();
    both["temp_id"] = json!(key);
    assert_eq!(ok(send(&key, both.clone())).await["duplicate"], true);
    both["temp_id"] = json!(fresh());
    for (key, body) in [("one", &message), ("", &message), (&key, &both)] {
        let refused = send(key, body.clone()).await;
        assert_eq!(problem(&refused), (422, "invalid_argument".into()), "{key}");
        assert!(detail(&refused).contains("Idempotency-Key"), "{key}");
    }
    let other = send(&key, json!({"to": "bob", "text": "ho"})).await;
    assert_eq!(problem(&other), (409, "conflict".into()));
}

#[tokio::test]
async fn half_a_character_and_odd_ages_are_taken_by_http_too() {
    let server = Server::start().await;
    let body = format!(r#"{{"to":"bob","text":"cut \ud83d","age_ms":-5.5,"temp_id":"{}"}}"#, fresh());
    let ask = Ask::new("POST", "/v1/messages").token(&server.token("alice")).bytes(body.as_bytes());
    let ack = ok(server.ask(Http::One, ask.header("content-type", "application/json"))).await;
    assert_eq!(ack["seq"], 1);
    let path = format!("/v1/history/{}", pair("alice", "bob"));
    let page = server.ask(Http::One, Ask::new("GET", &path).token(&server.token("alice"))).await;
    assert_eq!(page.json()["entries"][0]["body"]["text"], "cut \u{fffd}");
}

#[tokio::test]
async fn a_user_id_may_hold_what_a_path_would_not() {
    let server = Server::start().await;
    let id =
        ok(post(&server, "/v1/conversations", "alice", json!({"name": "g", "members": ["a/b c+%é"]}))).await;
    let id = id["conversation"].as_str().unwrap().to_owned();
    let path = format!("/v1/conversations/{id}/members/a%2Fb%20c+%25%C3%A9");
    let token = server.token("alice");
    ok(ask(&server, Ask::new("DELETE", &path).token(&token))).await;
    let members = ok(server.get(Http::One, &format!("/v1/conversations/{id}/members"), Some(&token))).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 1);
}

/// Every call about a conversation.
fn calls(id: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let base = format!("/v1/conversations/{id}");
    vec![
        ("GET", base.clone(), None),
        ("GET", format!("/v1/history/{id}"), None),
        ("GET", format!("{base}/members"), None),
        ("POST", format!("{base}/members"), Some(json!({"users": ["dave"]}))),
        ("DELETE", format!("{base}/members/bob"), None),
        ("PATCH", format!("{base}/members/bob"), Some(json!({"role": "admin"}))),
        ("PATCH", base.clone(), Some(json!({"name": "taken"}))),
        ("POST", format!("{base}/leave"), Some(json!({}))),
    ]
}

async fn call(
    server: &Server,
    who: &str,
    (method, path, body): &(&'static str, String, Option<Value>),
) -> HttpAnswer {
    let ask = Ask::new(method, path).token(&server.token(who));
    server.ask(Http::One, body.iter().fold(ask, |ask, body| ask.json(body))).await
}

#[tokio::test]
async fn a_stranger_cannot_tell_a_conversation_from_none() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let group = alice.group("secret", &["bob", "gone"]).await;
    alice.acked(RemoveMembers { conversation: group, users: vec![user("gone")], temp_id: fresh() }).await;
    let nowhere = ConversationId::from_bytes([9; 16]);
    let ids = [
        group.to_string(),
        nowhere.to_string(),
        "nonsense".into(),
        "%2e%2e".into(),
        "%ff".into(),
        "%00".into(),
    ];
    for index in 0..calls("").len() {
        let mut answers = BTreeSet::new();
        for id in &ids {
            let answer = call(&server, "eve", &calls(id)[index]).await;
            assert_eq!(problem(&answer), (404, "not_found".into()), "{:?}", calls(id)[index]);
            answers.insert(answer.bytes());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    // A message to a conversation names it in the body.
    let mut answers = BTreeSet::new();
    for id in [group, nowhere] {
        answers.insert(post(&server, "/v1/messages", "eve", json!({"to": id, "text": "x"})).await.bytes());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Who is gone reads what was before, and nothing else.
    for (index, there) in [true, true, false, false, false, false, false, false].into_iter().enumerate() {
        let answer = call(&server, "gone", &calls(&group.to_string())[index]).await;
        let expected = if there { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(answer.status, expected, "{:?}", calls("")[index]);
    }
    alice.say_in(group, "later").await;
    let shown = ok(call(&server, "gone", &calls(&group.to_string())[0])).await;
    assert_eq!((&shown["head"], &shown["role"], &shown["members"]), (&json!(2), &Value::Null, &Value::Null));
    assert_eq!(shown["last_entry"]["seq"], 2);
    // Nothing of all that has changed the group.
    let members = ok(call(&server, "bob", &calls(&group.to_string())[2])).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 2, "{members}");
}

#[tokio::test]
async fn every_call_wants_a_good_token_and_says_what_is_wrong_with_it() {
    let server = Server::start().await;
    let mut all = calls(&pair("alice", "bob").to_string());
    all.push(("GET", "/v1/conversations".into(), None));
    all.push(("GET", "/v1/presence?users=a".into(), None));
    all.push(("POST", "/v1/conversations".into(), Some(json!({"name": "x"}))));
    all.push(("POST", "/v1/messages".into(), Some(json!({"to": "bob", "text": "x"}))));
    let mut expired = token::claims("alice");
    expired["exp"] = (token::now_s() - 3600).into();
    let foreign = token::sign(&token::claims("alice"), b"another secret of thirty-two bytes or more");
    for (method, path, body) in &all {
        for (header, code, challenge) in [
            (None, "token_invalid", "Bearer"),
            (Some("Basic YTpi".to_owned()), "token_invalid", "Bearer"),
            (Some("Bearer nonsense".into()), "token_invalid", "Bearer error=\"invalid_token\""),
            (Some(format!("Bearer {foreign}")), "token_invalid", "Bearer error=\"invalid_token\""),
            (
                Some(format!("bearer {}", server.sign(&expired))),
                "token_expired",
                "Bearer error=\"invalid_token\"",
            ),
        ] {
            let mut ask = Ask::new(method, path);
            if let Some(header) = &header {
                ask = ask.header("authorization", header);
            }
            let ask = body.iter().fold(ask, |ask, body| ask.json(body));
            let answer = server.ask(Http::One, ask).await;
            assert_eq!(problem(&answer), (401, code.into()), "{method} {path} {header:?}");
            assert_eq!(answer.headers["www-authenticate"], challenge);
        }
    }
    let in_url = format!("/v1/conversations?token={}", server.token("alice"));
    let answer = server.get(Http::One, &in_url, None).await;
    assert_eq!(problem(&answer), (400, "invalid_argument".into()));
    assert!(!answer.body.contains("eyJ"), "{}", answer.body);
}

#[tokio::test]
async fn a_token_from_before_an_erasure_opens_nothing_in_the_name_of_the_erased() {
    let server = Server::start().await;
    let (bob, shop) = (server.token("bob"), back_end(&server));
    let body = json!({"to": "alice", "text": "hi", "from": "bob"});
    let send = |token: &str| server.ask(Http::One, Ask::new("POST", "/v1/messages").token(token).json(&body));
    ok(send(&bob)).await;
    ok(send(&shop)).await;
    let command = ["store", "erase", "bob", "--yes", "--data-dir", server.data_dir().to_str().unwrap()];
    let mut command = std::process::Command::new(tern_tests::binary()).args(command).spawn().unwrap();
    assert!(until("the erasure", || command.try_wait().unwrap()).await.success());
    for (method, path) in [("GET", "/v1/conversations"), ("POST", "/v1/messages")] {
        let answer = server.ask(Http::One, Ask::new(method, path).token(&bob).json(&body)).await;
        assert_eq!(problem(&answer), (401, "token_invalid".into()), "{method} {path}");
    }
    assert_eq!(problem(&send(&shop).await), (403, "forbidden".into()));
    let shown = ok(server.get(Http::One, "/v1/conversations", Some(&server.token("alice")))).await;
    let row = &shown["conversations"][0];
    assert_eq!((&row["peer"], &row["title"]), (&Value::Null, &row["conversation"]));
    let who = row["last_entry"]["sender"].as_str().unwrap().to_owned();
    let nobodys = json!({"to": "alice", "text": "x", "from": who});
    for (body, refusal) in [
        (nobodys, (422, "invalid_argument".into())),
        (json!({"to": who, "text": "x"}), (403, "unreachable".into())),
    ] {
        let answer = server.ask(Http::One, Ask::new("POST", "/v1/messages").token(&shop).json(&body)).await;
        assert_eq!(problem(&answer), refusal, "{body}");
    }
}

#[tokio::test]
async fn a_token_that_expires_midway_ends_the_paging_with_a_code_that_says_so() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    for text in ["1", "2", "3"] {
        alice.say("bob", text).await;
    }
    // Within the leeway of 30 s for a moment longer.
    let mut claims = token::claims("alice");
    claims["exp"] = (token::now_s() - 28).into();
    let token = server.sign(&claims);
    let path = format!("/v1/history/{}?limit=1", pair("alice", "bob"));
    let mut page = ok(server.get(Http::One, &path, Some(&token))).await;
    let end = loop {
        let cursor = page["older"].as_str().or(page["newer"].as_str()).expect("a neighbour").to_owned();
        let answer = server.get(Http::One, &format!("{path}&cursor={cursor}"), Some(&token)).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        page = answer.json();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(problem(&end), (401, "token_expired".into()));
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_reason() {
    let server = Server::start().await;
    let token = server.token("alice");
    let send = |body: String| {
        let (server, token) = (&server, &token);
        async move {
            let ask =
                Ask::new("POST", "/v1/messages").token(token).header("content-type", "application/json");
            server.ask(Http::One, ask.bytes(body.as_bytes())).await
        }
    };
    let table: [(&str, u16, &str, &str); 20] = [
        ("", 400, "malformed", "not JSON"),
        ("{", 400, "malformed", "not JSON"),
        ("{}{}", 422, "invalid_argument", "missing field `to`"),
        (r#"{"to":"bob","text":"x"} {}"#, 400, "malformed", "trailing"),
        ("hi", 400, "malformed", "not JSON"),
        (r#"["bob","x"]"#, 422, "invalid_argument", "must be a JSON object"),
        ("null", 422, "invalid_argument", "expected struct NewMessage"),
        (r#"{"to":"bob"}"#, 422, "text_empty", "empty"),
        (r#"{"text":"x"}"#, 422, "invalid_argument", "missing field `to`"),
        (r#"{"to":"bob","text":"x","txet":"y"}"#, 422, "invalid_argument", "unknown field `txet`"),
        (r#"{"to":"bob","to":"carol","text":"x"}"#, 422, "invalid_argument", "duplicate field `to`"),
        (r#"{"to":5,"text":"x"}"#, 422, "invalid_argument", "integer `5`"),
        (r#"{"to":"bob","text":{"a":1}}"#, 422, "invalid_argument", "expected a string"),
        (r#"{"to":"","text":"x"}"#, 422, "invalid_argument", "user id must be 1 to 128 bytes"),
        (r#"{"to":"a\u0000","text":"x"}"#, 422, "invalid_argument", "control characters"),
        (r#"{"to":"c:nonsense","text":"x"}"#, 422, "invalid_argument", "conversation id must be"),
        (r#"{"to":"bob","text":"x","temp_id":"1"}"#, 422, "invalid_argument", "temp_id must be a UUID"),
        (r#"{"to":"bob","text":"x","age_ms":"1"}"#, 422, "invalid_argument", "a number of milliseconds"),
        (r#"{"to":"bob","text":"x","age_ms":604800001}"#, 422, "too_old", "7 days"),
        (r#"{"to":"bob","text":""}"#, 422, "text_empty", "empty"),
    ];
    for (body, status, code, words) in table {
        let answer = send(body.into()).await;
        assert_eq!(problem(&answer), (status, code.into()), "{body}");
        assert!(detail(&answer).contains(words), "{body}: {}", detail(&answer));
    }
    let long = |bytes: usize| json!({"to": "bob", "text": "x".repeat(bytes)}).to_string();
    assert_eq!(problem(&send(long(16 * 1024 + 1)).await), (422, "text_too_long".into()));
    assert_eq!(problem(&send(long(128 * 1024)).await), (413, "body_too_large".into()));
    let deep = format!(r#"{{"to":"bob","text":{}{}}}"#, "[".repeat(60_000), "]".repeat(60_000));
    assert_eq!(problem(&send(deep).await).0 / 100, 4);
    // Every byte of the longest text as the longest escape.
    let escaped = format!(r#"{{"to":"bob","text":"{}"}}"#, "\\u0001".repeat(16 * 1024));
    assert_eq!(ok(send(escaped)).await["seq"], 1);
    let body = json!({"to": "bob", "text": "x"}).to_string();
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")]
    {
        let mut ask = Ask::new("POST", "/v1/messages").token(&token).bytes(body.as_bytes());
        if let Some(kind) = kind {
            ask = ask.header("content-type", kind);
        }
        assert_eq!(problem(&server.ask(Http::Two, ask).await), (415, "media_type".into()), "{kind:?}");
    }
    let ask = Ask::new("POST", "/v1/messages").token(&token).bytes(body.as_bytes());
    ok(server.ask(Http::One, ask.header("content-type", "Application/JSON; charset=utf-8"))).await;
    let names = [json!({"name": ""}), json!({"name": "x".repeat(129)}), json!({"name": "a\nb"})];
    for body in names {
        let answer = post(&server, "/v1/conversations", "alice", body.clone()).await;
        assert_eq!(problem(&answer), (422, "invalid_argument".into()), "{body}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("user-{n}")).collect();
    for count in [100, 101] {
        let body = json!({"name": "crowd", "members": many[..count]});
        let answer = post(&server, "/v1/conversations", "alice", body).await;
        assert_eq!(problem(&answer), (409, "group_full".into()), "{count}");
    }
}

#[tokio::test]
async fn bad_paths_methods_and_parameters_are_problems_too() {
    let server = Server::start().await;
    let token = server.token("alice");
    let id = pair("alice", "bob");
    for path in [
        "/v1/nothing",
        "/v1/history",
        "/v1/history/",
        "/v1/history/../..",
        "/v1/history/%2e%2e/%2e%2e",
        "/v1/history/..%2f..",
        &format!("/v1/history/{id}/"),
        &format!("/v1//history/{id}"),
        &format!("/v1/history/{id}%00"),
        &format!("/v1/history/{id}%2fmembers"),
        "/v1/history/%",
        "/v1/history/%zz",
        "/v1/history/%c0%af",
        "/V1/conversations",
        "/v1/conversations/%F0%9F%90%A6",
        &format!("/v1/history/{}", "x".repeat(8000)),
    ] {
        for how in [Http::One, Http::TwoTls] {
            let answer = server.get(how, path, Some(&token)).await;
            assert_eq!(problem(&answer), (404, "not_found".into()), "{path}");
        }
    }
    for (method, path, allowed) in [
        ("POST", "/v1/bootstrap", "GET,HEAD"),
        ("PUT", "/v1/conversations", "GET,HEAD,POST"),
        ("GET", "/v1/messages", "POST"),
        ("TRACE", "/v1/presence", "GET,HEAD"),
        ("BREW", "/v1/openapi.json", "GET,HEAD"),
    ] {
        let answer = server.ask(Http::One, Ask::new(method, path).token(&token)).await;
        assert_eq!(problem(&answer), (405, "method_not_allowed".into()), "{method} {path}");
        assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
    }
    for path in [
        "/v1/conversations?limit=0",
        "/v1/conversations?limit=201",
        "/v1/conversations?limit=1e3",
        "/v1/conversations?limit=99999999999999999999",
        "/v1/conversations?limit=1&limit=2",
        "/v1/conversations?cursor=nonsense",
        "/v1/conversations?cursor=1.c:x",
        "/v1/conversations?cursor=%00",
        "/v1/conversations?page=2",
        "/v1/presence",
        "/v1/presence?users=",
        "/v1/presence?users=a,,b",
        "/v1/presence?users=c:reserved",
        &format!("/v1/presence?users={}", vec!["u"; 201].join(",")),
    ] {
        let answer = server.get(Http::One, path, Some(&token)).await;
        assert_eq!(problem(&answer), (400, "invalid_argument".into()), "{path}");
    }
    let head = server.ask(Http::One, Ask::new("HEAD", "/v1/conversations").token(&token)).await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn presence_is_seen_by_http_as_by_those_who_watch() {
    let server = loose().set("PRESENCE__GRACE_MS", "1").start().await;
    let _alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let _eve = RawClient::open(&server, Wire::Quic, "eve").await;
    for who in ["bob", "carol"] {
        ok(post(&server, "/v1/messages", who, json!({"to": "alice", "text": "hi"}))).await;
    }
    let path = "/v1/presence?users=bob,carol,eve,alice&user=bob";
    let token = server.token("alice");
    let look = || server.get(Http::One, path, Some(&token));
    let answer = look().await;
    let states: Vec<String> = answer.json()["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["user"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, ["bob online", "carol offline", "eve unknown", "alice online", "bob online"]);
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    bob.leave().await;
    let last_seen = loop {
        let bob = look().await.json()["users"][0].clone();
        if bob["state"] == "offline" {
            break bob["last_seen_ms"].as_u64();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(last_seen.is_some_and(|time| time > 0));
}

#[tokio::test]
async fn bootstrap_leads_to_every_transport_without_a_token() {
    let server = Server::start().await;
    let port = server.ready().quic_addr.port();
    let answer =
        server.ask(Http::One, Ask::new("GET", "/v1/bootstrap").header("host", "localhost:8080")).await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=60");
    let body = answer.json();
    let endpoints: Vec<(String, String)> = body["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["transport"].as_str().unwrap().into(), one["url"].as_str().unwrap().into()))
        .collect();
    let expected = [
        ("webtransport", format!("https://localhost:{port}/v1/connect")),
        ("quic", format!("quic://localhost:{port}")),
        ("websocket", format!("wss://localhost:{port}/v1/connect")),
        ("websocket", "ws://localhost:8080/v1/connect".into()),
    ];
    assert_eq!(endpoints, expected.map(|(transport, url)| (transport.to_owned(), url)));
    assert_eq!(body["certificate_sha256"], server.ready().cert_sha256);
    assert_eq!((&body["limits"]["keepalive_s"], &body["alpn"]), (&json!(20), &json!("tern/1")));
    // By TLS, at the name and port by which it was asked.
    let tls =
        server.ask(Http::TwoTls, Ask::new("GET", "/v1/bootstrap").header("host", "chat.example:443")).await;
    assert_eq!(tls.json()["endpoints"][2]["url"], "wss://chat.example:443/v1/connect");
    assert_eq!(tls.json()["endpoints"].as_array().unwrap().len(), 3);
    let named = loose().set("LISTEN__PUBLIC", "udp.example:443").start().await;
    let body = named.get(Http::OneTls, "/v1/bootstrap", None).await.json();
    assert_eq!(body["endpoints"][1]["url"], "quic://udp.example:443");
    let exit = loose().set("LISTEN__PUBLIC", "no port").try_start().await.unwrap_err();
    assert!(exit.stderr.contains("listen.public"), "{}", exit.stderr);
}

#[tokio::test]
async fn what_cannot_change_may_be_kept_and_the_rest_is_asked_for_again() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    for text in ["1", "2", "3", "4", "5"] {
        alice.say("bob", text).await;
    }
    let token = server.token("bob");
    let base = format!("/v1/history/{}", pair("alice", "bob"));
    let get = |path: String, etag: Option<String>| {
        let (server, token) = (&server, &token);
        async move {
            let mut ask = Ask::new("GET", &path).token(token);
            if let Some(etag) = &etag {
                ask = ask.header("if-none-match", etag);
            }
            server.ask(Http::One, ask).await
        }
    };
    let sealed = "private, max-age=300";
    for (path, keep) in [
        (base.clone(), "private, no-cache"),
        (format!("{base}?before=6"), "private, no-cache"),
        (format!("{base}?after=4"), "private, no-cache"),
        (format!("{base}?before=5&limit=2"), sealed),
        (format!("{base}?after=0&limit=2"), sealed),
        (format!("{base}?around=2&limit=2"), sealed),
        ("/v1/conversations".into(), "private, no-cache"),
    ] {
        let first = get(path.clone(), None).await;
        assert_eq!(
            (first.status, first.headers["cache-control"].to_str().unwrap()),
            (StatusCode::OK, keep),
            "{path}"
        );
        assert!(first.headers.get_all("vary").iter().any(|value| value == "Authorization"), "{first:?}");
        let etag = first.headers["etag"].to_str().unwrap().to_owned();
        let again = get(path.clone(), Some(etag.clone())).await;
        assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        assert_eq!(again.headers["etag"], etag.as_str());
    }
    let etag = get(base.clone(), None).await.headers["etag"].to_str().unwrap().to_owned();
    alice.say("bob", "6").await;
    let changed = get(base.clone(), Some(etag.clone())).await;
    assert_eq!((changed.status, &changed.json()["head"]), (StatusCode::OK, &json!(6)));
    // The ETag is no key: a stranger who knows it sees nothing.
    let ask = Ask::new("GET", &base)
        .token(&server.token("eve"))
        .header("if-none-match", &etag)
        .header("accept", "*/*");
    assert_eq!(problem(&server.ask(Http::One, ask).await), (404, "not_found".into()));
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_others_get_no_leave() {
    let server = loose().set("TRANSPORT__ALLOWED_ORIGINS", r#"["https://chat.example"]"#).start().await;
    let preflight = |origin: &'static str| {
        let ask = Ask::new("OPTIONS", "/v1/conversations").header("origin", origin);
        let ask = ask.header("access-control-request-method", "POST");
        server.ask(Http::One, ask.header("access-control-request-headers", "authorization,content-type"))
    };
    for origin in ["https://chat.example", "http://localhost:5173", "http://127.0.0.1"] {
        let answer = preflight(origin).await;
        assert!(answer.status.is_success(), "{answer:?}");
        assert_eq!(answer.headers["access-control-allow-origin"], origin);
        let methods = answer.headers["access-control-allow-methods"].to_str().unwrap();
        assert!(
            ["GET", "POST", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)),
            "{methods}"
        );
        let headers = answer.headers["access-control-allow-headers"].to_str().unwrap();
        assert!(headers.contains("authorization") && headers.contains("content-type"), "{headers}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        let refused =
            server.ask(Http::One, Ask::new("GET", "/v1/conversations").header("origin", origin)).await;
        assert_eq!(problem(&refused).0, 401);
        assert_eq!(refused.headers["access-control-allow-origin"], origin, "a page can read why");
        let exposed = refused.headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
        assert!(refused.headers.get_all("vary").iter().any(|value| value == "origin"));
    }
    for origin in
        ["https://evil.example", "https://chat.example.evil.example", "null", "http://localhost.evil.example"]
    {
        assert!(!preflight(origin).await.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

#[tokio::test]
async fn rates_hold_over_sessions_and_http_and_say_when_to_come_back() {
    let server = loose()
        .set("QUOTA__USER_SENDS_PER_SECOND", "1")
        .set("QUOTA__USER_SENDS_BURST", "3")
        .set("QUOTA__USER_FETCHES_PER_SECOND", "1")
        .set("QUOTA__USER_FETCHES_BURST", "2")
        .start()
        .await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    alice.say("bob", "by the session").await;
    let temp_id = fresh();
    let body = json!({"to": "bob", "text": "by HTTP", "temp_id": temp_id});
    let refused = loop {
        let answer = post(&server, "/v1/messages", "alice", json!({"to": "bob", "text": "more"})).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    assert_eq!(problem(&refused), (429, "rate_limited".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!((1..=1000).contains(&refused.json()["retry_after_ms"].as_u64().unwrap()));
    assert_eq!(
        alice.refused(tern_tests::to("bob", "x")).await.code,
        Code::RATE_LIMITED,
        "one bucket for both"
    );
    ok(post(&server, "/v1/messages", "carol", body)).await;
    let reads = async || server.get(Http::One, "/v1/conversations", Some(&server.token("alice"))).await;
    let refused = loop {
        let answer = reads().await;
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    assert_eq!(problem(&refused), (429, "rate_limited".into()));
    assert!(server.metric("tern_refused_total{code=\"4300\"}").await.is_some_and(|count| count >= 2.0));
}

fn strict_addresses() -> Options {
    loose()
        .set("QUOTA__LOOPBACK_EXEMPT", "false")
        .set("QUOTA__ADDRESS_REQUESTS_PER_SECOND", "1")
        .set("QUOTA__ADDRESS_REQUESTS_BURST", "5")
        .set("QUOTA__ADDRESS_CONNECTS_PER_SECOND", "100000")
        .set("QUOTA__ADDRESS_CONNECTS_BURST", "100000")
}

/// Asks with bad tokens until the address is told to wait.
async fn exhaust(server: &Server, forwarded_for: &str) -> HttpAnswer {
    for _ in 0..1000 {
        let ask = Ask::new("GET", "/v1/conversations").token("bad").header("x-forwarded-for", forwarded_for);
        let answer = server.ask(Http::One, ask).await;
        if answer.status != StatusCode::UNAUTHORIZED {
            return answer;
        }
    }
    panic!("1000 bad tokens were looked at");
}

#[tokio::test]
async fn bad_tokens_cost_their_address_and_good_ones_do_not() {
    let server = strict_addresses().start().await;
    for _ in 0..20 {
        ok(server.get(Http::One, "/v1/conversations", Some(&server.token("alice")))).await;
    }
    let refused = exhaust(&server, "192.0.2.1").await;
    assert_eq!(problem(&refused), (429, "rate_limited".into()));
    assert!(refused.headers.contains_key("retry-after"));
    // Nobody is trusted: whatever a client says of where it comes from, it is the same address.
    let ask = Ask::new("GET", "/v1/bootstrap").header("x-forwarded-for", "192.0.2.77");
    let mut refused = false;
    for _ in 0..10 {
        refused |= problem_or_none(&server.ask(Http::One, ask.clone()).await) == Some(429);
    }
    assert!(refused, "the address has made too many requests already");
}

fn problem_or_none(answer: &HttpAnswer) -> Option<u16> {
    (!answer.status.is_success()).then(|| problem(answer).0)
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_a_rate_of_its_own() {
    let server = strict_addresses().set("TRANSPORT__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#).start().await;
    assert_eq!(exhaust(&server, "192.0.2.1").await.status, StatusCode::TOO_MANY_REQUESTS);
    for other in ["192.0.2.2", "192.0.2.1, 192.0.2.3", "[2001:db8::1]:5"] {
        let ask = Ask::new("GET", "/v1/bootstrap").header("x-forwarded-for", other);
        assert_eq!(server.ask(Http::One, ask).await.status, StatusCode::OK, "{other}");
    }
    let ask = Ask::new("GET", "/v1/bootstrap").header("x-forwarded-proto", "https");
    let ask = ask.header("host", "chat.example").header("x-forwarded-for", "192.0.2.4");
    let body = ok(server.ask(Http::One, ask)).await;
    assert_eq!(body["endpoints"][2]["url"], "wss://chat.example/v1/connect");
    let exit = loose().set("TRANSPORT__TRUSTED_PROXIES", r#"["proxy"]"#).try_start().await.unwrap_err();
    assert!(exit.stderr.contains("transport.trusted_proxies"), "{}", exit.stderr);
}

#[tokio::test]
async fn a_front_end_developer_gets_a_token_for_any_user() {
    let server = Server::start().await;
    let mint = |host: &'static str, origin: Option<&'static str>, body: Value| {
        let ask = Ask::new("POST", "/v1/dev/tokens").header("host", host).json(&body);
        server.ask(Http::One, origin.into_iter().fold(ask, |ask, origin| ask.header("origin", origin)))
    };
    let body = json!({"user": "carol", "name": "Carol"});
    for (host, origin) in [
        ("localhost:8080", Some("http://localhost:5173")),
        ("127.0.0.1", None),
        ("[::1]:8080", Some("http://127.0.0.1:8080")),
    ] {
        let minted = ok(mint(host, origin, body.clone())).await;
        assert_eq!(minted["user"], "carol");
        assert!(minted["expires_ms"].as_i64().unwrap() > token::now_s() * 1000);
        let mut carol = RawClient::connect(&server, Wire::Quic).await;
        let welcome = carol.hello(minted["token"].as_str().unwrap(), "laptop").await;
        assert_eq!((welcome.user.as_str(), welcome.name.as_deref()), ("carol", Some("Carol")));
    }
    let scoped = ok(mint("localhost", None, json!({"user": "shop", "scope": "messages:write"}))).await;
    let ask = Ask::new("POST", "/v1/messages").token(scoped["token"].as_str().unwrap());
    ok(server.ask(Http::One, ask.json(&json!({"from": "alice", "to": "bob", "text": "x"})))).await;
    // A name of somebody else that leads here, and a page of somebody else.
    for (host, origin) in [
        ("evil.example", None),
        ("localhost.evil.example:8080", None),
        ("localhost", Some("https://evil.example")),
    ] {
        let refused = mint(host, origin, body.clone()).await;
        assert_eq!(problem(&refused), (403, "forbidden".into()), "{host} {origin:?}");
        assert!(!refused.body.contains("eyJ"));
    }
    for bad in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "x", "name": ""}),
        json!({"user": "x", "admin": true}),
    ] {
        assert_eq!(
            problem(&mint("localhost", None, bad.clone()).await),
            (422, "invalid_argument".into()),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_request_under_way_when_the_node_drains_is_still_answered() {
    let mut server = loose().set("DRAIN__DEADLINE_MS", "20000").start().await;
    let body = json!({"to": "bob", "text": "the last one"}).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let address = tern_tests::http::address(&server.ready().http_url);
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
        server.token("alice"),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a connection");
    // The request is being read once a later one on another connection is answered.
    ok(server.get(Http::One, "/v1/bootstrap", None)).await;
    server.signal("TERM");
    while server.ops("/readyz").await.status == StatusCode::OK {}
    stream.write_all(rest.as_bytes()).await.expect("a connection");
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.exit().await.code(), Some(0));
    server.restart().await;
    let page = server
        .get(Http::One, &format!("/v1/history/{}", pair("alice", "bob")), Some(&server.token("bob")))
        .await;
    assert_eq!(page.json()["entries"][0]["body"]["text"], "the last one");
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let server = Server::start().await;
    let answer = server.get(Http::One, "/v1/openapi.json", None).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            assert!(operations.insert((method.to_uppercase(), path.clone())));
        }
    }
    assert!(operations.len() >= 16, "{operations:?}");
    // Whatever else a path takes, it would be an operation that is not described.
    let paths: BTreeSet<&String> = operations.iter().map(|(_, path)| path).collect();
    for path in paths {
        let real = path.replace("{id}", "c:x").replace("{conv_id}", "c:x").replace("{user}", "bob");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE"] {
            let answer = server.ask(Http::One, Ask::new(method, &real)).await;
            let described = operations.contains(&(method.to_owned(), path.clone()));
            assert_eq!(answer.status != StatusCode::METHOD_NOT_ALLOWED, described, "{method} {path}");
            if answer.status == StatusCode::NOT_FOUND {
                assert!(!answer.body.contains("nothing at this path"), "{method} {path}");
            }
        }
    }
}
