//! Going away in order: running, draining until a deadline, stopped.

use std::future::Future;
use std::time::Duration;

mod leaving;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub use leaving::Leaving;

/// Exit code of a process that was interrupted twice: 128 + SIGINT.
pub const EXIT_INTERRUPTED: i32 = 130;
/// After its sessions have ended, a node gives what it still owes the store at most this long; then the process
/// ends as it is, as after a crash.
pub const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Tasks that were told to stop get this long to write their last frame.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// The `[drain]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// Sessions that are still there after this time are closed, in milliseconds, and none before it. The
    /// process ends within 3 s more, and 10 s more than that if the store is slow. Whoever stops it must give
    /// it so long: systemd by TimeoutStopSec, Kubernetes by terminationGracePeriodSeconds, Docker by
    /// `--stop-timeout` (10 s if it is not told, for which 6000 is right).
    pub deadline_ms: u32,
    /// Clients are asked to leave at random times within this many milliseconds. The last of them needs time
    /// to move: 2 s of the deadline, or a quarter of a short one.
    pub spread_ms: u32,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { deadline_ms: 30_000, spread_ms: 10_000 }
    }
}

impl DrainConfig {
    /// Relations between the settings.
    pub fn check(&self) -> Result<(), DrainConfigError> {
        let spread_ms_max = (self.deadline() - leaving::time_to_move(self.deadline())).as_millis() as u32;
        if self.spread_ms > spread_ms_max {
            let Self { spread_ms, deadline_ms } = *self;
            return Err(DrainConfigError { spread_ms, deadline_ms, spread_ms_max });
        }
        Ok(())
    }

    /// How long clients have.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }

    /// Within which time they are asked to leave.
    pub fn spread(&self) -> Duration {
        Duration::from_millis(self.spread_ms.into())
    }
}

/// Clients would be closed before they could move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "drain.spread_ms = {spread_ms} leaves the last client no time to move: with drain.deadline_ms = \
     {deadline_ms} it is at most {spread_ms_max}"
)]
pub struct DrainConfigError {
    /// The spread.
    pub spread_ms: u32,
    /// The deadline.
    pub deadline_ms: u32,
    /// The longest spread for this deadline.
    pub spread_ms_max: u32,
}

/// Where the node is in its life. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything is taken.
    Running,
    /// Nothing new is taken; what is there moves away.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// The node's way out, shared by all its parts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    tasks: TaskTracker,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Running.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Running), tasks: TaskTracker::new() }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Begins the drain; later calls change nothing.
    pub fn drain(&self) {
        self.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Draining;
            }
            running
        });
    }

    /// Ends everything now.
    pub fn stop(&self) {
        self.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Stopped) != Phase::Stopped);
    }

    /// Waits until the node drains or stops.
    pub async fn draining(&self) {
        self.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Waits until everything has to end.
    pub async fn stopped(&self) {
        self.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    async fn wait_for(&self, wanted: impl FnMut(&Phase) -> bool) {
        let mut phases = self.phase.subscribe();
        phases.wait_for(wanted).await.expect("self holds the sender");
    }

    /// Runs a task that the drain waits for. It must end soon after [`Shutdown::stopped`].
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for the drain to begin, then until all tasks have ended or are to stop. True if all tasks
    /// have ended.
    pub async fn finished(&self) -> bool {
        self.draining().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.stopped() => {}
        }
        self.stop();
        tokio::time::timeout(STOP_GRACE, self.tasks.wait()).await.is_ok()
    }
}

/// Signals that ask the process to end.
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes SIGTERM and SIGINT (elsewhere Ctrl-C) over from the system.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate())?;
            let interrupt = signal(SignalKind::interrupt())?;
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The first signal begins the drain, the second ends the process at once. Never returns.
    pub async fn obey(mut self, shutdown: Shutdown) {
        obey(async || self.next().await, shutdown, |code| std::process::exit(code)).await;
    }
}

/// SIGHUP, which asks to read the configuration again.
pub struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Takes SIGHUP over from the system, where there is one.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { hangup: signal(SignalKind::hangup())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

async fn obey(mut signal: impl AsyncFnMut(), shutdown: Shutdown, exit: impl FnOnce(i32)) {
    signal().await;
    tracing::info!("draining; a second signal exits at once");
    shutdown.drain();
    signal().await;
    tracing::warn!("second signal: exiting without waiting");
    exit(EXIT_INTERRUPTED);
}

#[cfg(test)]
mod tests;
