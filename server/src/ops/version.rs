//! What this build is: for `tern version` and `/version`.

use serde::Serialize;

/// The facts of a build. What is not known is `unknown`.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// Name of the program.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Name of the protocol's major version, as clients negotiate it.
    pub protocol: &'static str,
    /// Commit of the sources.
    pub commit: &'static str,
    /// Date of the sources; only in builds with `SOURCE_DATE_EPOCH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The compiler.
    pub rustc: &'static str,
    /// The machine it runs on.
    pub target: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
    /// Optional parts that are built in.
    pub features: Vec<&'static str>,
}

impl Version {
    /// Of the running program.
    pub fn of_this_build() -> Self {
        let epoch_s: Option<i64> = env!("TERN_BUILD_EPOCH_S").parse().ok();
        let date = epoch_s.and_then(|epoch_s| jiff::Timestamp::from_second(epoch_s).ok());
        let features = env!("TERN_BUILD_FEATURES").split(',').filter(|name| !name.is_empty()).collect();
        Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            protocol: tern_protocol::SUBPROTOCOL_BINARY,
            commit: env!("TERN_BUILD_COMMIT"),
            date: date.map(|date| date.to_string()),
            rustc: env!("TERN_BUILD_RUSTC"),
            target: env!("TERN_BUILD_TARGET"),
            profile: env!("TERN_BUILD_PROFILE"),
            features,
        }
    }
}
