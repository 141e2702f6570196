//! The command line of `tern`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod chat;
mod config;
mod dev;
mod serve;
mod store;
mod token;

/// Exit code of a command that failed: the configuration, a file, a port, a bad argument.
const FAILED: u8 = 1;

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
    /// Mint, inspect and verify tokens
    Token(token::TokenCommand),
    /// Check a configuration
    Config(config::ConfigCommand),
    /// Look after the message store
    Store(store::StoreCommand),
    /// Print the version
    Version,
}

/// Runs a command to its end.
pub fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Dev(dev) => dev.run(),
        Command::Serve(serve) => serve.run(),
        Command::Chat(chat) => chat.run(),
        Command::Token(token) => token.run(),
        Command::Config(config) => config.run(),
        Command::Store(store) => store.run(),
        Command::Version => {
            println!("tern {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}
