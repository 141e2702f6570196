//! Going away in order: running, draining until a deadline, stopped.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Exit code of a process that was interrupted twice: 128 + SIGINT.
pub const EXIT_INTERRUPTED: i32 = 130;
/// Tasks that were told to stop get this long to write their last frame.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// The `[drain]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// Sessions that are still there after this time are closed, in milliseconds.
    pub deadline_ms: u32,
    /// Clients are asked to leave at random times within this many milliseconds. At most the deadline.
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
        if self.spread_ms > self.deadline_ms {
            return Err(DrainConfigError { spread_ms: self.spread_ms, deadline_ms: self.deadline_ms });
        }
        Ok(())
    }

    /// How long a drain may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }
}

/// Clients would be closed before they were asked to leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("drain.spread_ms = {spread_ms} is longer than drain.deadline_ms = {deadline_ms}")]
pub struct DrainConfigError {
    /// The spread.
    pub spread_ms: u32,
    /// The deadline.
    pub deadline_ms: u32,
}

/// Where the node is in its life. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything is taken.
    Running,
    /// Nothing new is taken; what is there moves away until the deadline.
    Draining {
        /// When it ends.
        deadline: Instant,
    },
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
    pub fn drain(&self, time: Duration) {
        let deadline = Instant::now() + time;
        self.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Draining { deadline };
            }
            running
        });
    }

    /// Ends everything now.
    pub fn stop(&self) {
        self.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Stopped) != Phase::Stopped);
    }

    /// Waits until the node drains or stops; gives the time at which everything ends.
    pub async fn draining(&self) -> Instant {
        match self.wait_for(|phase| *phase != Phase::Running).await {
            Phase::Draining { deadline } => deadline,
            Phase::Running | Phase::Stopped => Instant::now(),
        }
    }

    /// Waits until everything has to end.
    pub async fn stopped(&self) {
        self.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    async fn wait_for(&self, wanted: impl FnMut(&Phase) -> bool) -> Phase {
        let mut phases = self.phase.subscribe();
        *phases.wait_for(wanted).await.expect("self holds the sender")
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

    /// Waits for the drain to begin, then until all tasks have ended or the deadline has passed; then
    /// stops. True if all tasks have ended.
    pub async fn finished(&self) -> bool {
        let deadline = self.draining().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = tokio::time::sleep_until(deadline) => {}
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
    pub async fn obey(mut self, shutdown: Shutdown, drain_time: Duration) {
        obey(async || self.next().await, shutdown, drain_time, |code| std::process::exit(code)).await;
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

async fn obey(
    mut signal: impl AsyncFnMut(),
    shutdown: Shutdown,
    drain_time: Duration,
    exit: impl FnOnce(i32),
) {
    signal().await;
    let deadline_ms = drain_time.as_millis() as u64;
    tracing::info!(deadline_ms, "draining; a second signal exits at once");
    shutdown.drain(drain_time);
    signal().await;
    tracing::warn!("second signal: exiting without waiting");
    exit(EXIT_INTERRUPTED);
}

#[cfg(test)]
mod tests;
