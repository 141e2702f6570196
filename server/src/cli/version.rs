//! `tern version`.

use clap::Args;

use super::{Io, Outcome};
use crate::ops::Version;

/// Print the version and how it was built
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl VersionArgs {
    pub(super) fn run(self, io: Io<'_>) -> Outcome {
        let version = Version::of_this_build();
        if self.json {
            let line = serde_json::to_string(&version).expect("texts serialise without failing");
            writeln!(io.out, "{line}")?;
            return Ok(());
        }
        writeln!(io.out, "{} {}", version.name, version.version)?;
        let features = version.features.join(", ");
        let rows = [
            ("commit", version.commit),
            ("date", version.date.as_deref().unwrap_or_default()),
            ("compiler", version.rustc),
            ("target", version.target),
            ("profile", version.profile),
            ("features", &features),
            ("protocol", version.protocol),
        ];
        for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(io.out, "  {name:<9} {value}")?;
        }
        Ok(())
    }
}
