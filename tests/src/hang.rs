//! Deadlines that end a hung test and decide nothing else.

use std::future::Future;
use std::time::{Duration, Instant};

/// Nothing on one machine takes this long, except a hang.
pub const HANG: Duration = Duration::from_secs(30);
/// Pause between two looks at something that cannot be waited for.
const LOOK: Duration = Duration::from_millis(10);

/// The outcome of something that must happen soon.
///
/// # Panics
/// After [`HANG`].
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(HANG, future).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("{place}: waited in vain for {what}"),
        }
    }
}

/// Looks again and again until `look` finds something.
///
/// # Panics
/// After [`HANG`].
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(start.elapsed() < HANG, "{place}: waited in vain for {what}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
