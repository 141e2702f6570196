use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tern_protocol::UserId;

use super::*;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of exactly 32 bytes....";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn now() -> SystemTime {
    at(NOW_S)
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn secret_key(path: PathBuf) -> KeyConfig {
    KeyConfig {
        kid: None,
        algorithm: Algorithm::HS256,
        public_key_file: None,
        secret_file: Some(path),
        scopes: None,
    }
}

fn public_key(path: PathBuf, algorithm: Algorithm, kid: Option<&str>) -> KeyConfig {
    KeyConfig {
        kid: kid.map(Into::into),
        algorithm,
        public_key_file: Some(path),
        secret_file: None,
        scopes: None,
    }
}

fn with_keys(keys: Vec<KeyConfig>) -> Result<Authenticator, AuthConfigError> {
    Authenticator::new(AuthConfig { keys, ..AuthConfig::default() })
}

/// A server that knows [`SECRET`], and whatever else `change` sets.
fn server(change: impl FnOnce(&mut AuthConfig)) -> Authenticator {
    let dir = TempDir::new().unwrap();
    let mut config = AuthConfig {
        keys: vec![secret_key(write(dir.path(), "secret", SECRET, 0o600))],
        ..Default::default()
    };
    change(&mut config);
    Authenticator::new(config).unwrap()
}

fn signed(header: &str, claims: &str) -> String {
    signed_with(header, claims, SECRET)
}

fn signed_with(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    );
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({ "sub": "alice", "exp": NOW_S + 3600 });
    change(&mut claims);
    claims.to_string()
}

fn verify(claims: &str) -> Result<Claims, AuthError> {
    server(|_| {}).verify(&signed(HS256, claims), now())
}

fn refused_claim(claims: &str) -> &'static str {
    match verify(claims) {
        Err(AuthError::Claim { claim, .. }) => claim,
        other => panic!("{claims}: {other:?}"),
    }
}

#[test]
fn a_good_token_says_who_and_until_when() {
    let token = claims(|claims| claims["name"] = json!("Alice Ä."));
    let expected = Claims {
        user: UserId::new("alice").unwrap(),
        name: Some("Alice Ä.".into()),
        expires_ms: (NOW_S + 3600) * 1000,
        issued_ms: 0,
        scopes: Vec::new(),
    };
    assert_eq!(verify(&token), Ok(expected));
    let issued = claims(|claims| claims["iat"] = json!(NOW_S));
    assert_eq!(verify(&issued).unwrap().issued_ms, NOW_S * 1000);
    assert_eq!(refused_claim(&claims(|claims| claims["sub"] = json!("erased:abc"))), "sub");
    assert_eq!(verify(&claims(|claims| claims["name"] = json!(""))).unwrap().name, None);
}

#[test]
fn what_is_minted_is_accepted_with_every_algorithm() {
    let dir = TempDir::new().unwrap();
    let pairs = [
        (Algorithm::ES256, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()),
        (Algorithm::EdDSA, KeyPair::generate_for(&PKCS_ED25519).unwrap()),
        (Algorithm::RS256, KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()),
    ];
    let secret = write(dir.path(), "secret", SECRET, 0o600);
    let mut keys = vec![secret_key(secret.clone())];
    let mut signing = vec![(SigningKey::from_secret_file(&secret).unwrap(), None)];
    for (algorithm, pair) in &pairs {
        let public = write(dir.path(), "public.pem", pair.public_key_pem(), 0o644);
        let private = write(dir.path(), "private.pem", pair.serialize_pem(), 0o600);
        let kid = algorithm.name();
        // Keys are read when they are loaded; the next round overwrites the files.
        let config = public_key(public, *algorithm, Some(kid));
        let server = with_keys(vec![config.clone()]).unwrap();
        let key = SigningKey::from_private_key_file(&private, *algorithm).unwrap();
        let mut mint = Mint::new(UserId::new("bob").unwrap(), Duration::from_secs(60));
        mint.kid = Some(kid.into());
        mint.name = Some("Bob".into());
        let token = mint.sign(&key, now()).unwrap();
        let claims = server.verify(&token, now()).unwrap();
        assert_eq!((claims.user.as_str(), claims.name.as_deref()), ("bob", Some("Bob")), "{algorithm}");
        let kept = write(dir.path(), kid, pair.public_key_pem(), 0o644);
        keys.push(public_key(kept, *algorithm, Some(kid)));
        signing.push((key, Some(kid)));
    }
    // One server with all of them picks the right key, with and without kid.
    let server = with_keys(keys).unwrap();
    for (key, kid) in &signing {
        for kid in [*kid, None] {
            let mut mint = Mint::new(UserId::new("bob").unwrap(), Duration::from_secs(60));
            mint.kid = kid.map(Into::into);
            let token = mint.sign(key, now()).unwrap();
            assert!(server.verify(&token, now()).is_ok(), "kid {kid:?}");
        }
    }
}

#[test]
fn a_key_works_only_with_its_own_algorithm() {
    let dir = TempDir::new().unwrap();
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let pem = pair.public_key_pem();
    let server =
        with_keys(vec![public_key(write(dir.path(), "rsa.pem", &pem, 0o644), Algorithm::RS256, None)]);
    let server = server.unwrap();
    // The public key is no secret: whoever has it must not be able to sign with it.
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), pair.public_key_raw()] {
        let forged = signed_with(HS256, &claims(|_| {}), secret);
        assert_eq!(server.verify(&forged, now()), Err(AuthError::NoKey));
        let forged = signed_with(r#"{"alg":"RS256"}"#, &claims(|_| {}), secret);
        assert_eq!(server.verify(&forged, now()), Err(AuthError::Signature));
    }
}

#[test]
fn unsigned_tokens_are_refused() {
    let server = server(|_| {});
    for alg in ["none", "None", "NONE", "hs256", "HS512", "ES384", "PS256", ""] {
        let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), &claims(|_| {}));
        assert!(matches!(server.verify(&token, now()), Err(AuthError::Header(_))), "{alg}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(matches!(server.verify(&unsigned, now()), Err(AuthError::Header(_))), "{alg}");
    }
    let token = signed(HS256, &claims(|_| {}));
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    assert_eq!(server.verify(&unsigned, now()), Err(AuthError::Signature));
    assert!(matches!(server.verify(&signed("{}", &claims(|_| {})), now()), Err(AuthError::Header(_))));
}

#[test]
fn a_kid_only_picks_among_configured_keys() {
    let dir = TempDir::new().unwrap();
    let secret = write(dir.path(), "secret", SECRET, 0o600);
    let other = write(dir.path(), "other", b"another secret of 32 bytes......", 0o600);
    let named = |kid: &str, path: &Path| KeyConfig { kid: Some(kid.into()), ..secret_key(path.into()) };
    let both = with_keys(vec![named("one", &secret), named("two", &other)]).unwrap();
    let with_kid = |kid: &str| signed(&json!({ "alg": "HS256", "kid": kid }).to_string(), &claims(|_| {}));
    assert!(both.verify(&with_kid("one"), now()).is_ok());
    assert_eq!(both.verify(&with_kid("two"), now()), Err(AuthError::Signature));
    let path = secret.to_str().unwrap();
    for kid in ["", "three", path, "../secret", "' OR 1=1 --", "http://127.0.0.1/key"] {
        assert_eq!(both.verify(&with_kid(kid), now()), Err(AuthError::NoKey), "{kid}");
    }
    // A key without a name serves those whose name is not known, but never one that is.
    let unnamed = with_keys(vec![named("two", &other), secret_key(secret.clone())]).unwrap();
    assert!(unnamed.verify(&with_kid("anything"), now()).is_ok());
    assert_eq!(unnamed.verify(&with_kid("two"), now()), Err(AuthError::Signature));
    let number = signed(r#"{"alg":"HS256","kid":1}"#, &claims(|_| {}));
    assert!(matches!(both.verify(&number, now()), Err(AuthError::Header(_))));
}

#[test]
fn a_token_cannot_bring_its_own_key_or_rules() {
    let server = server(|_| {});
    for (field, value) in [
        ("jwk", json!({ "kty": "oct", "k": "AAAA" })),
        ("jku", json!("https://example.com/keys")),
        ("x5u", json!("https://example.com/cert")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["b64"])),
        ("crit", json!([])),
        ("typ", json!("dpop+jwt")),
        ("typ", json!(1)),
    ] {
        let header = json!({ "alg": "HS256", field: value }).to_string();
        let refused = server.verify(&signed(&header, &claims(|_| {})), now());
        assert!(matches!(refused, Err(AuthError::Header(_))), "{header}: {refused:?}");
    }
    assert!(server.verify(&signed(r#"{"alg":"HS256","typ":"at+JWT"}"#, &claims(|_| {})), now()).is_ok());
}

#[test]
fn times_are_numbers_or_refused() {
    let wrong = ["\"1900000000\"", "-1", "-0.5", "[1900000000]", "{}", "true", "null"];
    for value in wrong.map(|text| serde_json::from_str::<Value>(text).unwrap()) {
        assert_eq!(refused_claim(&claims(|claims| claims["exp"] = value.clone())), "exp", "{value}");
        assert_eq!(refused_claim(&claims(|claims| claims["nbf"] = value.clone())), "nbf", "{value}");
        assert_eq!(refused_claim(&claims(|claims| claims["iat"] = value.clone())), "iat", "{value}");
    }
    let no_exp = json!({ "sub": "alice" }).to_string();
    assert_eq!(refused_claim(&no_exp), "exp");
}

#[test]
fn clocks_may_differ_by_30_seconds_and_no_more() {
    let server = server(|_| {});
    let expired_for =
        |seconds| server.verify(&signed(HS256, &claims(|c| c["exp"] = json!(NOW_S - seconds))), now());
    assert!(expired_for(29).is_ok());
    assert_eq!(expired_for(30), Err(AuthError::Expired { ago_s: 30 }));
    assert_eq!(expired_for(31).unwrap_err().code(), Code::TOKEN_EXPIRED);
    let starts_in =
        |seconds| server.verify(&signed(HS256, &claims(|c| c["nbf"] = json!(NOW_S + seconds))), now());
    assert!(starts_in(30).is_ok());
    assert_eq!(starts_in(31).unwrap_err().code(), Code::TOKEN_INVALID);
}

#[test]
fn a_lifetime_limit_is_kept() {
    let server = server(|config| config.lifetime_s_max = Some(3600));
    let expires_in =
        |seconds| server.verify(&signed(HS256, &claims(|c| c["exp"] = json!(NOW_S + seconds))), now());
    assert!(expires_in(3630).is_ok());
    assert!(matches!(expires_in(3631), Err(AuthError::Claim { claim: "exp", .. })));
}

#[test]
fn issuer_and_audience_are_required_where_configured() {
    let server = server(|config| {
        config.issuer = Some("https://issuer".into());
        config.audience = Some("tern".into());
    });
    let outcome = |iss: Value, aud: Value| {
        let token = claims(|claims| {
            let object = claims.as_object_mut().unwrap();
            if !iss.is_null() {
                object.insert("iss".into(), iss);
            }
            if !aud.is_null() {
                object.insert("aud".into(), aud);
            }
        });
        match server.verify(&signed(HS256, &token), now()) {
            Ok(_) => "ok",
            Err(AuthError::Claim { claim, .. }) => claim,
            Err(other) => panic!("{other:?}"),
        }
    };
    let (iss, aud) = (json!("https://issuer"), json!("tern"));
    assert_eq!(outcome(iss.clone(), aud.clone()), "ok");
    assert_eq!(outcome(iss.clone(), json!(["other", "tern"])), "ok");
    for wrong in [Value::Null, json!("https://issuer/"), json!(["https://issuer"]), json!(1)] {
        assert_eq!(outcome(wrong, aud.clone()), "iss");
    }
    for wrong in [Value::Null, json!("Tern"), json!([]), json!(["other"]), json!([1]), json!({ "tern": 1 })] {
        assert_eq!(outcome(iss.clone(), wrong), "aud");
    }
}

#[test]
fn a_token_for_somebody_else_is_refused_where_no_audience_is_configured() {
    assert_eq!(refused_claim(&claims(|claims| claims["aud"] = json!("billing"))), "aud");
    assert_eq!(refused_claim(&claims(|claims| claims["aud"] = json!([]))), "aud");
}

#[test]
fn users_and_names_follow_their_rules() {
    for sub in [json!(""), json!("c:alice"), json!("a\nb"), json!("x".repeat(129)), json!(7), Value::Null] {
        assert_eq!(refused_claim(&claims(|claims| claims["sub"] = sub)), "sub");
    }
    assert_eq!(refused_claim(&json!({ "exp": NOW_S + 60 }).to_string()), "sub");
}

#[test]
fn times_may_have_a_fraction_and_absurd_ones_are_never_told() {
    let token = claims(|claims| {
        claims["exp"] = json!(NOW_S as f64 + 60.5);
        claims["iat"] = json!(NOW_S as f64 - 0.25);
        claims["nbf"] = json!(NOW_S as f64 - 0.5);
    });
    let found = verify(&token).unwrap();
    assert_eq!((found.expires_ms, found.issued_ms), (NOW_S * 1000 + 60_500, NOW_S * 1000 - 250));
    assert_eq!(refused_claim(&claims(|claims| claims["nbf"] = json!(NOW_S as f64 + 30.5))), "nbf");
    let ago = claims(|claims| claims["exp"] = json!(NOW_S as f64 - 30.5));
    assert!(matches!(verify(&ago), Err(AuthError::Expired { .. })));
    for absurd in ["18446744073709551615", "1e300", "99999999999999999999", "9007199254740993"] {
        let token = format!(r#"{{"sub":"alice","exp":{absurd},"iat":{absurd}}}"#);
        let found = verify(&token).unwrap();
        assert_eq!((found.expires_ms, found.issued_ms), ((1 << 53) - 1, 0), "{absurd}");
        let limited = server(|config| config.lifetime_s_max = Some(86_400));
        assert!(limited.verify(&signed(HS256, &token), now()).is_err(), "{absurd}");
    }
    let issued_in =
        |seconds| verify(&claims(|claims| claims["iat"] = json!(NOW_S + seconds))).unwrap().issued_ms;
    assert_eq!((issued_in(30), issued_in(31)), ((NOW_S + 30) * 1000, 0), "of a time that has not come");
}

#[test]
fn a_key_gives_only_the_scopes_that_it_may() {
    let token = signed(HS256, &claims(|claims| claims["scope"] = json!("admin messages:write")));
    let given = |scopes: Option<Vec<Scope>>| {
        server(|config| config.keys[0].scopes = scopes).verify(&token, now()).unwrap().scopes
    };
    assert_eq!(given(None), [Scope::SendAs, Scope::Admin]);
    assert_eq!(given(Some(vec![Scope::SendAs])), [Scope::SendAs]);
    assert_eq!(given(Some(vec![])), []);
}

#[test]
fn a_name_that_cannot_be_shown_as_it_is_keeps_nobody_out() {
    let shown = |name: Value| verify(&claims(|claims| claims["name"] = name)).unwrap().name;
    for nothing in [json!(null), json!(7), json!(["a"]), json!({}), json!(""), json!(" \n\u{85} ")] {
        assert_eq!(shown(nothing.clone()), None, "{nothing}");
    }
    assert_eq!(shown(json!("A\nB")).as_deref(), Some("A B"));
    assert_eq!(shown(json!(" a\u{1b}[31m\r\n\t b ")).as_deref(), Some("a [31m b"));
    assert_eq!(shown(json!("é".repeat(100))), Some("é".repeat(64)), "cut between characters");
    assert_eq!(shown(json!("x".repeat(127) + " y")), Some("x".repeat(127)));
}

#[test]
fn sending_as_others_takes_exactly_the_word_in_the_scope() {
    let send_as = |scope: Value| {
        verify(&claims(|claims| claims["scope"] = scope)).map(|claims| claims.may(Scope::SendAs))
    };
    for scope in [json!("messages:write"), json!("openid messages:write x"), json!(["a", "messages:write"])] {
        assert_eq!(send_as(scope.clone()), Ok(true), "{scope}");
    }
    for scope in
        [json!(""), json!("messages:writer"), json!("messages"), json!([]), json!(["messages:write x"])]
    {
        assert_eq!(send_as(scope.clone()), Ok(false), "{scope}");
    }
    for scope in [json!(1), json!({"messages:write": true}), json!([1]), json!(null)] {
        assert_eq!(send_as(scope.clone()), Ok(false), "no reason to keep anybody out: {scope}");
    }
}

#[test]
fn a_name_twice_is_refused_in_header_and_claims() {
    let server = server(|_| {});
    let twice = format!(r#"{{"sub":"alice","exp":{0},"sub":"bob"}}"#, NOW_S + 60);
    let malformed = |part| Err(AuthError::Malformed(JwsError::Json(part)));
    assert_eq!(server.verify(&signed(HS256, &twice), now()), malformed("payload"));
    let escaped = format!(r#"{{"sub":"alice","exp":{0},"s\u0075b":"bob"}}"#, NOW_S + 60);
    assert_eq!(server.verify(&signed(HS256, &escaped), now()), malformed("payload"));
    let unused = format!(r#"{{"sub":"alice","exp":{0},"x":1,"x":2}}"#, NOW_S + 60);
    assert_eq!(server.verify(&signed(HS256, &unused), now()), malformed("payload"));
    let header = r#"{"alg":"HS256","alg":"none"}"#;
    assert_eq!(server.verify(&signed(header, &claims(|_| {})), now()), malformed("header"));
}

#[test]
fn every_changed_bit_of_a_token_is_noticed() {
    let server = server(|_| {});
    let token = signed(HS256, &claims(|_| {}));
    for index in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[index] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(server.verify(&changed, now()).is_err(), "byte {index}, bit {bit}");
            }
        }
    }
}

#[test]
fn only_canonical_base64url_is_read() {
    let server = server(|_| {});
    let token = signed(HS256, &claims(|_| {}));
    assert!(server.verify(&token, now()).is_ok());
    // 32 bytes of HMAC are 43 letters whose last has two unused bits.
    let last = token.as_bytes()[token.len() - 1];
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.bytes().position(|letter| letter == last).unwrap();
    let twin = &alphabet[place ^ 1..=place ^ 1];
    for bad in [
        format!("{token}="),
        format!("{}{twin}", &token[..token.len() - 1]),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}.x"),
        token.replace('.', ".."),
        token.split_once('.').unwrap().1.to_owned(),
        String::new(),
        "...".into(),
    ] {
        assert!(server.verify(&bad, now()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_token_has_at_most_4_kib() {
    let server = server(|_| {});
    let padded = |length| signed(HS256, &claims(|claims| claims["pad"] = json!("x".repeat(length))));
    let fits = (0..5000).rev().map(padded).find(|token| token.len() <= TOKEN_BYTES_MAX).unwrap();
    assert!(fits.len() > TOKEN_BYTES_MAX - 3 && server.verify(&fits, now()).is_ok());
    assert!(matches!(server.verify(&padded(5000), now()), Err(AuthError::TooLong(_))));
}

#[test]
fn a_refusal_never_shows_the_token() {
    let secret_word = "hunter2hunter2";
    let server = server(|config| config.issuer = Some("me".into()));
    for token in [
        secret_word.to_owned(),
        signed(&json!({ "alg": secret_word }).to_string(), "{}"),
        signed(&json!({ "alg": "HS256", "kid": secret_word, "crit": [secret_word] }).to_string(), "{}"),
        signed(HS256, &claims(|claims| claims["exp"] = json!(secret_word))),
        signed(HS256, &claims(|claims| claims["iss"] = json!(secret_word))),
        signed(HS256, secret_word),
    ] {
        let error = server.verify(&token, now()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret_word), "{error:?}");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8], mode| write(dir.path(), name, content, mode);
    let good = file("good", SECRET, 0o600);
    let refusal = |keys| with_keys(keys).err().expect("refused").to_string();
    assert!(refusal(vec![]).contains("auth.keys is empty"));
    assert!(refusal(vec![secret_key(good.clone()); KEYS_MAX + 1]).contains("at most 16"));
    let named = KeyConfig { kid: Some("a".into()), ..secret_key(good.clone()) };
    assert!(refusal(vec![named.clone(), named]).contains("two HS256 keys with kid \"a\""));
    let short = refusal(vec![secret_key(file("short", b"31 bytes are one less than 32..\n\n", 0o600))]);
    assert!(short.contains("holds 31 bytes"), "{short}");
    let open = refusal(vec![secret_key(file("open", SECRET, 0o644))]);
    assert!(open.contains("chmod 600"), "{open}");
    let absent = refusal(vec![secret_key(dir.path().join("absent"))]);
    assert!(absent.contains("absent: "), "{absent}");
    let large = refusal(vec![secret_key(file("large", &[b'x'; 20_000], 0o600))]);
    assert!(large.contains("not a key"), "{large}");
    let mut both = secret_key(good.clone());
    both.public_key_file = Some(good.clone());
    assert!(refusal(vec![both]).contains("needs secret_file and nothing else"));
    assert!(refusal(vec![public_key(good, Algorithm::HS256, None)]).contains("needs secret_file"));
}

#[test]
fn a_public_key_must_be_one_of_its_algorithm() {
    let dir = TempDir::new().unwrap();
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let private = p256.serialize_pem();
    let cut = &p256.public_key_pem()[..60];
    for (algorithm, pems) in [
        (
            Algorithm::ES256,
            [&p384.public_key_pem(), &ed.public_key_pem(), &rsa.public_key_pem(), &private, cut],
        ),
        (Algorithm::EdDSA, [&p256.public_key_pem(), &rsa.public_key_pem(), &ed.serialize_pem(), "", cut]),
        (Algorithm::RS256, [&p256.public_key_pem(), &ed.public_key_pem(), &rsa.serialize_pem(), "", cut]),
    ] {
        for pem in pems {
            let path = write(dir.path(), "key.pem", pem, 0o644);
            let refused = with_keys(vec![public_key(path, algorithm, None)]);
            assert!(matches!(refused.err(), Some(AuthConfigError::BadKey { .. })), "{algorithm}: {pem}");
        }
    }
}

#[test]
fn a_signing_key_must_be_one_of_its_algorithm() {
    let dir = TempDir::new().unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let path = write(dir.path(), "private.pem", p384.serialize_pem(), 0o600);
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
        let refused = SigningKey::from_private_key_file(&path, algorithm);
        assert!(matches!(refused.err(), Some(AuthConfigError::BadKey { .. })), "{algorithm}");
    }
    assert!(SigningKey::from_secret(&SECRET[1..]).is_none());
}

#[test]
fn nothing_is_minted_that_would_be_refused() {
    let key = SigningKey::from_secret(SECRET).unwrap();
    let mut mint = Mint::new(UserId::new("alice").unwrap(), Duration::from_secs(60));
    for name in ["", "a\nb", &"x".repeat(129)] {
        mint.name = Some(name.into());
        assert_eq!(mint.sign(&key, now()), Err(MintError::Name));
    }
    mint.name = None;
    mint.issuer = Some("x".repeat(5000));
    assert!(matches!(mint.sign(&key, now()), Err(MintError::TooLong(_))));
}

#[test]
fn a_secret_file_is_made_once_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                ensure_secret_file(&path).unwrap();
                fs::read(path).unwrap()
            })
        })
        .collect();
    let seen: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "all see the same secret");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");
    with_keys(vec![secret_key(path.clone())]).unwrap();
    ensure_secret_file(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), seen[0]);
    assert!(matches!(ensure_secret_file(&dir.path().join("no/such")), Err(AuthConfigError::File { .. })));
}

#[test]
fn an_inspection_names_every_problem_without_verifying() {
    let token = signed(
        r#"{"alg":"none","kid":"a"}"#,
        &json!({ "exp": NOW_S - 100, "sub": "c:x", "name": "a\nb" }).to_string(),
    );
    let inspection = inspect(&token, now()).unwrap();
    assert_eq!(inspection.header["kid"], "a");
    assert_eq!(inspection.problems.len(), 3, "{:?}", inspection.problems);
    let forged = signed_with(HS256, &claims(|_| {}), b"whatever");
    assert_eq!(inspect(&forged, now()).unwrap().problems, []);
    assert_eq!(inspect("nonsense", now()).err(), Some(JwsError::Parts));
}

proptest! {
    #[test]
    fn no_text_makes_verification_panic_or_pass(
        token in prop_oneof!["\\PC{0,80}", "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}"],
        json in "\\{(\"(sub|exp|nbf|aud)\":(null|-1|1e400|\"x\"|\\[\\]|99999999999999999999),?){0,4}\\}?",
    ) {
        let server = server(|_| {});
        prop_assert!(server.verify(&token, now()).is_err());
        prop_assert!(server.verify(&signed(HS256, &json), now()).is_err());
        let header = signed(&json, &claims(|_| ()));
        prop_assert!(server.verify(&header, now()).is_err());
    }
}
