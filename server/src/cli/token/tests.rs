use std::time::UNIX_EPOCH;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::auth::ensure_secret_file;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    token: TokenArgs,
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Runs `tern token …`; gives standard output, or the failure with its exit code.
fn token(args: &[&str], input: &str) -> Result<String, (u8, String)> {
    let cli = Cli::try_parse_from([&["token"], args].concat()).map_err(|error| (64, error.to_string()))?;
    let mut out = Vec::new();
    let outcome = cli.token.run(Io { input: &mut input.as_bytes(), out: &mut out }, [], now());
    outcome.map_err(|failure| (failure.exit_code(), failure.to_string()))?;
    Ok(String::from_utf8(out).unwrap())
}

fn secret() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    ensure_secret_file(&path).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_minted_token_is_verified_from_argument_and_standard_input() {
    let (_dir, secret) = secret();
    let minted =
        token(&["mint", "--user", "alice", "--name", "Alice", "--ttl", "90m", "--secret-file", &secret], "");
    let minted = minted.unwrap();
    for (argument, input) in [(minted.trim(), ""), ("-", minted.as_str())] {
        let said = token(&["verify", argument, "--secret-file", &secret], input).unwrap();
        assert_eq!(said, "good: alice (Alice), expires 2027-01-15T09:30:00Z (in 1h 30m)\n");
    }
    let json = token(&["verify", "-", "--json", "--secret-file", &secret], &minted).unwrap();
    assert_eq!(json, "{\"expires_ms\":1800005400000,\"name\":\"Alice\",\"scopes\":[],\"user\":\"alice\"}\n");
}

#[test]
fn a_token_of_a_back_end_carries_its_scope() {
    let (_dir, secret) = secret();
    let args = ["mint", "--user", "shop", "--scope", "messages:write", "--secret-file", &secret];
    let minted = token(&args, "").unwrap();
    let said = token(&["verify", "-", "--secret-file", &secret], &minted).unwrap();
    assert_eq!(said, "good: shop, expires 2027-01-16T08:00:00Z (in 1d 0h), may send as any user\n");
}

#[test]
fn minting_in_json_says_until_when() {
    let (_dir, secret) = secret();
    let json = token(&["mint", "--user", "bob", "--json", "--secret-file", &secret], "").unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["user"], &json["expires_ms"]), (&json!("bob"), &json!(1_800_086_400_000_u64)));
    assert!(token(&["verify", json["token"].as_str().unwrap(), "--secret-file", &secret], "").is_ok());
}

#[test]
fn verifying_follows_a_configuration() {
    let (dir, secret) = secret();
    let config = dir.path().join("tern.toml");
    let text = format!(
        "[auth]\naudience = \"tern\"\n[[auth.keys]]\nalgorithm = \"HS256\"\nkid = \"k\"\nsecret_file = {secret:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let good = ["mint", "--user", "a", "--kid", "k", "--audience", "tern", "--secret-file", &secret];
    let good = token(&good, "").unwrap();
    assert!(token(&["verify", "-", "--config", config], &good).is_ok());
    let other = token(&["mint", "--user", "a", "--secret-file", &secret], "").unwrap();
    let refused = token(&["verify", "-", "--config", config], &other).unwrap_err();
    assert_eq!(refused, (1, "the token's aud is missing".into()));
}

#[test]
fn an_inspection_says_that_it_verified_nothing_and_what_is_wrong() {
    let (_dir, secret) = secret();
    let minted = ["mint", "--user", "alice", "--ttl", "2d", "--audience", "x", "--secret-file", &secret];
    let minted = token(&minted, "").unwrap();
    let said = token(&["inspect", "-"], &minted).unwrap();
    assert!(said.contains("NOT verified"), "{said}");
    assert!(said.contains("exp      1800172800  2027-01-17T08:00:00Z (in 2d 0h)"), "{said}");
    assert!(said.contains("auth.audience") && !said.contains("warning"), "{said}");
    // {"alg":"none"} . {"sub":"\u001b[31m","exp":1}
    let forged = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJcdTAwMWJbMzFtIiwiZXhwIjoxfQ.";
    let said = token(&["inspect", forged], "").unwrap();
    assert!(!said.contains('\u{1b}') && said.contains("\\u001b[31m"), "{said}");
    assert_eq!(said.matches("warning: ").count(), 3, "{said}");
    assert!(said.contains("warning: the token expired 1799999999 s ago"), "{said}");
    let json: Value = serde_json::from_str(&token(&["inspect", "--json", forged], "").unwrap()).unwrap();
    assert_eq!((&json["verified"], json["problems"].as_array().map(Vec::len)), (&json!(false), Some(3)));
    assert_eq!(token(&["inspect", "x"], "").unwrap_err().0, 1);
}

#[test]
fn bad_arguments_are_named() {
    let (_dir, secret) = secret();
    let refused = |args: &[&str]| token(args, "").unwrap_err().1;
    let mint = |args: &[&str]| refused(&[&["mint", "--secret-file", &secret], args].concat());
    assert!(mint(&["--user", "c:x"]).contains("must not start with"));
    assert!(mint(&["--user", "a", "--ttl", "soon"]).contains("write it as 30m"));
    assert!(mint(&["--user", "a", "--ttl", "1 month"]).contains("no fixed length"));
    for ttl in ["--ttl=0s", "--ttl=-1h"] {
        assert!(mint(&["--user", "a", ttl]).contains("longer than zero"), "{ttl}");
    }
    assert!(
        mint(&["--user", "a", "--key-file", "k", "--algorithm", "ES256"]).contains("cannot be used with")
    );
    assert!(mint(&["--user", "a", "--name", "a\nb"]).contains("control characters"));
    assert!(refused(&["mint", "--user", "a"]).contains("--secret-file"));
    assert!(refused(&["mint", "--user", "a", "--key-file", "k"]).contains("--algorithm"));
    let key_file = |algorithm| refused(&["mint", "--user", "a", "--key-file", "k", "--algorithm", algorithm]);
    assert!(key_file("HS256").contains("use --secret-file"));
    assert!(key_file("none").contains("must be ES256, EdDSA or RS256"));
    assert!(key_file("ES256").starts_with("k: "), "the file is read");
    assert!(refused(&["verify", "x"]).contains("--config"));
    let absent = token(&["mint", "--user", "a", "--secret-file", "/does/not/exist"], "").unwrap_err();
    assert_eq!(absent.0, 1);
    assert!(absent.1.starts_with("/does/not/exist: "));
}
