//! What a running node can be told anew: its certificate, the keys of tokens, what it logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use toml::{Table, Value};

use super::config::TlsFiles;
use crate::auth::{Authenticator, KeepFresh};
use crate::config::Config;
use crate::ops::metrics::Metrics;
use crate::ops::{Check, Readiness, logs};
use crate::transport::identity_files::{IdentityFiles, Look};
use crate::transport::tls::{Certificate, Identity};

/// What the check of the certificate is called.
const CERTIFICATE: &str = "certificate";
/// The warning is repeated this often.
const EXPIRY_WARNING_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Sections and keys that a running node takes over; all others need a restart.
const RELOADED: [&str; 3] = ["tls.", "auth.", "log.level"];

/// Changes settings of a running node.
pub struct Reloader {
    certificate: Arc<Certificate>,
    auth: Arc<Authenticator>,
    metrics: Metrics,
    readiness: Readiness,
    /// Whether clients can take the certificate now.
    validity: Check,
    state: Mutex<State>,
}

struct State {
    /// What is in force, or waits for a restart.
    config: Config,
    files: Option<IdentityFiles>,
    /// Keeps the keys of issuers fresh, where there are any.
    fresh: Option<KeepFresh>,
    /// Says whether their keys are known. One for all reloads, since its end takes its line away.
    check: Option<Arc<Check>>,
    /// When the expiry of the certificate was last warned about.
    warned: Option<SystemTime>,
}

impl Reloader {
    /// For a node that has started by this configuration.
    pub(super) fn new(
        config: &Config,
        certificate: Arc<Certificate>,
        auth: &Arc<Authenticator>,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Arc<Self> {
        let (config, auth) = (config.clone(), Arc::clone(auth));
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        let files = identity_files(&config.tls);
        // Behind a proxy that ends TLS the node may do without.
        let has_plain = config.listen.http.is_some();
        let validity = if has_plain { readiness.notice(CERTIFICATE) } else { readiness.check(CERTIFICATE) };
        let state = Mutex::new(State { config, files, fresh: None, check: None, warned: None });
        let reloader = Self { certificate, auth, metrics, readiness, validity, state };
        reloader.keep_fresh(&mut reloader.state.lock());
        Arc::new(reloader)
    }

    /// Takes what can be taken of a new configuration and reads certificate and key files again. Logs
    /// what was taken, what was refused and what needs a restart; a part that is bad stays as it was.
    pub fn reload(&self, config: Config) {
        let mut state = self.state.lock();
        let changed = changed_keys(&state.config, &config);
        let (taken, waiting): (Vec<&String>, Vec<&String>) =
            changed.iter().partition(|key| RELOADED.iter().any(|reloaded| key.starts_with(reloaded)));
        if config.tls != state.config.tls {
            state.files = identity_files(&config.tls);
            // Whatever is in the files now is new.
            if let Some(files) = &mut state.files {
                files.forget();
            }
        }
        self.renew_certificate(&mut state, true);
        let keys_taken = self.apply("auth", self.auth.reload(config.auth.clone()));
        self.apply("log.level", logs::configure(&config.log.level));
        state.config = config;
        if keys_taken {
            self.keep_fresh(&mut state);
        }
        tracing::info!(changed = ?taken, "configuration read again");
        if !waiting.is_empty() {
            tracing::warn!(keys = ?waiting, "changed, but only a restart takes these over");
        }
    }

    /// Presents a certificate from now on that is in no file of the configuration. True if it is another one
    /// than before.
    pub(super) fn present(&self, identity: Identity) -> bool {
        let mut state = self.state.lock();
        let is_new = identity.sha256_hex() != self.certificate.identity().sha256_hex();
        if is_new {
            self.take(&mut state, identity);
        }
        self.watch_expiry(&mut state, SystemTime::now());
        is_new
    }

    fn take(&self, state: &mut State, identity: Identity) {
        tracing::info!(sha256 = identity.sha256_hex(), "a new certificate is presented");
        self.metrics.renewal.reloads_applied.increment(1);
        self.certificate.replace(identity);
        state.warned = None;
    }

    /// The configuration cannot be read: everything stays as it is.
    pub fn refused(&self, error: &dyn std::error::Error) {
        self.metrics.renewal.reloads_refused.increment(1);
        tracing::warn!(%error, "the configuration was not taken; correct it and send SIGHUP again");
    }

    fn apply<T>(&self, what: &str, done: Result<T, impl std::error::Error>) -> bool {
        let taken = done.is_ok();
        match done {
            Ok(_) => self.metrics.renewal.reloads_applied.increment(1),
            Err(error) => {
                self.metrics.renewal.reloads_refused.increment(1);
                tracing::warn!(what, %error, "not taken, the old one stays; correct it and send SIGHUP");
            }
        }
        taken
    }

    /// Fetches the keys of the issuers as they are configured now, in place of earlier ones.
    fn keep_fresh(&self, state: &mut State) {
        state.fresh = None;
        if !self.auth.fetches() {
            state.check = None;
            return;
        }
        let check = state.check.get_or_insert_with(|| Arc::new(self.readiness.check("jwks")));
        state.fresh = Some(self.auth.keep_fresh(&self.metrics, check.clone()));
    }

    /// Looks at the certificate files. With `insist`, what is bad is told even if it was before.
    fn renew_certificate(&self, state: &mut State, insist: bool) {
        let now = SystemTime::now();
        let Some(files) = &mut state.files else { return self.watch_expiry(state, now) };
        match files.look(now, insist) {
            Look::Same => {}
            Look::Renewed(identity) => self.take(state, identity),
            Look::Bad(error) => {
                self.metrics.renewal.reloads_refused.increment(1);
                tracing::warn!(
                    %error,
                    "the new certificate is not taken, the old one stays; put a pair that fits in place"
                );
            }
        }
        self.watch_expiry(state, now);
    }

    fn watch_expiry(&self, state: &mut State, now: SystemTime) {
        let Some(facts) = self.certificate.identity().facts() else { return };
        self.metrics.renewal.certificate_expires.set(facts.not_after_s as f64);
        let left_s = facts.left_s(now);
        let invalid = facts.invalid(now);
        match &invalid {
            None => self.validity.ready(),
            Some(reason) => self.validity.down(format!("not valid now: {reason}")),
        }
        let due = state
            .warned
            .is_none_or(|at| now.duration_since(at).is_ok_and(|since| since >= EXPIRY_WARNING_EVERY));
        if let (true, Some(reason)) = (due, invalid) {
            state.warned = Some(now);
            tracing::error!(
                reason,
                "the certificate is not valid now, so that clients refuse it: put a renewed one in its place, or \
                 set the clock"
            );
        } else if due && facts.ends_soon(now) {
            state.warned = Some(now);
            tracing::warn!(left_s, "the certificate ends soon; put a renewed one in its place");
        }
    }
}

fn identity_files(tls: &TlsFiles) -> Option<IdentityFiles> {
    Some(IdentityFiles::new(tls.cert_file.clone()?, tls.key_file.clone()?))
}

/// The keys, as `section.key`, that have other values.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let mut keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| old.get(key) != new.get(key));
    keys
}

fn flat(config: &Config) -> BTreeMap<String, Value> {
    let sections = Table::try_from(config).expect("a configuration is TOML");
    let keys = sections.into_iter().flat_map(|(section, keys)| {
        let keys = match keys {
            Value::Table(keys) => keys,
            other => Table::from_iter([(String::new(), other)]),
        };
        keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
    });
    keys.collect()
}

/// The task that looks at the certificate files now and then; dropping it ends it.
pub(super) struct WatchFiles(JoinHandle<()>);

impl WatchFiles {
    pub(super) fn start(reloader: Arc<Reloader>) -> Self {
        reloader.renew_certificate(&mut reloader.state.lock(), false);
        Self(tokio::spawn(async move {
            loop {
                let every = match reloader.state.lock().config.tls.reload_every_s {
                    // Still often enough to begin when a reload turns it on.
                    0 => None,
                    every => Some(Duration::from_secs(every)),
                };
                tokio::time::sleep(every.unwrap_or(Duration::from_secs(10))).await;
                let reloader = reloader.clone();
                let look = move || {
                    let state = &mut *reloader.state.lock();
                    match every {
                        Some(_) => reloader.renew_certificate(state, false),
                        None => reloader.watch_expiry(state, SystemTime::now()),
                    }
                };
                let _ = tokio::task::spawn_blocking(look).await;
            }
        }))
    }
}

impl Drop for WatchFiles {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_by_section_and_key() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = "debug".into();
        new.listen.http = Some("127.0.0.1:1".parse().unwrap());
        new.auth.issuer = Some("me".into());
        assert_eq!(changed_keys(&old, &new), ["auth.issuer", "listen.http", "log.level"]);
        assert!(changed_keys(&old, &old).is_empty());
    }
}
