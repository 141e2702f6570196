//! x
#[derive(Debug, clap::Args)] pub(super) struct TokenCommand {} impl TokenCommand { pub(super) fn run(self) -> anyhow::Result<std::process::ExitCode> { panic!() } }
