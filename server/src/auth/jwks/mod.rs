//! The keys of one issuer, fetched from its URL: the last good set, and the task that keeps it fresh.
//!
//! A token with an unknown `kid` asks for a fetch, but never more often than [`FETCH_PAUSE`]; whoever
//! waits for it waits at most [`WAIT_MAX`].

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::algorithm::Algorithm;
use super::key::VerifyingKey;
use crate::ops::Check;
use crate::ops::metrics::Metrics;

mod config;
mod fetch;
mod set;
#[cfg(test)]
mod tests;

pub use config::JwksConfig;
pub(super) use config::check;

/// Shortest pause between two fetches that tokens ask for.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait of a token for a fetch.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A set that could not be renewed for this long is not trusted any more.
const SET_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most keys that are not in the set and remembered as asked for; with more, some are told longer than need
/// be that their key may come.
const UNKNOWN_MAX: usize = 1024;
/// So long a key that a fetch did not bring is refused without another fetch: then it may be asked for anew.
const UNKNOWN_KEPT: Duration = Duration::from_secs(60);
/// First pause after a failed fetch; it doubles up to [`FETCH_PAUSE`].
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One issuer with what is known of its keys.
pub(super) struct Issuer {
    pub(super) config: JwksConfig,
    state: Mutex<State>,
    hasher: RandomState,
    /// Somebody met a `kid` that is not in the set.
    wanted: Notify,
    /// Counts the fetches that have ended, well or not.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    set: Option<Set>,
    /// Keys that were asked for and are not in the set, by a hash, and when first.
    unknown: HashMap<u64, Instant>,
    /// A fetch is under way.
    fetching: bool,
    /// When the last fetch began.
    tried: Option<Instant>,
    /// Why the last fetch failed.
    failure: Option<String>,
}

/// What an issuer has published.
struct Set {
    keys: Arc<[VerifyingKey]>,
    /// When the fetch began that brought it.
    asked: Instant,
    /// When it was here.
    fetched: Instant,
}

/// What a token finds.
pub(super) enum Found {
    /// The keys to try.
    Keys(Arc<[VerifyingKey]>),
    /// There is no such key now, but a fetch may bring it.
    Later {
        /// Ask again after this time.
        after: Duration,
        /// A fetch is under way or about to begin: it is worth waiting for.
        soon: bool,
    },
    /// The issuer was asked since somebody first came with it, and does not have it.
    Nowhere,
}

impl State {
    /// When somebody first came with this key, of late. Where there is no room for it: now.
    fn first_seen(&mut self, key: u64, now: Instant) -> Instant {
        if self.unknown.len() >= UNKNOWN_MAX || self.unknown.contains_key(&key) {
            self.unknown.retain(|_, seen| now.saturating_duration_since(*seen) <= UNKNOWN_KEPT);
        }
        if self.unknown.len() >= UNKNOWN_MAX && !self.unknown.contains_key(&key) {
            return now;
        }
        *self.unknown.entry(key).or_insert(now)
    }
}

impl Issuer {
    pub(super) fn new(config: JwksConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            state: Mutex::default(),
            hasher: RandomState::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        })
    }

    /// The set, if it holds a key for this `kid` and algorithm; a token without `kid` may be of any key.
    /// Else a fetch is asked for.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm, now: Instant) -> Found {
        let mut state = self.state.lock();
        if let Some(Set { keys, fetched, .. }) = &state.set {
            if now.duration_since(*fetched) > SET_AGE_MAX {
                state.set = None;
            } else if keys.iter().any(|key| fits(key, kid, algorithm)) {
                return Found::Keys(keys.clone());
            }
        }
        let asked = state.set.as_ref().map(|set| set.asked);
        let first_seen = state.first_seen(self.hasher.hash_one((kid, algorithm.name())), now);
        if asked.is_some_and(|asked| asked > first_seen) {
            return Found::Nowhere;
        }
        self.wanted.notify_one();
        let pause_over = state.tried.map_or(now, |tried| tried + FETCH_PAUSE);
        let after = pause_over.saturating_duration_since(now).max(RETRY_PAUSE);
        Found::Later { after, soon: state.fetching || after < WAIT_MAX }
    }

    /// Fetches that have ended so far; to be compared by [`Issuer::fetched_since`].
    pub(super) fn ended(&self) -> u64 {
        *self.ended.borrow()
    }

    /// Waits until a fetch ends that had not ended at `before`; true if it brought a set.
    pub(super) async fn fetched_since(&self, before: u64) -> bool {
        let mut ended = self.ended.subscribe();
        let new = tokio::time::timeout(WAIT_MAX, ended.wait_for(|count| *count > before)).await;
        matches!(new, Ok(Ok(_))) && self.state.lock().failure.is_none()
    }

    /// Why there is no set that can be trusted, for readiness.
    pub(super) fn lacking(&self) -> Option<String> {
        let state = self.state.lock();
        match (&state.set, &state.failure) {
            (Some(_), _) => None,
            (None, Some(failure)) => Some(format!("{}: {failure}", self.config.url)),
            (None, None) => Some(format!("{}: not fetched yet", self.config.url)),
        }
    }

    /// Fetches once and keeps the set if it is good.
    pub(super) async fn fetch(&self) -> Result<(), String> {
        let asked = Instant::now();
        {
            let mut state = self.state.lock();
            state.tried = Some(asked);
            state.fetching = true;
        }
        let fetched = fetch::get(&self.config).await.and_then(|text| set::parse(&text, &self.config));
        let mut state = self.state.lock();
        state.fetching = false;
        let outcome = match fetched {
            Ok(keys) => {
                state.set = Some(Set { keys: keys.into(), asked, fetched: Instant::now() });
                state.failure = None;
                Ok(())
            }
            Err(error) => {
                let failure = error.to_string();
                state.failure = Some(failure.clone());
                Err(failure)
            }
        };
        drop(state);
        self.ended.send_modify(|count| *count += 1);
        outcome
    }

    /// Fetches at the start, at each refresh, after failures, and when tokens ask for it. Never returns.
    pub(super) async fn keep_fresh(self: Arc<Self>, metrics: Metrics, told: impl Fn()) {
        let refresh = Duration::from_secs(self.config.refresh_s);
        let mut retry = RETRY_PAUSE;
        let mut told_failure = None;
        loop {
            let pause = match self.fetch().await {
                Ok(()) => {
                    metrics.renewal.jwks_fetched.increment(1);
                    if told_failure.take().is_some() {
                        tracing::info!(url = self.config.url, "the issuer's keys are fetched again");
                    }
                    retry = RETRY_PAUSE;
                    refresh
                }
                Err(failure) => {
                    metrics.renewal.jwks_failed.increment(1);
                    if told_failure.as_ref() != Some(&failure) {
                        tracing::warn!(
                            url = self.config.url,
                            failure,
                            "the issuer's keys cannot be fetched; the last good set is used for 24 h"
                        );
                        told_failure = Some(failure);
                    }
                    let pause = retry;
                    retry = (retry * 2).min(FETCH_PAUSE);
                    pause
                }
            };
            told();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked() => {}
            }
        }
    }

    /// Waits until a token asks for a fetch and one is allowed.
    async fn asked(&self) {
        self.wanted.notified().await;
        let tried = self.state.lock().tried;
        if let Some(tried) = tried {
            tokio::time::sleep_until((tried + FETCH_PAUSE).into()).await;
        }
    }
}

/// The key can have signed such a token.
pub(super) fn fits(key: &VerifyingKey, kid: Option<&str>, algorithm: Algorithm) -> bool {
    key.algorithm == algorithm && (kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid)
}

/// The tasks that keep the keys of all issuers fresh; dropping it ends them.
pub struct KeepFresh(JoinSet<()>);

impl KeepFresh {
    pub(super) fn start(issuers: Vec<Arc<Issuer>>, metrics: &Metrics, check: Arc<Check>) -> Self {
        let told = Arc::new({
            let issuers = issuers.clone();
            move || {
                let lacking: Vec<String> = issuers.iter().filter_map(|issuer| issuer.lacking()).collect();
                if lacking.is_empty() { check.ready() } else { check.down(lacking.join("; ")) }
            }
        });
        told();
        let mut tasks = JoinSet::new();
        for issuer in issuers {
            let (told, metrics) = (told.clone(), metrics.clone());
            tasks.spawn(issuer.keep_fresh(metrics, move || told()));
        }
        Self(tasks)
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        self.0.abort_all();
    }
}
