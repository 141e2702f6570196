//! The thread that notices what no message would tell in time: a database that can no longer write its tables,
//! and a disk that fills up.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::Disk;
use super::manifests::Manifests;
use super::space::mib;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// What the thread looks at.
pub(super) struct Watched {
    pub(super) disk: Disk,
    pub(super) manifests: Arc<Manifests>,
    /// Bytes that are free on the disk; `None` if that cannot be told.
    pub(super) free: Box<dyn Fn() -> Option<u64> + Send>,
    /// Below so many free bytes no message is taken.
    pub(super) floor: u64,
    /// Called with the reason once the database is broken.
    pub(super) fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

/// The running thread. Dropping it ends it.
pub(super) struct Watch {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks once before it returns, and then until it is dropped.
    pub(super) fn start(watched: Watched) -> io::Result<Self> {
        watched.look_at_room();
        let (stop, stopped) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-watch".into()).spawn(move || {
            let mut told = false;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                watched.note_tables(&mut told);
                if let Err(error) = watched.disk.alive() {
                    return (watched.fatal)(&error.to_string());
                }
                watched.look_at_room();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panics are reported by itself
        }
    }
}

impl Watched {
    /// What is not noted is read as a whole at the next start, so a failure costs only time.
    fn note_tables(&self, told: &mut bool) {
        match self.manifests.note() {
            Err(error) if !*told => {
                *told = true;
                tracing::warn!(%error, "cannot note which tables there are");
            }
            Err(_) => {}
            Ok(()) => *told = false,
        }
    }

    fn look_at_room(&self) {
        let Some(free) = (self.free)() else { return };
        if self.disk.room.look(free, self.floor) {
            match self.disk.room.check() {
                Err(error) => tracing::error!(%error, "no message is taken until there is room again"),
                Ok(()) => tracing::info!(free_mib = mib(free), "there is room again; messages are taken"),
            }
        }
    }
}
