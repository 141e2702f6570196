//! The subcommands of `tern` that run without a server: their arguments and what they do.
//!
//! Results go to standard output, what went wrong to standard error. Exit codes: 0 all is well,
//! 1 the configuration, an argument or a token is not good, 2 it is good but this machine is not ready.

use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitCode;

pub mod config;
pub mod preflight;
pub mod token;

/// Where a command reads and writes.
pub struct Io<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub out: &'a mut dyn Write,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Configuration, arguments or token are not good: exit code 1.
    Config(String),
    /// They are good, but something on this machine is in the way: exit code 2.
    Preflight(String),
}

/// What a command comes to.
pub type Outcome = Result<(), Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Preflight(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Preflight(error.to_string())
    }
}

impl Failure {
    /// A failure of exit code 1 that says what an error says.
    pub fn config(error: impl fmt::Display) -> Self {
        Self::Config(error.to_string())
    }

    /// Its exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 1,
            Self::Preflight(_) => 2,
        }
    }
}

/// Runs a command on the standard streams and says on standard error why it failed.
pub fn run(command: impl FnOnce(Io<'_>) -> Outcome) -> ExitCode {
    match command(Io { input: &mut io::stdin().lock(), out: &mut io::stdout().lock() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
