//! Sessions and tokens are in the hands of who administers: seen, closed and revoked at once, on every wire and
//! by HTTP, from now on and after a restart, and by nobody else.

use std::process::{Command, Output};
use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tern_client::{Client, TokenError, TokenReason, TokenSource};
use tern_protocol::{Close, Code, Frame, Reauth, Token};
use tern_tests::http::{Ask, Http, HttpAnswer};
use tern_tests::{
    RawClient, Server, Wire, binary, fresh, loose, on_a_wire, pair, sdk_config, text, token, user,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long ago the tokens of a test were issued that are revoked, in seconds, and when they are.
const ISSUED_AGO_S: i64 = 100;
const REVOKED_AGO_S: i64 = 50;

/// A token of a user, issued so many seconds ago.
fn token_of_age(server: &Server, name: &str, age_s: i64) -> String {
    let mut claims = token::claims(name);
    claims["iat"] = json!(token::now_s() - age_s);
    server.sign(&claims)
}

fn admin(server: &Server) -> String {
    let mut claims = token::claims("root");
    claims["scope"] = json!("openid admin");
    server.sign(&claims)
}

async fn ask(server: &Server, method: &str, path: &str, body: Option<Value>) -> HttpAnswer {
    let ask = Ask::new(method, path).token(&admin(server));
    server.ask(Http::One, body.iter().fold(ask, |ask, body| ask.json(body))).await
}

async fn sessions(server: &Server, name: &str) -> Vec<Value> {
    let answer = ask(server, "GET", &format!("/v1/admin/users/{name}/sessions"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()["sessions"].as_array().expect("a list").clone()
}

/// Revokes what was issued until [`REVOKED_AGO_S`].
async fn revoke(server: &Server, name: &str) -> Value {
    let before_ms = (token::now_s() - REVOKED_AGO_S) * 1000;
    let path = format!("/v1/admin/users/{name}/revoke");
    let answer = ask(server, "POST", &path, Some(json!({"before_ms": before_ms}))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.json()["refused_before_ms"], before_ms);
    answer.json()
}

async fn enter(server: &Server, wire: Wire, token: &str, device: &str) -> RawClient {
    let mut client = RawClient::connect(server, wire).await;
    client.hello(token, device).await;
    client
}

/// The Close that a Hello with this token is answered with.
async fn refused(server: &Server, wire: Wire, token: &str) -> Close {
    let mut client = RawClient::connect(server, wire).await;
    client
        .send(tern_protocol::Hello { token: Token(token.into()), device: None, agent: None, features: 0 })
        .await;
    client.end().await.close.expect("a Close")
}

fn problem(answer: &HttpAnswer) -> (StatusCode, Value) {
    (answer.status, answer.json()["code"].clone())
}

fn tern(words: &[&str]) -> Output {
    Command::new(binary()).args(words).output().expect("tern runs")
}

#[tokio::test]
async fn a_revoked_token_ends_its_sessions_on_every_wire_and_opens_none_also_after_a_restart() {
    let mut server = Server::start().await;
    let (old, new) = (token_of_age(&server, "alice", ISSUED_AGO_S), server.token("alice"));
    let mut open = Vec::new();
    for wire in Wire::ALL {
        open.push((wire, enter(&server, wire, &old, wire.name()).await));
    }
    let mut kept = enter(&server, Wire::Quic, &new, "kept").await;
    let mut renewed = enter(&server, Wire::WebSocketJson, &old, "renewed").await;
    match renewed.ask(Reauth { token: Token(new.clone()) }).await {
        Frame::Reauthed(_) => {}
        other => panic!("{other:?}"),
    }
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    assert_eq!(revoke(&server, "alice").await["closed"], 4);
    for (wire, client) in &mut open {
        let end = client.end().await;
        let close = end.close.expect("a Close");
        assert_eq!((close.code, close.retry_after_ms), (Code::TOKEN_REVOKED, None), "{wire:?}");
        assert_eq!(end.transport.code, Some(wire.close_code(Code::TOKEN_REVOKED)), "{wire:?}");
    }
    kept.say("bob", "still here").await;
    renewed.say("bob", "here too").await;
    assert_eq!(text(&bob.entry(pair("alice", "bob")).await), "still here");
    for after_restart in [false, true] {
        for wire in Wire::ALL {
            assert_eq!(refused(&server, wire, &old).await.code, Code::TOKEN_REVOKED, "{after_restart}");
        }
        let list = server.get(Http::One, "/v1/conversations", Some(&old)).await;
        assert_eq!(problem(&list), (StatusCode::UNAUTHORIZED, json!("token_revoked")));
        let mut silent = token::claims("alice");
        silent.as_object_mut().expect("claims").remove("iat");
        let silent = server.sign(&silent);
        assert_eq!(refused(&server, Wire::WebSocketJson, &silent).await.code, Code::TOKEN_REVOKED, "no iat");
        let mut again = enter(&server, Wire::Quic, &new, "again").await;
        match again.ask(Reauth { token: Token(old.clone()) }).await {
            Frame::Error(error) => assert_eq!(error.code, Code::TOKEN_REVOKED),
            other => panic!("{other:?}"),
        }
        again.say("bob", "its old token still counts").await;
        if !after_restart {
            server.restart().await;
        }
    }
}

on_a_wire! {
    async fn who_is_connected_is_listed_and_closed_one_by_one_or_all_at_once(wire: Wire) {
        let server = Server::start().await;
        let mut phone = enter(&server, wire, &server.token("alice"), "phone").await;
        let mut tablet = enter(&server, wire, &server.token("alice"), "tablet").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let listed = sessions(&server, "alice").await;
        let devices: Vec<_> = listed.iter().map(|session| session["device"].as_str().unwrap()).collect();
        assert_eq!(devices, ["phone", "tablet"]);
        for session in &listed {
            assert!(session["transport"].as_str().unwrap().starts_with(wire.label()), "{session}");
            assert_eq!(session["address"], "127.0.0.1");
            let number = |key: &str| session[key].as_i64().expect(key);
            let now_ms = (token::now_s() + 1) * 1000;
            assert!(number("since_ms") <= number("heard_ms") && number("heard_ms") <= now_ms, "{session}");
            assert!((now_ms - 60_000..=now_ms).contains(&number("token_issued_ms")), "{session}");
        }
        let path = format!("/v1/admin/users/alice/sessions/{}", listed[0]["id"].as_str().unwrap());
        let closed = ask(&server, "DELETE", &path, None).await;
        assert_eq!((closed.status, &closed.json()["closed"]), (StatusCode::OK, &json!(1)));
        assert_eq!(phone.end().await.close.map(|close| close.code), Some(Code::SESSION_CLOSED));
        tablet.say("bob", "I stay").await;
        while sessions(&server, "alice").await.len() > 1 {
            tokio::task::yield_now().await;
        }
        let gone = ask(&server, "DELETE", &path, None).await;
        assert_eq!(problem(&gone), (StatusCode::NOT_FOUND, json!("not_found")), "it has ended");
        let _back = enter(&server, wire, &server.token("alice"), "phone").await;
        let closed = ask(&server, "DELETE", "/v1/admin/users/alice/sessions", None).await;
        assert_eq!(closed.json()["closed"], 2);
        assert_eq!(tablet.end().await.close.map(|close| close.code), Some(Code::SESSION_CLOSED));
        bob.say("alice", "nobody closed me").await;
        assert_eq!(server.metric("tern_sessions_ended_total{by=\"close\"}").await, Some(3.0));
    }
}

#[tokio::test]
async fn only_who_may_administer_does_and_what_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let _alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    let mut back_end = token::claims("shop");
    back_end["scope"] = json!("messages:write administrator");
    let revoke = "/v1/admin/users/alice/revoke";
    for (token, status) in [
        (server.token("alice"), StatusCode::FORBIDDEN),
        (server.sign(&back_end), StatusCode::FORBIDDEN),
        ("nonsense".into(), StatusCode::UNAUTHORIZED),
    ] {
        for (method, path) in [
            ("GET", "/v1/admin/users/alice/sessions"),
            ("DELETE", "/v1/admin/users/alice/sessions"),
            ("DELETE", "/v1/admin/users/alice/sessions/1"),
            ("POST", revoke),
        ] {
            let ask = Ask::new(method, path).token(&token).json(&json!({}));
            let answer = server.ask(Http::One, ask).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        }
    }
    let future = (token::now_s() + 3600) * 1000;
    for (method, path, body, expected) in [
        ("POST", revoke, Some(json!({"before_ms": future})), (422, "invalid_argument")),
        ("POST", revoke, Some(json!({"before_ms": "now"})), (422, "invalid_argument")),
        ("POST", revoke, Some(json!({"before": 0})), (422, "invalid_argument")),
        ("POST", "/v1/admin/users/nobody/revoke", Some(json!({})), (404, "not_found")),
        ("GET", "/v1/admin/users/nobody/sessions", None, (404, "not_found")),
        ("DELETE", "/v1/admin/users/nobody/sessions", None, (404, "not_found")),
        ("DELETE", "/v1/admin/users/alice/sessions/tern-1-1", None, (404, "not_found")),
        ("GET", "/v1/admin/users/c:x/sessions", None, (422, "invalid_argument")),
    ] {
        let answer = ask(&server, method, path, body).await;
        let (status, code) = problem(&answer);
        assert_eq!((status.as_u16(), code.as_str().unwrap()), expected, "{method} {path}: {}", answer.body);
    }
    assert_eq!(sessions(&server, "alice").await.len(), 1, "nobody was closed");
    // Somebody who was never here may have a token that was stolen all the same.
    let body = json!({"even_unknown": true, "before_ms": (token::now_s() - REVOKED_AGO_S) * 1000});
    let done = ask(&server, "POST", "/v1/admin/users/nobody/revoke", Some(body)).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.body);
    let old = token_of_age(&server, "nobody", ISSUED_AGO_S);
    assert_eq!(refused(&server, Wire::Quic, &old).await.code, Code::TOKEN_REVOKED);
}

#[tokio::test]
async fn what_a_revoked_token_asked_for_and_is_still_on_its_way_is_not_written() {
    let server = Server::start().await;
    let old = token_of_age(&server, "alice", ISSUED_AGO_S);
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    enter(&server, Wire::Quic, &old, "phone").await.say("bob", "before").await;
    let body = json!({"to": "bob", "text": "too late", "temp_id": fresh().to_string()}).to_string();
    let port = server.ready().http_url.rsplit(':').next().unwrap().to_owned();
    let mut connection = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {old}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // It goes on once the token was looked at.
    let mut answer = vec![0; 25];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    revoke(&server, "alice").await;
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("token_revoked"), "{answer}");
    enter(&server, Wire::Quic, &server.token("alice"), "phone").await.say("bob", "after").await;
    for expected in ["before", "after"] {
        assert_eq!(text(&bob.entry(pair("alice", "bob")).await), expected);
    }
}

#[tokio::test]
async fn a_back_end_speaks_by_its_own_token_whatever_became_of_others() {
    let server = Server::start().await;
    let mut claims = token::claims("shop");
    (claims["scope"], claims["iat"]) = (json!("messages:write"), json!(token::now_s() - ISSUED_AGO_S));
    let shop = server.sign(&claims);
    let _alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let send = async || {
        let body = json!({"from": "alice", "to": "bob", "text": "hi"});
        server.ask(Http::One, Ask::new("POST", "/v1/messages").token(&shop).json(&body)).await
    };
    revoke(&server, "alice").await;
    let answer = send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let path = "/v1/admin/users/shop/revoke";
    let body = json!({"even_unknown": true, "before_ms": (token::now_s() - REVOKED_AGO_S) * 1000});
    assert_eq!(ask(&server, "POST", path, Some(body)).await.status, StatusCode::OK);
    assert_eq!(problem(&send().await), (StatusCode::UNAUTHORIZED, json!("token_revoked")));
}

/// Gives tokens, and notes what for.
struct Source {
    tokens: Mutex<Vec<String>>,
    reasons: Mutex<Vec<TokenReason>>,
}

#[async_trait::async_trait]
impl TokenSource for Source {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        self.reasons.lock().push(reason);
        let mut tokens = self.tokens.lock();
        if tokens.len() > 1 { Ok(tokens.remove(0)) } else { Ok(tokens[0].clone()) }
    }
}

on_a_wire! {
    async fn our_client_asks_for_another_token_and_loses_nothing(wire: Wire) {
        let server = Server::start().await;
        let new = server.token("alice");
        // The second is no better than the first: it is asked for another, not tried again.
        let tokens = vec![
            token_of_age(&server, "alice", ISSUED_AGO_S),
            token_of_age(&server, "alice", ISSUED_AGO_S - 1),
            new,
        ];
        let source = Arc::new(Source { tokens: Mutex::new(tokens), reasons: Mutex::default() });
        let config = sdk_config(&server, wire, source.clone());
        let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
        let (client, _events) = Client::connect(config).await.unwrap();
        client.send(user("bob"), "one").await.unwrap();
        assert_eq!(revoke(&server, "alice").await["closed"], 1);
        client.send(user("bob"), "two").await.unwrap();
        let rejected = TokenReason::Rejected(Code::TOKEN_REVOKED);
        assert_eq!(*source.reasons.lock(), [TokenReason::Connect, rejected, rejected]);
        for expected in ["one", "two"] {
            assert_eq!(text(&bob.entry(pair("alice", "bob")).await), expected);
        }
        client.close().await;
    }
}

#[tokio::test]
async fn the_command_line_does_the_same_to_a_running_node_and_to_a_stopped_one() {
    let mut server = loose().env("RUST_LOG", "info").start().await;
    let old = token_of_age(&server, "alice", ISSUED_AGO_S);
    let mut phone = enter(&server, Wire::Quic, &old, "phone").await;
    let mut tablet = enter(&server, Wire::Quic, &server.token("alice"), "tablet").await;
    let data = server.data_dir().to_str().unwrap().to_owned();
    let run = async |words: &[&str]| {
        let words: Vec<String> =
            words.iter().chain(&["--data-dir", &data]).map(|word| (*word).into()).collect();
        let run =
            tokio::task::spawn_blocking(move || tern(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        let output = run.await.unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), said(&output.stdout), said(&output.stderr))
    };
    let (code, said, _) = run(&["sessions", "list", "alice"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("device phone") && said.contains("quic from 127.0.0.1"), "{said}");
    assert!(said.ends_with("2 sessions of alice\n"), "{said}");
    let (_, json, _) = run(&["sessions", "list", "alice", "--json"]).await;
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["sessions"][1]["device"], "tablet");
    let (code, said, _) =
        run(&["sessions", "close", "alice", listed["sessions"][1]["id"].as_str().unwrap()]).await;
    assert_eq!((code, said.as_str()), (Some(0), "1 sessions of alice were told to end\n"));
    assert_eq!(tablet.end().await.close.map(|close| close.code), Some(Code::SESSION_CLOSED));
    let (code, said, _) = run(&["token", "revoke", "alice"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("are refused; 1 sessions were closed"), "{said}");
    let close = phone.end().await.close.expect("a Close");
    assert_eq!(close.code, Code::TOKEN_REVOKED);
    assert!(close.retry_after_ms.is_none_or(|wait| wait <= 1000), "{close:?}");
    for (words, told) in [
        (&["token", "revoke", "nobody"][..], "nobody with the id nobody"),
        (&["token", "revoke", "alice", "--before", "2999-01-01T00:00:00Z"], "in the future"),
        (&["sessions", "close", "alice", "tern-1-1"], "no session tern-1-1"),
        (&["sessions", "list", "nobody"], "nobody with the id nobody"),
    ] {
        let (code, _, error) = run(words).await;
        assert_eq!(code, Some(1), "{words:?}");
        assert!(error.contains(told), "{words:?}: {error}");
    }
    let log = server.log();
    let audited = |act: &str| log.lines().any(|line| line.contains("tern::audit") && line.contains(act));
    assert!(audited("revoke tokens") && audited("close sessions") && audited("list sessions"), "{log}");
    assert!(!log.contains(old.rsplit('.').next().unwrap()), "no tokens");
    // Without the node.
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    bob.say("alice", "known now").await;
    server.signal("TERM");
    server.exit().await;
    let before = "2001-01-01T00:00:00Z";
    let (code, said, error) = run(&["token", "revoke", "bob", "--before", before]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains(before), "{said}");
    server.restart().await;
    assert_eq!(refused(&server, Wire::Quic, &old).await.code, Code::TOKEN_REVOKED);
    RawClient::open(&server, Wire::Quic, "bob").await.say("alice", "my token is newer").await;
}
