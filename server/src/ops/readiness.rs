//! May this node take traffic? Named checks that its parts keep up to date, and the drain.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// Why a check is not ready before it was ever reported.
const STARTING: &str = "starting";

/// The node's readiness; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: bool,
    checks: BTreeMap<&'static str, State>,
}

#[derive(Debug)]
struct State {
    /// Why it is not ready; `None`: it is.
    reason: Option<String>,
    /// Without it the node takes no traffic.
    is_vital: bool,
}

/// One check. Dropping it takes it out of the report.
#[derive(Debug)]
pub struct Check {
    name: &'static str,
    inner: Arc<Mutex<Inner>>,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// All checks that it needs are ready and the node is not draining.
    pub ready: bool,
    /// The node is going away.
    pub draining: bool,
    /// Each check: `"ok"`, or why it is not.
    pub checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a check, not ready until it says so. A name given again starts anew.
    pub fn check(&self, name: &'static str) -> Check {
        self.add(name, true)
    }

    /// Adds a check that is only reported: the node takes traffic without it.
    pub fn notice(&self, name: &'static str) -> Check {
        self.add(name, false)
    }

    fn add(&self, name: &'static str, is_vital: bool) -> Check {
        self.inner.lock().checks.insert(name, State { reason: Some(STARTING.into()), is_vital });
        Check { name, inner: self.inner.clone() }
    }

    /// Not ready from now on, for good: the first step of a drain.
    pub fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// The state of everything now.
    pub fn report(&self) -> Report {
        let inner = self.inner.lock();
        let is_fine = |state: &State| state.reason.is_none() || !state.is_vital;
        let ready = !inner.draining && inner.checks.values().all(is_fine);
        let text = |state: &State| state.reason.clone().unwrap_or_else(|| "ok".into());
        let checks = inner.checks.iter().map(|(name, state)| (*name, text(state))).collect();
        Report { ready, draining: inner.draining, checks }
    }
}

impl Check {
    /// It works.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It does not, and why: for people, without secrets.
    pub fn down(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        if let Some(state) = self.inner.lock().checks.get_mut(self.name) {
            state.reason = reason;
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.inner.lock().checks.remove(self.name);
    }
}
