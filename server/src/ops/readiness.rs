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
    /// Reason why each check is not ready; `None` is ready.
    checks: BTreeMap<&'static str, Option<String>>,
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
    /// All checks are ready and the node is not draining.
    pub ready: bool,
    /// The node is going away.
    pub draining: bool,
    /// Each check: `"ok"`, or why it is not.
    pub checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a check, not ready until it says so. A name given again starts anew.
    pub fn check(&self, name: &'static str) -> Check {
        self.inner.lock().checks.insert(name, Some(STARTING.into()));
        Check { name, inner: self.inner.clone() }
    }

    /// Not ready from now on, for good: the first step of a drain.
    pub fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// The state of everything now.
    pub fn report(&self) -> Report {
        let inner = self.inner.lock();
        let ready = !inner.draining && inner.checks.values().all(Option::is_none);
        let text = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "ok".into());
        let checks = inner.checks.iter().map(|(name, reason)| (*name, text(reason))).collect();
        Report { ready, draining: inner.draining, checks }
    }
}

impl Check {
    /// It works.
    pub fn ready(&self) {
        self.inner.lock().checks.insert(self.name, None);
    }

    /// It does not, and why: for people, without secrets.
    pub fn down(&self, reason: impl Into<String>) {
        self.inner.lock().checks.insert(self.name, Some(reason.into()));
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.inner.lock().checks.remove(self.name);
    }
}
