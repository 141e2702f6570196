//! `GET /v1/connect`: a WebSocket handshake becomes a link.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use super::Problem;
use crate::session::Gateway;
use crate::transport::websocket::{UpgradeError, UpgradePolicy, WebSocketLink, negotiate};
use crate::transport::{Link, TransportConfig};

/// What the endpoint works with.
#[derive(Clone)]
pub struct Connect {
    /// Serves the link.
    pub gateway: Gateway,
    /// Who may connect.
    pub policy: UpgradePolicy,
    /// Settings of the link.
    pub config: TransportConfig,
    /// Owns the sessions.
    pub tasks: TaskTracker,
}
