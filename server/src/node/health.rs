//! Asks the backends now and then whether they work, and keeps `/readyz` up to date with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::events::Events;
use crate::ops::{Check, Readiness};
use crate::store::Store;

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(5);
/// A backend that takes longer to answer does not work.
const ANSWER: Duration = Duration::from_secs(2);

/// The task that asks. Dropping it ends it, and takes its checks out of the report.
pub(super) struct Health(JoinHandle<()>);

impl Drop for Health {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Health {
    /// Asks these. Both have just been opened, so they work.
    pub(super) fn start(readiness: &Readiness, store: Arc<dyn Store>, events: Arc<dyn Events>) -> Self {
        let store_check = readiness.check("store");
        // Messages go on without it, and what is to leave waits in the store.
        let events_check = readiness.notice("events");
        // What is damaged is left out, and the rest goes on.
        let data_check = readiness.notice("data");
        data_check.ready();
        store_check.ready();
        events_check.ready();
        Self(tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                tell(&store_check, store.health()).await;
                if let Some(damage) = store.damage() {
                    data_check.down(damage);
                }
                tell(&events_check, events.health()).await;
            }
        }))
    }
}

async fn tell<E: std::fmt::Display>(check: &Check, health: impl Future<Output = Result<(), E>>) {
    match timeout(ANSWER, health).await {
        Ok(Ok(())) => check.ready(),
        Ok(Err(error)) => check.down(error.to_string()),
        Err(_) => check.down(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::events::{EventsError, PushEvent};
    use crate::store::memory::MemoryStore;
    use crate::store::shaky::{Call, Shaky};

    #[derive(Default)]
    struct Door(AtomicBool);

    #[async_trait]
    impl Events for Door {
        async fn publish(&self, _: &[PushEvent]) -> Result<(), EventsError> {
            Ok(())
        }

        async fn health(&self) -> Result<(), EventsError> {
            match self.0.load(Ordering::SeqCst) {
                true => Err(EventsError("shut".into())),
                false => Ok(()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_names_the_backend_that_fails_and_when_it_is_back() {
        let (readiness, door) = (Readiness::default(), Arc::new(Door::default()));
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let health = Health::start(&readiness, shaky.clone(), door.clone());
        let later = async || {
            sleep(EVERY + ANSWER * 2).await;
            readiness.report()
        };
        assert!(later().await.ready);
        door.0.store(true, Ordering::SeqCst);
        let report = later().await;
        assert!(report.ready, "messages go on without events");
        assert!(report.checks["events"].contains("shut"), "{report:?}");
        door.0.store(false, Ordering::SeqCst);
        shaky.fail(Call::Health, usize::MAX);
        let report = later().await;
        assert!(!report.ready && report.checks["store"].contains("broken"), "{report:?}");
        shaky.fail(Call::Health, 0);
        shaky.slow_reads(ANSWER * 2);
        assert!(later().await.checks["store"].contains("no answer"));
        shaky.slow_reads(Duration::ZERO);
        assert!(later().await.ready);
        drop(health);
    }
}
