//! Keeps the registry told of who is on this node, beside the sessions and never in their way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tern_protocol::UserId;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Held, Lease, Registry, RegistryError};
use crate::roster::{Edges, Roster};

/// Who comes and goes is told together for this long.
const BATCH: Duration = Duration::from_millis(50);
/// Users told in one round trip.
const PIPELINE: usize = 1_000;
/// A registry that has not answered after this time will not.
const CALL: Duration = Duration::from_millis(200);
/// Leases that may begin while everybody is told; with more the registry keeps nothing.
const LEASES_MAX: u32 = 2;
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that tells. Dropping it ends it at once.
pub struct Keeper {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Keeper {
    /// Tells of the sessions of `roster` from now on.
    pub fn start(registry: Arc<dyn Registry>, lease: Lease, roster: Roster) -> Self {
        let stop = CancellationToken::new();
        let keeping = Keeping { registry, lease, edges: roster.edges(), roster, untold: HashMap::default() };
        Self { task: tokio::spawn(keeping.run(stop.clone())), stop }
    }

    /// Tells the last and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeping {
    registry: Arc<dyn Registry>,
    lease: Lease,
    roster: Roster,
    edges: Edges,
    /// What is still to be told: whether the user is here.
    untold: HashMap<UserId, bool, RandomState>,
}

impl Keeping {
    async fn run(mut self, stop: CancellationToken) {
        let every = self.lease.lasts / 3;
        let mut failing_since = None;
        while !stop.is_cancelled() {
            let renew = match self.tell().await {
                Ok(()) => {
                    failing_since = None;
                    Instant::now() + every
                }
                Err(error) => {
                    let now = Instant::now();
                    let since = *failing_since.get_or_insert(now);
                    tracing::warn!(%error, "the registry is not told who is here");
                    if now >= since + self.lease.lasts {
                        // The lease has run out: all is told anew once it begins again.
                        self.edges.take();
                        self.untold = HashMap::default();
                    }
                    now + PAUSE
                }
            };
            let failing = failing_since.is_some();
            tokio::select! {
                () = self.edges.changed(), if !failing => {
                    tokio::select! { () = sleep(BATCH) => {} () = stop.cancelled() => {} }
                }
                () = sleep_until(renew) => {}
                () = stop.cancelled() => {}
            }
        }
        let _ = self.tell().await;
    }

    /// Renews the lease and tells everything that is not told.
    async fn tell(&mut self) -> Result<(), RegistryError> {
        let mut begun = 0;
        loop {
            let changes = self.edges.take().users.into_iter();
            self.untold.extend(changes.map(|(user, edge)| (user, edge.here)));
            let some: Vec<(UserId, bool)> =
                self.untold.iter().take(PIPELINE).map(|(user, here)| (user.clone(), *here)).collect();
            if self.call(&some).await? == Held::Anew {
                begun += 1;
                if begun > LEASES_MAX {
                    return Err(RegistryError("it forgets the lease at once".into()));
                }
                // Somebody who goes while this is read is told by the next edge.
                self.untold.extend(self.roster.users().into_iter().map(|user| (user, true)));
            }
            for (user, _) in &some {
                self.untold.remove(user);
            }
            if self.untold.is_empty() {
                return Ok(());
            }
        }
    }

    async fn call(&self, some: &[(UserId, bool)]) -> Result<Held, RegistryError> {
        let those = |wanted| some.iter().filter(move |(_, here)| *here == wanted);
        let users = |wanted| those(wanted).map(|(user, _)| user.clone()).collect::<Vec<_>>();
        let (came, went) = (users(true), users(false));
        match timeout(CALL, self.registry.keep(&self.lease, &came, &went)).await {
            Ok(held) => held,
            Err(_) => Err(RegistryError("it does not answer in time".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::super::{Nodes, contract};
    use super::*;
    use crate::registry::memory::MemoryRegistry;
    use crate::roster::SeatGuard;
    use crate::roster::tests::seat;

    const LASTS: Duration = Duration::from_secs(30);

    /// A registry that can be down, and counts its calls.
    #[derive(Default)]
    struct Moody {
        inner: MemoryRegistry,
        down: AtomicBool,
        calls: AtomicUsize,
        largest: AtomicUsize,
    }

    #[async_trait]
    impl Registry for Moody {
        async fn keep(&self, me: &Lease, came: &[UserId], went: &[UserId]) -> Result<Held, RegistryError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.largest.fetch_max(came.len() + went.len(), Ordering::Relaxed);
            if self.down.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.inner.keep(me, came, went).await
        }

        async fn locate(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
            self.inner.locate(users).await
        }
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    async fn is_found(registry: &Moody, name: &str) -> bool {
        !registry.locate(&[user(name)]).await.unwrap()[0].is_empty()
    }

    fn begin(roster: &Roster, session: u64, name: &str) -> SeatGuard {
        roster.begin(seat(session, name, "phone"), 20).guard
    }

    fn start(roster: &Roster) -> (Arc<Moody>, Keeper) {
        let registry = Arc::new(Moody::default());
        let keeper = Keeper::start(registry.clone(), contract::lease("a", 1, LASTS), roster.clone());
        (registry, keeper)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_and_the_last_session_of_a_user_are_told_and_no_other() {
        let roster = Roster::default();
        let early = begin(&roster, 1, "early");
        let (registry, keeper) = start(&roster);
        sleep(2 * BATCH).await;
        assert!(is_found(&registry, "early").await, "who was here before it began is told");
        let calls = registry.calls.load(Ordering::Relaxed);
        let sessions: Vec<SeatGuard> = (2..20).map(|number| begin(&roster, number, "alice")).collect();
        sleep(2 * BATCH).await;
        assert!(is_found(&registry, "alice").await);
        assert_eq!(registry.calls.load(Ordering::Relaxed), calls + 1, "together");
        drop(sessions);
        sleep(2 * BATCH).await;
        assert!(!is_found(&registry, "alice").await);
        drop(early);
        keeper.stop().await;
        assert!(!is_found(&registry, "early").await, "the last is told before it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_as_long_as_the_node_is_there() {
        let roster = Roster::default();
        let _alice = begin(&roster, 1, "alice");
        let (registry, keeper) = start(&roster);
        sleep(10 * LASTS).await;
        assert!(is_found(&registry, "alice").await);
        let calls = registry.calls.load(Ordering::Relaxed);
        assert!((30..40).contains(&calls), "{calls} calls in 300 s");
        drop(keeper);
        sleep(LASTS).await;
        assert!(!is_found(&registry, "alice").await);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_registry_was_down_everybody_is_told_again_in_bounded_pieces() {
        let roster = Roster::default();
        let (registry, keeper) = start(&roster);
        let early = begin(&roster, 1, "early");
        sleep(2 * BATCH).await;
        registry.down.store(true, Ordering::Relaxed);
        drop(early);
        let many: Vec<SeatGuard> =
            (2..2 * PIPELINE as u64).map(|number| begin(&roster, number, &format!("user{number}"))).collect();
        sleep(2 * LASTS).await;
        registry.down.store(false, Ordering::Relaxed);
        sleep(3 * PAUSE).await;
        assert!(!is_found(&registry, "early").await);
        for seat in &many {
            assert!(is_found(&registry, seat.seat().user.as_str()).await);
        }
        assert!(registry.largest.load(Ordering::Relaxed) <= PIPELINE);
        keeper.stop().await;
    }
}
