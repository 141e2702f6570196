use std::io::Write;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = file(text);
    Config::load(Some(file.path()), variables(env))
}

fn variables(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn failure(text: &str, env: &[(&str, &str)]) -> String {
    load(text, env).unwrap_err().to_string()
}

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(Config::load(None, []).unwrap(), Config::default());
    assert_eq!(load("", &[("PATH", "/bin"), ("TERN_TOKEN", "x")]).unwrap(), Config::default());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let text = "[ops]\nlisten = \"127.0.0.1:1\"\nallow_remote = true\n[presence]\ngrace_ms = 5\n";
    let config = load(text, &[("TERN__OPS__LISTEN", "[::1]:2"), ("TERN__PRESENCE__BATCH_MS", "7")]).unwrap();
    assert_eq!(config.ops.listen, "[::1]:2".parse().unwrap());
    assert!(config.ops.allow_remote, "a variable replaces its key only");
    assert_eq!((config.presence.grace_ms, config.presence.batch_ms), (5, 7));
    assert_eq!(config.presence.watches_max, PresenceConfig::default().watches_max);
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_known_one() {
    let error = failure("[ops]\nlisen = \"127.0.0.1:1\"\n", &[]);
    assert!(error.contains("line 2") && error.contains("did you mean `listen`?"), "{error}");
    let error = failure("[quoata]\n", &[]);
    assert!(error.contains("line 1") && error.contains("did you mean `quota`?"), "{error}");
    let error = failure("", &[("TERN__DRAIN__DEADLINE", "5")]);
    assert!(error.starts_with("TERN__DRAIN__DEADLINE: "), "{error}");
    assert!(error.contains("unknown field `deadline`"), "{error}");
    assert!(error.contains("did you mean `deadline_ms`?"), "{error}");
    let error = failure("[log]\nformat = \"jason\"\n", &[]);
    assert!(error.contains("did you mean `json`?"), "{error}");
    let error = failure("[ops]\nsomething_else = 1\n", &[]);
    assert!(error.contains("something_else") && !error.contains("did you mean"), "{error}");
}

#[test]
fn a_wrong_type_names_the_key_and_what_was_expected() {
    for (text, key, expected) in [
        ("[presence]\ngrace_ms = \"soon\"\n", "grace_ms", "u64"),
        ("[presence]\ngrace_ms = -1\n", "grace_ms", "u64"),
        ("[presence]\ngrace_ms = 1.5\n", "grace_ms", "u64"),
        ("[presence]\ngrace_ms = true\n", "grace_ms", "u64"),
        ("[quota]\nuser_sends_burst = 0\n", "user_sends_burst", "nonzero u32"),
        ("[ops]\nlisten = \"localhost\"\n", "listen", "socket address"),
        ("[auth]\nkeys = 3\n", "keys", "sequence"),
        ("[[auth.keys]]\nalgorithm = \"none\"\n", "algorithm", "`HS256`"),
        ("[[auth.keys]]\nkid = \"a\"\n", "keys", "missing field `algorithm`"),
        ("ops = 3\n", "ops", "struct OpsConfig"),
    ] {
        let error = failure(text, &[]);
        assert!(
            error.contains("line ") && error.contains(key) && error.contains(expected),
            "{text}: {error}"
        );
    }
    let error = failure("", &[("TERN__PRESENCE__GRACE_MS", "soon")]);
    assert!(error.starts_with("TERN__PRESENCE__GRACE_MS: ") && error.contains("u64"), "{error}");
}

#[test]
fn a_variable_can_hold_a_list_and_text_that_looks_like_something_else() {
    let keys = r#"[{ algorithm = "HS256", secret_file = "/s" }]"#;
    let env =
        [("TERN__AUTH__KEYS", keys), ("TERN__AUTH__ISSUER", "2026-11-24"), ("TERN__AUTH__AUDIENCE", "\"8\"")];
    let config = load("", &env).unwrap();
    assert_eq!(config.auth.keys[0].secret_file.as_deref(), Some(Path::new("/s")));
    assert_eq!(config.auth.issuer.as_deref(), Some("2026-11-24"));
    assert_eq!(config.auth.audience.as_deref(), Some("8"));
}

#[test]
fn a_variable_below_a_key_is_an_error() {
    let error = failure("[ops]\nlisten = \"127.0.0.1:1\"\n", &[("TERN__OPS__LISTEN__PORT", "1")]);
    assert!(error.contains("\"listen\" is a key, not a section"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_named() {
    let error = Config::load(Some(Path::new("/does/not/exist.toml")), []).unwrap_err().to_string();
    assert!(error.starts_with("/does/not/exist.toml: "), "{error}");
    let error = failure("[ops\n", &[]);
    assert!(error.contains("line 1"), "{error}");
    let error = failure("[ops]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:1\"\n", &[]);
    assert!(error.contains("line 3") && error.contains("duplicate key"), "{error}");
}

#[test]
fn the_settings_of_dev_are_good_and_give_way_to_the_environment() {
    let config = Config::dev(variables(&[("TERN__DRAIN__DEADLINE_MS", "9")])).unwrap();
    assert!(config.quota.loopback_exempt);
    assert_eq!((config.drain.deadline_ms, config.drain.spread_ms), (9, 0));
}
