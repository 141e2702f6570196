//! A node of the run's own: this program once more, as a child process on loopback ports, with its
//! data in a temporary directory. It has its own memory and processor time, which can be read, and
//! it ends and cleans up when the run does, however the run ends: it waits for the end of its
//! standard input.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use tern::node::Ready;
use tern::node::dev::{DevOptions, start};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Name of the hidden subcommand that is the node.
pub(crate) const SUBCOMMAND: &str = "node";
/// How long a node may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to end, its drain included; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// How often it is asked whether the node has ended.
const END_POLL: Duration = Duration::from_millis(10);

/// A generator is faster than people: these limits of a person are lifted. What the server does at
/// its limits has tests of its own.
const SETTINGS: [(&str, &str); 6] = [
    ("TERN__QUOTA__USER_SENDS_PER_SECOND", "100000"),
    ("TERN__QUOTA__USER_SENDS_BURST", "100000"),
    ("TERN__QUOTA__USER_FETCHES_PER_SECOND", "100000"),
    ("TERN__QUOTA__USER_FETCHES_BURST", "100000"),
    ("TERN__QUOTA__CONNECTION_FRAMES_PER_SECOND", "100000"),
    ("TERN__QUOTA__CONNECTION_FRAMES_BURST", "100000"),
];

/// What a node says on its standard output once clients can connect.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    data_dir: PathBuf,
    ready: Ready,
}

/// A running node. Dropping it ends the node and waits for it; its data goes with it.
pub(crate) struct OwnNode {
    started: Started,
    process: Process,
}

impl OwnNode {
    /// Starts a node on free ports of the loopback interface, with its data in a directory of its
    /// own below `parent`.
    pub(crate) fn start(parent: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the node's process")?;
        let output = child.stdout.take().context("the node's output")?;
        let process = Process { input: child.stdin.take(), child };
        let (told, line) = mpsc::channel();
        std::thread::Builder::new().name("node-output".into()).spawn(move || {
            let mut text = String::new();
            let read = BufReader::new(output).read_line(&mut text);
            // Refused if the run gave up waiting.
            let _ = told.send(read.map(|_| text));
        })?;
        let text = line.recv_timeout(READY_TIMEOUT).context("the node is not ready in time")??;
        anyhow::ensure!(!text.is_empty(), "the node did not start");
        let started = serde_json::from_str(&text).context("what the node says of itself")?;
        Ok(Self { started, process })
    }

    /// Where it is.
    pub(crate) fn ready(&self) -> &Ready {
        &self.started.ready
    }

    /// Where its data is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.started.data_dir
    }

    /// Number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

/// The child process; ended when dropped.
struct Process {
    child: Child,
    /// Closing it tells the node to end.
    input: Option<ChildStdin>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(END_POLL);
        }
        // It does not end by itself. If it cannot be killed either, nothing more can be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child process is told.
#[derive(Debug, Args)]
pub(crate) struct ServeNode {
    /// Directory below which the node makes its own
    parent: PathBuf,
}

impl ServeNode {
    /// Is the node, until standard input ends.
    pub(crate) fn run(self) -> ExitCode {
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tern-loadtest: the node: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(&self) -> anyhow::Result<()> {
        let data = tempfile::Builder::new().prefix("tern-loadtest-").tempdir_in(&self.parent);
        let data = data.with_context(|| format!("a directory in {}", self.parent.display()))?;
        let data_dir = data.path().to_owned();
        let ended = end_of_input()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            // Ctrl-C reaches both processes: this one goes on until the run has ended, and cleans up.
            let _interrupts = signal(SignalKind::interrupt())?;
            let options = DevOptions { data_dir: data_dir.clone(), port: 0, http_port: 0, ops_port: 0 };
            let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let node = start(&options, settings).await?;
            let started = Started { data_dir, ready: node.ready().clone() };
            let mut output = std::io::stdout();
            writeln!(output, "{}", serde_json::to_string(&started)?)?;
            output.flush()?;
            // An error means the same: nobody holds the other end.
            let _ = ended.await;
            node.shutdown().await;
            Ok(())
        })
    }
}

/// Resolves when standard input ends.
fn end_of_input() -> anyhow::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("node-input".into()).spawn(move || {
        let mut scratch = [0; 64];
        while !matches!(std::io::stdin().read(&mut scratch), Ok(0) | Err(_)) {}
        // Refused if the node has failed meanwhile.
        let _ = ended.send(());
    })?;
    Ok(end)
}
