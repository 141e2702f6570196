//! `tern log`: what a running node logs.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::operator::Operator;

/// Longest wait for the answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// See and change what a running node logs
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print the filter in force
    Get,
    /// Put a filter over the configured one, until a reset or the next start
    Set {
        /// A level, or levels by module, such as tern::session=debug
        filter: String,
    },
    /// Go back to what is configured
    Reset,
}

impl LogArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (method, body) = match self.command {
            LogCommand::Get => (Method::GET, String::new()),
            LogCommand::Set { filter } => (Method::PUT, filter),
            LogCommand::Reset => (Method::DELETE, String::new()),
        };
        print!("{}", self.operator.ask(method, "/log", body, ANSWER_TIME)?);
        Ok(ExitCode::SUCCESS)
    }
}
