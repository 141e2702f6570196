//! A node of the run's own, in a temporary directory and on a runtime of its own, so that the
//! load generator does not compete with it for the same workers' queues.

use std::thread::JoinHandle;

use anyhow::Context;
use tern::node::Ready;
use tern::node::dev::{DevOptions, start};
use tokio::sync::oneshot;

/// A replay is faster than people: these limits of a person are lifted. What the server does at
/// its limits has tests of its own.
const SETTINGS: [(&str, &str); 6] = [
    ("TERN__QUOTA__USER_SENDS_PER_SECOND", "100000"),
    ("TERN__QUOTA__USER_SENDS_BURST", "100000"),
    ("TERN__QUOTA__USER_FETCHES_PER_SECOND", "100000"),
    ("TERN__QUOTA__USER_FETCHES_BURST", "100000"),
    ("TERN__QUOTA__CONNECTION_FRAMES_PER_SECOND", "100000"),
    ("TERN__QUOTA__CONNECTION_FRAMES_BURST", "100000"),
];

/// A running node. Dropping it stops the node and waits for it; its data goes with it.
pub(crate) struct OwnNode {
    ready: Ready,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Last: the directory outlives the node.
    _data: tempfile::TempDir,
}

impl OwnNode {
    /// Starts a node on free ports of the loopback interface.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let data = tempfile::tempdir().context("a temporary directory for the node")?;
        let data_dir = data.path().to_owned();
        let (started, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(anyhow::Error::from(error)))),
            };
            runtime.block_on(async {
                let options = DevOptions { data_dir, port: 0, http_port: 0, ops_port: 0 };
                let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
                match start(&options, settings).await {
                    Err(error) => drop(started.send(Err(error.into()))),
                    Ok(node) => {
                        // Whoever asked is gone: `stopped` ends at once too.
                        let _ = started.send(Ok(node.ready().clone()));
                        let _ = stopped.await;
                        node.shutdown().await;
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("own-node".into()).spawn(run)?;
        let ready = ready.blocking_recv().context("the node's thread ended")?.context("the node")?;
        Ok(Self { ready, stop: Some(stop), thread: Some(thread), _data: data })
    }

    /// Where it is.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the node was printed by its thread.
            let _ = thread.join();
        }
    }
}
