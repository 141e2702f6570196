//! Key sets: what is taken of one, and what a token of an unknown key sets off.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::auth::{AuthConfig, AuthError, Authenticator, Scope};
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

#[test]
fn a_key_is_unknown_for_good_once_a_later_fetch_did_not_bring_it_and_asked_for_anew_after_a_while() {
    let issuer = Issuer::new(config("https://login.example/keys"));
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let fetch = |at: Instant| {
        issuer.state.lock().set = Some(Set { keys: Vec::new().into(), asked: at, fetched: at });
    };
    let find = |kid: &str, at| match issuer.find(Some(kid), Algorithm::ES256, at) {
        Found::Nowhere => false,
        Found::Later { .. } => true,
        Found::Keys(_) => unreachable!("there are none"),
    };
    fetch(start);
    assert!(find("new", start + second), "it may have been published since");
    assert!(find("new", start + 2 * second), "nobody has looked since");
    fetch(start + 3 * second);
    assert!(!find("new", start + 4 * second));
    assert!(find("newer", start + 4 * second), "each for itself");
    assert!(find("new", start + second + UNKNOWN_KEPT + second), "it may have been published after all");
    // Who comes with ever new keys keeps nobody from an answer for longer than a while.
    for number in 0..2 * UNKNOWN_MAX {
        find(&format!("flood-{number}"), start + 400 * second);
    }
    assert!(issuer.state.lock().unknown.len() <= UNKNOWN_MAX);
    fetch(start + 401 * second);
    assert!(find("late", start + 402 * second), "there is no room to remember it");
    assert!(find("late", start + 800 * second));
    fetch(start + 801 * second);
    assert!(!find("late", start + 802 * second));
}

#[tokio::test]
async fn an_expired_token_of_an_unknown_key_has_expired() {
    let auth = Authenticator::new(auth_config("http://127.0.0.1:9/keys")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(3_600);
    let unknown = token(&p256("two").0, "two", "https://login.example");
    let waits = auth.authenticate(&unknown, SystemTime::now()).await.unwrap_err();
    assert!(matches!(waits, AuthError::KeysUnavailable { .. }), "{waits:?}");
    assert!(matches!(auth.authenticate(&unknown, later).await, Err(AuthError::Expired { .. })));
}

#[tokio::test]
async fn an_issuer_names_only_its_own_users_and_gives_only_scopes_that_it_may() {
    let (pair, jwk) = p256("one");
    let (url, _) = issuer(Arc::new(Mutex::new(set(&[jwk]))));
    let token = {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({ "sub": "alice", "iss": "https://login.example", "exp": now + 600,
            "scope": "admin messages:write" });
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some("one".into());
        let key = jsonwebtoken::EncodingKey::from_ec_der(pair.serialized_der());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    for (prefix, scopes, user) in [
        (None, vec![], "alice"),
        (Some("partner:"), vec![Scope::SendAs], "partner:alice"),
        (None, vec![Scope::Admin, Scope::SendAs], "alice"),
    ] {
        let mut jwks = config(&url);
        (jwks.user_prefix, jwks.scopes) = (prefix.map(str::to_owned), scopes.clone());
        let auth = Authenticator::new(AuthConfig { jwks: vec![jwks], ..AuthConfig::default() }).unwrap();
        auth.fetch_keys().await.unwrap();
        let claims = auth.verify(&token, SystemTime::now()).unwrap();
        assert_eq!((claims.user.as_str(), claims.scopes), (user, scopes));
    }
}

#[test]
fn issuers_that_could_name_each_others_users_must_be_meant_to() {
    let jwks = |issuer: &str, prefix: Option<&str>, shares_users| JwksConfig {
        issuer: issuer.into(),
        user_prefix: prefix.map(str::to_owned),
        shares_users,
        ..config("https://login.example/keys")
    };
    let refusal = |issuers: &[JwksConfig]| check(issuers).err().map(|error| error.to_string());
    assert_eq!(refusal(&[jwks("a", Some("a:"), false), jwks("b", Some("b:"), false)]), None);
    assert_eq!(refusal(&[jwks("a", None, true), jwks("b", None, true)]), None);
    assert_eq!(refusal(&[jwks("own", None, true), jwks("b", Some("b:"), false)]), None);
    for bad in [
        [jwks("a", None, false), jwks("b", None, false)],
        [jwks("a", None, true), jwks("b", None, false)],
        [jwks("a", Some("x:"), false), jwks("b", Some("x:y:"), false)],
        [jwks("own", None, false), jwks("b", Some("b:"), false)],
    ] {
        let error = refusal(&bad).unwrap();
        assert!(error.contains("user_prefix") && error.contains("shares_users"), "{error}");
    }
    for prefix in ["", "a\n", "erased:", &"x".repeat(65)] {
        assert!(refusal(&[jwks("a", Some(prefix), false)]).is_some(), "{prefix:?}");
    }
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
