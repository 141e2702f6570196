//! Keys of tokens from an issuer's URL: rotation while clients send, an issuer that is down, floods.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tern_protocol::{Code, Frame, Reauth, Token};
use tern_tests::{Deployment, RawClient, Server, TokenKey, Wire, bounded, loose, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A login service that publishes these keys, or fails.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: Option<&[&TokenKey]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, keys: Arc::default(), asked: Arc::default() };
        issuer.publish(keys);
        let (keys, asked) = (issuer.keys.clone(), issuer.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = match &*keys.lock() {
                    None => "HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    Some(keys) => {
                        let body = json!({ "keys": keys }).to_string();
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    }
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn publish(&self, keys: Option<&[&TokenKey]>) {
        *self.keys.lock() = keys.map(|keys| keys.iter().map(|key| key.jwk()).collect());
    }

    async fn node(&self, deployment: &Deployment) -> Server {
        let url = &self.url;
        deployment.configure(&format!(
            "[[auth.jwks]]\nissuer = {url:?}\nurl = \"{url}/keys\"\naudience = \"chat\"\nalgorithms = [\"ES256\"]\n"
        ));
        loose().serve(&deployment.config()).start().await
    }

    fn token(&self, key: &TokenKey, user: &str) -> String {
        let mut claims = token::claims(user);
        claims["iss"] = self.url.clone().into();
        claims["aud"] = "chat".into();
        key.sign(&claims)
    }
}

/// Says hello until the answer is not "come back later".
async fn greet(server: &Server, wire: Wire, token: &str) -> (RawClient, Frame) {
    loop {
        let mut client = RawClient::connect(server, wire).await;
        match client.greet(token, "device").await {
            Frame::Close(close) if close.code == Code::UNAVAILABLE => {
                assert!(close.retry_after_ms.is_some_and(|after| after <= 30_000), "{close:?}");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            answer => return (client, answer),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_found_by_its_first_token_and_old_sessions_go_on() {
    bounded(async {
        let (deployment, old, new) = (Deployment::new(), TokenKey::new("old"), TokenKey::new("new"));
        let issuer = Issuer::start(Some(&[&old])).await;
        let server = issuer.node(&deployment).await;
        let mut clients = Vec::new();
        for wire in Wire::ALL {
            let (client, answer) = greet(&server, wire, &issuer.token(&old, "alice")).await;
            assert!(matches!(answer, Frame::Welcome(_)), "{answer:?}");
            clients.push(client);
        }
        issuer.publish(Some(&[&new]));
        // Told by SIGHUP, so that the test need not wait out the pause between two fetches.
        server.signal("HUP");
        server.metric_becomes("tern_jwks_fetches_total{outcome=\"ok\"}", |count| count >= 2.0).await;
        for client in &mut clients {
            client.say("bob", "sent by a session of the old key").await;
            let renewed = client.ask(Reauth { token: Token(issuer.token(&new, "alice")) }).await;
            assert!(matches!(renewed, Frame::Reauthed(_)), "{renewed:?}");
            client.say("bob", "and by one of the new key").await;
        }
        let (_, answer) = greet(&server, Wire::Quic, &issuer.token(&new, "carol")).await;
        assert!(matches!(answer, Frame::Welcome(_)), "{answer:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_issuer_says_so_and_heals() {
    bounded(async {
        let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
        let issuer = Issuer::start(None).await;
        let server = issuer.node(&deployment).await;
        server.metric_becomes("tern_jwks_fetches_total{outcome=\"failed\"}", |count| count >= 1.0).await;
        let ready = server.ops("/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("jwks") && ready.body.contains("503"), "{}", ready.body);
        let mut early = RawClient::connect(&server, Wire::Quic).await;
        let answer = early.greet(&issuer.token(&key, "alice"), "device").await;
        let Frame::Close(close) = answer else { panic!("{answer:?}") };
        assert_eq!(close.code, Code::UNAVAILABLE);
        assert!(close.retry_after_ms.is_some());
        issuer.publish(Some(&[&key]));
        let (mut client, answer) = greet(&server, Wire::WebSocketBinary, &issuer.token(&key, "alice")).await;
        assert!(matches!(answer, Frame::Welcome(_)), "{answer:?}");
        client.say("bob", "hi").await;
        assert_eq!(server.ops("/readyz").await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_unknown_keys_cannot_make_the_node_ask_and_ask_again() {
    bounded(async {
        let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
        let issuer = Issuer::start(Some(&[&key])).await;
        let server = issuer.node(&deployment).await;
        let (mut alice, _) = greet(&server, Wire::Quic, &issuer.token(&key, "alice")).await;
        let before = issuer.asked.load(Ordering::SeqCst);
        for number in 0..50 {
            let stranger = TokenKey::new(&format!("unknown-{number}"));
            let mut client = RawClient::connect(&server, Wire::Quic).await;
            let answer = client.greet(&issuer.token(&stranger, "mallory"), "device").await;
            assert!(matches!(answer, Frame::Close(_)), "{answer:?}");
            alice.say("bob", "still here").await;
        }
        let asked = issuer.asked.load(Ordering::SeqCst) - before;
        // One in 30 s; the test itself takes less than two of them.
        assert!(asked <= 2, "the issuer was asked {asked} times");
        // Another issuer's name, or the right one with another audience, helps nobody.
        let mut claims = token::claims("mallory");
        claims["iss"] = issuer.url.clone().into();
        claims["aud"] = "another service".into();
        let (_, answer) = greet(&server, Wire::Quic, &key.sign(&claims)).await;
        assert!(matches!(answer, Frame::Close(close) if close.code == Code::TOKEN_INVALID));
    })
    .await;
}
