//! Who may come in: tokens in the first frame only, renewed on the live connection, never in a URL or log.

use http::StatusCode;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tern_protocol::{Code, Frame, ListMembers, Reauth, TOKEN_BYTES_MAX, Token};
use tern_tests::http::Http;
use tern_tests::{
    RawClient, Server, Subprotocol, WebSocketLink, Wire, for_each_wire, loose, on_a_wire, pair, token, user,
};

/// A token counts this long after its expiry.
const LEEWAY_S: i64 = 30;

/// Claims with some of them changed; `null` takes one away.
fn claims(changes: &Value) -> Value {
    let mut claims = token::claims("alice");
    for (key, value) in changes.as_object().expect("claims") {
        claims[key] = value.clone();
        if value.is_null() {
            claims.as_object_mut().expect("claims").remove(key);
        }
    }
    claims
}

/// Tokens that must not be accepted, with what is wrong and the code.
fn bad_tokens(server: &Server) -> Vec<(&'static str, String, Code)> {
    let now = token::now_s();
    let good = token::claims("alice");
    let signed = |changes: Value| server.sign(&claims(&changes));
    let whole = server.token("alice");
    let parts: Vec<&str> = whole.split('.').collect();
    let none = json!({ "alg": "none", "typ": "JWT" });
    let hs = json!({ "alg": "HS256", "typ": "JWT" });
    let mut list = vec![
        ("empty", String::new()),
        ("no token at all", "not-a-token".to_owned()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none without signature", token::raw(&none, &good, b"")),
        ("alg none with a signature", token::raw(&none, &good, b"signature")),
        ("a signature of zeros", token::raw(&hs, &good, &[0; 32])),
        ("another key", token::sign(&good, &[7; 32])),
        ("another algorithm with the right key", token::sign_as(Algorithm::HS512, &good, &server.secret())),
        ("not yet valid", signed(json!({ "nbf": now + 3600 }))),
        ("no expiry", signed(json!({ "exp": null }))),
        ("expiry as text", signed(json!({ "exp": (now + 3600).to_string() }))),
        ("not-before as text", signed(json!({ "nbf": "0" }))),
        ("no subject", signed(json!({ "sub": null }))),
        ("empty subject", signed(json!({ "sub": "" }))),
        ("long subject", signed(json!({ "sub": "x".repeat(129) }))),
        ("subject with a control character", signed(json!({ "sub": "a\u{0}b" }))),
        ("subject like a conversation", signed(json!({ "sub": "c:alice" }))),
        ("an audience that is not ours", signed(json!({ "aud": "another-service" }))),
        ("longer than a token may be", signed(json!({ "padding": "x".repeat(TOKEN_BYTES_MAX) }))),
    ]
    .into_iter()
    .map(|(what, token)| (what, token, Code::TOKEN_INVALID))
    .collect::<Vec<_>>();
    let expired = signed(json!({ "exp": now - LEEWAY_S - 2 }));
    list.push(("expired", expired, Code::TOKEN_EXPIRED));
    list
}

for_each_wire! {
    async fn a_bad_token_is_refused_with_its_code_and_shows_in_no_log(wire: Wire) {
        let server = loose().env("RUST_LOG", "tern=trace").start().await;
        let tokens = bad_tokens(&server);
        for (what, token, code) in &tokens {
            let mut client = RawClient::connect(&server, wire).await;
            let device = Some(tern_protocol::DeviceId::new("device").unwrap());
            client.send(tern_protocol::Hello { token: Token(token.clone()), device, agent: None, features: 0 }).await;
            let end = client.end().await;
            let close = end.close.unwrap_or_else(|| panic!("{what}: no Close"));
            assert_eq!(close.code, *code, "{what}: {}", close.reason);
            assert_eq!(end.transport.code, Some(wire.close_code(*code)), "{what}");
            assert_eq!(end.transport.reason, close.reason, "{what}");
            assert!(end.frames.is_empty(), "{what}: {:?}", end.frames);
        }
        RawClient::open(&server, wire, "alice").await.say("bob", "good ones still work").await;
        let log = server.log();
        assert!(log.contains("a client could not connect"), "the log was on: {log}");
        for (what, token, _) in &tokens {
            let secret = token.split('.').next_back().unwrap_or_default();
            assert!(secret.len() < 8 || !log.contains(secret), "{what} is in the log");
        }
    }
}

on_a_wire! {
    async fn the_name_of_the_token_is_what_others_see(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::connect(&server, wire).await;
        let token = server.sign(&claims(&json!({ "name": "Alice Ångström" })));
        assert_eq!(alice.hello(&token, "device").await.name.as_deref(), Some("Alice Ångström"));
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(bob.welcome().name, None);
        alice.say("bob", "hi").await;
        let entry = bob.entry(pair("alice", "bob")).await;
        assert_eq!(entry.sender_name.as_deref(), Some("Alice Ångström"));
        let synced = bob.sync(&[]).await;
        assert_eq!(synced.summaries[0].name.as_deref(), Some("Alice Ångström"));
        let members = match bob.ask(ListMembers { conversation: pair("alice", "bob") }).await {
            Frame::MemberList(list) => list.members,
            other => panic!("{other:?}"),
        };
        let names: Vec<_> = members.iter().map(|member| (member.user.clone(), member.name.as_deref())).collect();
        assert_eq!(names, [(user("alice"), Some("Alice Ångström")), (user("bob"), None)]);
    }
}

for_each_wire! {
    async fn a_session_is_told_before_its_token_expires_and_closed_after(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::connect(&server, wire).await;
        // Within the leeway: it is accepted, and its end is near.
        let exp = token::now_s() - LEEWAY_S + 8;
        let token = server.sign(&claims(&json!({ "exp": exp })));
        alice.hello(&token, "device").await;
        let end = alice.end().await;
        let [Frame::TokenExpiring(notice)] = &end.frames[..] else { panic!("{:?}", end.frames) };
        assert_eq!(notice.token_expires_ms, exp as u64 * 1000);
        let close = end.close.expect("a Close");
        assert_eq!(close.code, Code::TOKEN_EXPIRED);
        assert_eq!(end.transport.code, Some(wire.close_code(Code::TOKEN_EXPIRED)));
        assert!(token::now_s() >= exp + LEEWAY_S, "not before the token is over");
    }
}

on_a_wire! {
    async fn a_renewed_token_keeps_the_session(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::connect(&server, wire).await;
        let exp = token::now_s() - LEEWAY_S + 8;
        alice.hello(&server.sign(&claims(&json!({ "exp": exp }))), "device").await;
        let expiring = alice.find("a notice", |envelope| match &envelope.frame {
            Frame::TokenExpiring(_) => Some(()),
            _ => None,
        });
        expiring.await;
        match alice.ask(Reauth { token: Token(server.token("alice")) }).await {
            Frame::Reauthed(done) => assert!(done.token_expires_ms > (token::now_s() as u64 + 3000) * 1000),
            other => panic!("{other:?}"),
        }
        while token::now_s() <= exp + LEEWAY_S {
            alice.settle().await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        alice.say("bob", "still here").await;
    }

    async fn a_bad_renewal_is_refused_and_the_session_goes_on_as_it_was(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for (what, token, code) in bad_tokens(&server) {
            assert_eq!(alice.refused(Reauth { token: Token(token) }).await.code, code, "{what}");
        }
        let error = alice.refused(Reauth { token: Token(server.token("bob")) }).await;
        assert_eq!(error.code, Code::TOKEN_SUBJECT);
        let ack = alice.say("carol", "still alice").await;
        assert_eq!(ack.conversation, pair("alice", "carol"));
    }
}

#[tokio::test]
async fn a_token_in_a_url_is_refused_and_never_logged() {
    let server = loose().env("RUST_LOG", "trace").start().await;
    let token = server.token("alice");
    let ready = server.ready();
    for url in [&ready.websocket_url, &ready.wss_url] {
        for name in ["token", "access_token", "jwt"] {
            let url = format!("{url}?{name}={token}");
            let answer = WebSocketLink::try_connect(&server, &url, Subprotocol::Json, &[]).await;
            let Err(answer) = answer else { panic!("{name} was accepted") };
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            assert!(answer.body().contains("hello"), "it says where the token goes: {}", answer.body());
            assert!(!answer.body().contains(&token));
        }
    }
    let path = format!("/v1/history/{}?access_token={token}", pair("alice", "bob"));
    for how in Http::ALL {
        let answer = server.get(how, &path, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{how:?}");
        assert!(!answer.body.contains(&token));
    }
    let log = server.log();
    assert!(
        !log.contains(&token) && !log.contains(token.split('.').next_back().unwrap()),
        "the token is in the log"
    );
}

#[tokio::test]
async fn a_foreign_page_is_refused_with_the_key_that_would_let_it_in() {
    let server = loose().set("TRANSPORT__ALLOWED_ORIGINS", "[\"https://chat.example\"]").start().await;
    let ready = server.ready();
    let connect = async |origin: &str| {
        let headers = [("origin", origin)];
        WebSocketLink::try_connect(&server, &ready.websocket_url, Subprotocol::Json, &headers).await
    };
    let foreign = [
        "https://evil.example",
        "http://chat.example",
        "https://chat.example.evil",
        "https://chat.example:444",
        "null",
        "http://localhost.evil",
        "http://127.0.0.1.evil",
    ];
    for origin in foreign {
        let Err(answer) = connect(origin).await else { panic!("{origin} was let in") };
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{origin}");
        assert!(answer.body().contains("transport.allowed_origins"), "{}", answer.body());
    }
    for origin in ["https://chat.example", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:1"]
    {
        assert!(connect(origin).await.is_ok(), "{origin}");
    }
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused_with_those_that_are_spoken() {
    let server = Server::start().await;
    let ready = server.ready();
    let headers = [("sec-websocket-protocol", "mqtt, chat.v9")];
    let answer = WebSocketLink::try_connect(&server, &ready.websocket_url, Subprotocol::None, &headers).await;
    let Err(answer) = answer else { panic!("it was accepted") };
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.body().contains("tern.v1") && answer.body().contains("tern.v1.json"), "{}", answer.body());
    // Without any, JSON is spoken.
    let link = WebSocketLink::try_connect(&server, &ready.websocket_url, Subprotocol::None, &[]).await;
    let mut client = RawClient::over(link.unwrap_or_else(|_| panic!("refused")));
    client.hello(&server.token("alice"), "device").await;
    client.say("bob", "hi").await;
}
