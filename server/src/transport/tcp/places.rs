//! How many TCP connections clients may have together, so that some descriptors are left for the node itself.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::TransportConfig;
use crate::descriptors::Descriptors;
use crate::ops::metrics::Metrics;

/// The places for connections of all listeners of a node. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    metrics: Metrics,
}

impl Places {
    /// As many as configured, and no more than the descriptors allow.
    pub fn new(config: &TransportConfig, descriptors: Descriptors, metrics: Metrics) -> Self {
        let wanted = match config.tcp_connections_max {
            0 => usize::MAX,
            wanted => wanted,
        };
        let most = wanted.min(descriptors.connections()).min(Semaphore::MAX_PERMITS);
        metrics.sockets.tcp_max.set(most as f64);
        Self { free: Arc::new(Semaphore::new(most)), metrics }
    }

    /// Takes one until it is dropped. `None`: there is none; that is counted.
    pub(super) fn take(&self) -> Option<Place> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            self.metrics.sockets.refused_full.increment(1);
            return None;
        };
        self.metrics.sockets.tcp.increment(1.0);
        Some(Place { _permit: permit, metrics: self.metrics.clone() })
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.sockets.tcp.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(wanted: usize, limit: u64) -> Places {
        let config = TransportConfig { tcp_connections_max: wanted, ..TransportConfig::default() };
        Places::new(&config, Descriptors::of(limit), Metrics::none())
    }

    fn count(places: &Places) -> usize {
        std::iter::from_fn(|| places.take()).collect::<Vec<_>>().len()
    }

    #[test]
    fn there_are_as_many_places_as_configured_but_never_more_than_descriptors_allow() {
        assert_eq!(count(&places(3, 65_536)), 3);
        assert_eq!(count(&places(0, 120)), 60);
        assert_eq!(count(&places(100, 120)), 60);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let places = places(1, 65_536);
        let place = places.take().unwrap();
        assert!(places.take().is_none());
        drop(place);
        assert!(places.take().is_some());
    }
}
