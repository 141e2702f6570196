//! Key sets: what is taken of one, and what a token of an unknown key sets off.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::auth::{AuthConfig, AuthError, Authenticator};
use crate::ops::Readiness;

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes)
}

fn p256(kid: &str) -> (KeyPair, Value) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let point = pair.public_key_raw().to_vec();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": kid,
        "x": base64(&point[1..33]), "y": base64(&point[33..65]) });
    (pair, jwk)
}

fn config(url: &str) -> JwksConfig {
    JwksConfig {
        issuer: "https://login.example".into(),
        url: url.into(),
        audience: None,
        algorithms: vec![Algorithm::ES256, Algorithm::EdDSA],
        refresh_s: 3600,
        ca_file: None,
        user_prefix: None,
        shares_users: false,
        scopes: Vec::new(),
    }
}

fn auth_config(url: &str) -> AuthConfig {
    AuthConfig { jwks: vec![config(url)], ..AuthConfig::default() }
}

fn token(pair: &KeyPair, kid: &str, issuer: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": "alice", "iss": issuer, "exp": now + 600 });
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(kid.into());
    let key = jsonwebtoken::EncodingKey::from_ec_der(pair.serialized_der());
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

/// Serves what is in `answer` until the process ends, and counts the requests.
fn issuer(answer: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.lock().as_bytes());
        }
    });
    (url, asked)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn set(keys: &[Value]) -> String {
    ok(&json!({ "keys": keys }).to_string())
}

#[test]
fn only_keys_that_can_sign_by_a_configured_algorithm_are_taken() {
    let (_, good) = p256("good");
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    let keys = [
        with("use", "sig".into()),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64(ed.public_key_raw()) }),
        with("use", "enc".into()),
        with("key_ops", json!(["sign"])),
        with("alg", "RS256".into()),
        with("crv", "P-384".into()),
        with("x", "AAAA".into()),
        with("d", "published".into()),
        json!({ "kty": "oct", "kid": "secret", "k": base64(&[7; 32]) }),
        json!({ "kty": "RSA", "kid": "short", "n": base64(&[0xff; 128]), "e": "AQAB" }),
        json!({ "kty": "RSA", "kid": "not configured", "n": base64(&[0xff; 256]), "e": "AQAB" }),
        json!("nonsense"),
    ];
    let text = json!({ "keys": keys }).to_string();
    let found = set::parse(text.as_bytes(), &config("https://login.example")).unwrap();
    let found: Vec<_> = found.iter().map(|key| (key.kid.as_deref().unwrap(), key.algorithm)).collect();
    assert_eq!(found, [("good", Algorithm::ES256), ("ed", Algorithm::EdDSA)]);
    for bad in ["", "[]", "{\"keys\":3}", "{\"keys\":[]}"] {
        assert!(set::parse(bad.as_bytes(), &config("https://login.example")).is_err(), "{bad}");
    }
}

#[test]
fn an_issuer_that_could_be_impersonated_is_refused_by_the_configuration() {
    let with = |change: fn(&mut JwksConfig)| {
        let mut jwks = config("https://login.example/keys");
        change(&mut jwks);
        check(&[jwks]).map_err(|error| error.to_string())
    };
    with(|_| ()).unwrap();
    with(|jwks| jwks.url = "http://[::1]:8080/keys".into()).unwrap();
    let error = with(|jwks| jwks.url = "http://login.example/keys".into()).unwrap_err();
    assert!(error.contains("must be https"), "{error}");
    with(|jwks| jwks.url = "file:///etc/passwd".into()).unwrap_err();
    with(|jwks| jwks.url = "https://user:secret@login.example/".into()).unwrap_err();
    with(|jwks| jwks.algorithms = vec![Algorithm::HS256]).unwrap_err();
    with(|jwks| jwks.algorithms.clear()).unwrap_err();
    with(|jwks| jwks.refresh_s = 1).unwrap_err();
    let twice = [config("https://login.example/keys"), config("https://login.example/more")];
    assert!(check(&twice).unwrap_err().to_string().contains("twice"));
}

#[tokio::test]
async fn tokens_of_fetched_keys_are_good_and_each_issuer_speaks_for_itself() {
    let (pair, jwk) = p256("one");
    let (url, _) = issuer(Arc::new(Mutex::new(set(&[jwk]))));
    let auth = Authenticator::new(auth_config(&url)).unwrap();
    auth.fetch_keys().await.unwrap();
    let now = SystemTime::now();
    let good = token(&pair, "one", "https://login.example");
    assert_eq!(auth.authenticate(&good, now).await.unwrap().user.as_str(), "alice");
    let other_issuer = token(&pair, "one", "https://evil.example");
    assert_eq!(auth.authenticate(&other_issuer, now).await, Err(AuthError::NoKey));
    let other_key = token(&p256("one").0, "one", "https://login.example");
    assert_eq!(auth.authenticate(&other_key, now).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn a_thousand_tokens_of_unknown_keys_cause_no_further_fetch_and_are_told_when_to_come_back() {
    let (_, jwk) = p256("one");
    let (url, asked) = issuer(Arc::new(Mutex::new(set(&[jwk]))));
    let auth = Authenticator::new(auth_config(&url)).unwrap();
    let check = Arc::new(Readiness::default().check("jwks"));
    let _fresh = auth.keep_fresh(&Metrics::none(), check);
    while auth.rules().issuers[0].ended() == 0 {
        tokio::task::yield_now().await;
    }
    let stranger = p256("other").0;
    for number in 0..1000 {
        let token = token(&stranger, &format!("kid-{}", number % 7), "https://login.example");
        let error = auth.authenticate(&token, SystemTime::now()).await.unwrap_err();
        assert!(error.retry_after().is_some_and(|after| after <= FETCH_PAUSE), "{error:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_that_a_fetch_does_not_bring_is_refused_for_good() {
    let (_, jwk) = p256("one");
    let (url, _) = issuer(Arc::new(Mutex::new(set(&[jwk]))));
    let auth = Authenticator::new(auth_config(&url)).unwrap();
    let unknown = token(&p256("two").0, "two", "https://login.example");
    // Nothing was fetched yet: the token waits for the first set.
    let waiting = auth.authenticate(&unknown, SystemTime::now());
    let (answer, fetched) = tokio::join!(waiting, auth.fetch_keys());
    fetched.unwrap();
    assert_eq!(answer, Err(AuthError::NoKey));
}

#[tokio::test]
async fn bad_answers_leave_the_last_good_set_and_say_what_is_wrong() {
    let (pair, jwk) = p256("one");
    let answer = Arc::new(Mutex::new(set(&[jwk])));
    let (url, _) = issuer(answer.clone());
    let auth = Authenticator::new(auth_config(&url)).unwrap();
    auth.fetch_keys().await.unwrap();
    let large = format!("{{\"keys\":[]{}}}", " ".repeat(fetch::SET_BYTES_MAX));
    for (bad, words) in [
        (ok("<html>"), "no key set"),
        (ok("{\"keys\":[]}"), "no key for"),
        (ok(&large), "larger than"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into(), "302"),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".into(), "500"),
        ("SSH-2.0-nothing\r\n".into(), "exchange failed"),
    ] {
        *answer.lock() = bad;
        let error = auth.fetch_keys().await.unwrap_err();
        assert!(error.starts_with(&url) && error.contains(words), "{words}: {error}");
        let token = token(&pair, "one", "https://login.example");
        auth.authenticate(&token, SystemTime::now()).await.unwrap();
    }
}

#[test]
fn a_set_is_not_trusted_for_ever() {
    let (_, jwk) = p256("one");
    let issuer = Issuer::new(config("https://login.example/keys"));
    let text = json!({ "keys": [jwk] }).to_string();
    let keys = set::parse(text.as_bytes(), &issuer.config).unwrap();
    let now = Instant::now();
    issuer.state.lock().set = Some(Set { keys: keys.into(), asked: now, fetched: now });
    let find = |now| issuer.find(Some("one"), Algorithm::ES256, now);
    assert!(matches!(find(now + SET_AGE_MAX), Found::Keys(_)));
    assert!(matches!(find(now + SET_AGE_MAX + Duration::from_secs(1)), Found::Later { .. }));
    assert!(issuer.lacking().is_some());
}
