//! x
#[derive(Debug, clap::Args)] pub(super) struct ConfigCommand {} impl ConfigCommand { pub(super) fn run(self) -> anyhow::Result<std::process::ExitCode> { panic!() } }
