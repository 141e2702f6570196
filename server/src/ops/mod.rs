//! What an operator sees: metrics, logs, readiness and the port that serves them.

mod guard;
mod http;
pub mod logs;
pub mod metrics;
mod readiness;
#[cfg(test)]
mod tests;
mod turned_away;
mod version;

pub use http::{OpsConfig, OpsError, OpsServer, router};
pub use logs::LogConfig;
pub use metrics::{Exporter, Metrics};
pub use readiness::{Check, Readiness, Report};
pub use turned_away::turned_away;
pub use version::Version;
