//! Load generator and correctness oracle: plays real conversations against a server and judges
//! what every member received.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod command;
mod irc;
mod node;
mod oracle;
mod plan;
mod replay;
mod report;
mod target;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "tern-loadtest", version, about = "Load generator and correctness oracle for Tern")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(command::Replay),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Replay(replay) => replay.run(),
    }
}
