//! `tern ready`: for health checks of containers and scripts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::operator::Operator;

/// Longest wait for the answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Ask a running node whether it takes traffic; exit code 1 if not
#[derive(Debug, Args)]
pub(super) struct ReadyArgs {
    #[command(flatten)]
    operator: Operator,
}

impl ReadyArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        println!("{}", self.operator.ask(Method::GET, "/readyz", String::new(), ANSWER_TIME)?.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
