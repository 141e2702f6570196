//! Harness of the behaviour suites: real servers, and clients that know only the wire protocol.
//!
//! Waits have a deadline only so that a hung test ends; timing never decides a test.

use std::future::Future;
use std::time::Duration;

mod caught;
pub mod chromium;
mod client;
mod deployment;
mod hang;
pub mod http;
pub mod http3;
pub mod page;
mod quic;
mod server;
mod tls;
pub mod token;
mod websocket;

pub use caught::Caught;
pub use client::{
    Ended, RawClient, Synced, Wire, fresh, message, newest, pair, positions, seqs, text, to, user,
};
pub use deployment::{Deployment, TokenKey};
pub use hang::{HANG, until, within};
pub use quic::{Arrival, Channel, QuicLink};
pub use server::{DEV_USERS, Exit, Options, Ready, Server, binary, loose};
pub use websocket::{Subprotocol, WebSocketLink};

/// Most time of one test with several steps.
const TEST_TIME: Duration = Duration::from_secs(120);

/// Ends a test that hangs; used by [`for_each_wire`].
pub async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIME, test).await.expect("the test hangs");
}

/// Runs the same test over QUIC, WebTransport, WebSocket with binary frames and WebSocket with JSON,
/// as four tests named `<name>::quic` and so on.
#[macro_export]
macro_rules! for_each_wire {
    ($($(#[$doc:meta])* async fn $name:ident($wire:ident: $kind:ty) $body:block)*) => {
        $($(#[$doc])* mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn test($wire: $kind) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn quic() {
                $crate::bounded(test($crate::Wire::Quic)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn webtransport() {
                $crate::bounded(test($crate::Wire::WebTransport)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn websocket_binary() {
                $crate::bounded(test($crate::Wire::WebSocketBinary)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn websocket_json() {
                $crate::bounded(test($crate::Wire::WebSocketJson)).await;
            }
        })*
    };
}
