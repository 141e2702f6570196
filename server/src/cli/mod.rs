//! The command line of `tern`.
//!
//! Results go to standard output, what went wrong to standard error. Exit codes: 0 all is well,
//! 1 the configuration, an argument or a token is not good, 2 it is good but this machine is not ready.

use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod causes;
mod chat;
pub mod config;
mod dangers;
mod dev;
mod doctor;
mod environment;
mod log;
mod notify;
mod operator;
pub mod preflight;
mod ready;
mod serve;
mod sessions;
mod store;
pub mod token;
mod version;

/// Self-hosted real-time chat backend.
#[derive(Debug, Parser)]
#[command(name = "tern", version, about, propagate_version = true)]
#[command(after_help = "Start here: `tern dev`, then in a second terminal `tern chat --as bob --to alice`.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node for development: everything embedded, on loopback, with two users
    Dev(dev::Dev),
    /// Run a node by a configuration file
    Serve(serve::Serve),
    /// Chat from the terminal
    Chat(chat::Chat),
    /// Mint, inspect, verify and revoke tokens
    Token(token::TokenArgs),
    /// See and close sessions of a user
    Sessions(sessions::SessionsArgs),
    /// Check a configuration, or explain every key
    Config(config::ConfigArgs),
    /// Check everything around a node, and say what to do
    Doctor(doctor::Doctor),
    /// Look after the message store
    Store(store::StoreArgs),
    /// Ask a running node whether it takes traffic
    Ready(ready::ReadyArgs),
    /// See and change what a running node logs
    Log(log::LogArgs),
    /// Print the version and how it was built
    Version(version::VersionArgs),
}

/// Runs a command to its end.
pub fn run(arguments: Arguments) -> ExitCode {
    // Whatever is written, by us or by a library: messages, secrets and copies of both are its owner's.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match arguments.command {
        Command::Dev(dev) => report(dev.run()),
        Command::Serve(serve) => report(serve.run()),
        Command::Chat(chat) => report(chat.run()),
        Command::Token(token) => {
            on_streams(|io| token.run(io, environment::variables(), std::time::SystemTime::now()))
        }
        Command::Sessions(sessions) => on_streams(|io| sessions.run(io)),
        Command::Config(config) => on_streams(|io| config.run(io, environment::variables())),
        Command::Doctor(doctor) => on_streams(|io| doctor.run(io, environment::variables())),
        Command::Store(store) => report(store.run()),
        Command::Ready(ready) => report(ready.run()),
        Command::Log(log) => report(log.run()),
        Command::Version(version) => on_streams(|io| version.run(io)),
    }
}

fn report(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        eprintln!("error: {}", causes::told(&error));
        ExitCode::from(1)
    })
}

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
fn on_streams(command: impl FnOnce(Io<'_>) -> Outcome) -> ExitCode {
    match command(Io { input: &mut io::stdin().lock(), out: &mut io::stdout().lock() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
