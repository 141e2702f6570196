//! Settings that work but should make an operator think twice.

use std::path::Path;

use crate::auth::Algorithm;
use crate::config::Config;

/// Each as the key and what it implies.
pub(super) fn dangers(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut warn = |key, what: &str| found.push((key, what.to_owned()));
    if config.ops.allow_remote {
        warn("ops.allow_remote", "the ops port has no authentication: keep it in a network of your own");
    }
    if config.auth.keys.iter().any(|key| key.algorithm == Algorithm::HS256) {
        warn("auth.keys", "HS256: whoever has the secret of this server can sign any token; use ES256");
    }
    if config.auth.lifetime_s_max.is_none() {
        warn("auth.lifetime_s_max", "not set: a stolen token is good for as long as its issuer allowed");
    }
    let static_only = !config.auth.keys.is_empty();
    if static_only && config.auth.issuer.is_none() && config.auth.audience.is_none() {
        warn("auth.audience", "neither issuer nor audience is set: tokens made for others by this key work");
    }
    if config.quota.loopback_exempt {
        warn("quota.loopback_exempt", "behind a proxy on this machine nobody has a limit per address");
    }
    if config.transport.allow_loopback_origins {
        warn("transport.allow_loopback_origins", "any page served on a visitor's own machine may connect");
    }
    if config.listen.http.is_some_and(|http| !http.ip().to_canonical().is_loopback()) {
        warn("listen.http", "tokens and messages pass unencrypted: bind it to loopback, behind a proxy");
    }
    if config.tls.key_file.as_deref().is_some_and(readable_by_all) {
        warn("tls.key_file", "every user of this machine can read it and be this server: chmod o-r");
    }
    for (network, addresses) in config.transport.proxies().wide() {
        found.push((
            "transport.trusted_proxies",
            format!(
                "{network} is {addresses}: whoever connects from there says who they are, and no limit per \
                 address holds for them; name the proxies"
            ),
        ));
    }
    found
}

fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_not_dangerous_but_for_what_only_the_operator_knows() {
        let keys: Vec<_> = dangers(&Config::default()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["auth.lifetime_s_max"]);
    }

    #[test]
    fn what_opens_a_door_is_named() {
        let mut config = Config::default();
        config.ops.allow_remote = true;
        config.listen.http = Some("0.0.0.0:80".parse().unwrap());
        config.quota.loopback_exempt = true;
        config.transport.trusted_proxies = vec!["10.0.0.0/8".into(), "0.0.0.0/0".into()];
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        std::fs::write(&key, "key").unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        config.tls.key_file = Some(key.clone());
        let keys: Vec<_> = dangers(&config).into_iter().map(|(key, _)| key).collect();
        let all = [
            "ops.allow_remote",
            "listen.http",
            "quota.loopback_exempt",
            "tls.key_file",
            "transport.trusted_proxies",
        ];
        for key in all {
            assert_eq!(keys.iter().filter(|found| **found == key).count(), 1, "{key} in {keys:?}");
        }
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        config.transport.trusted_proxies = vec!["10.0.0.0/8".into(), "fd00::/16".into(), "::1".into()];
        let keys: Vec<_> = dangers(&config).into_iter().map(|(key, _)| key).collect();
        assert!(!keys.contains(&"tls.key_file") && !keys.contains(&"transport.trusted_proxies"), "{keys:?}");
    }
}
