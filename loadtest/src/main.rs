//! Load generator and correctness oracle: plays real conversations against a server and judges
//! what every member received, and measures what a node can do and what it costs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod exit;
mod faults;
mod groups;
mod idle;
mod irc;
mod light;
mod node;
mod oracle;
mod plan;
mod process;
mod processor;
mod replay;
mod report;
mod server;
mod stamp;
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
    Bench(bench::Bench),
    Groups(groups::Groups),
    Idle(idle::Idle),
    /// The node of a run, started by the run itself
    #[command(name = node::SUBCOMMAND, hide = true)]
    Node(node::ServeNode),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Replay(replay) => replay.run(),
        Command::Bench(bench) => bench.run(),
        Command::Groups(groups) => groups.run(),
        Command::Idle(idle) => idle.run(),
        Command::Node(node) => node.run(),
    }
}
