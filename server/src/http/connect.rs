//! `GET /v1/connect`: a WebSocket handshake becomes a link, and the link a session.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Version};
use hyper_util::rt::TokioIo;

use super::Problem;
use crate::drain::Shutdown;
use crate::session::Gateway;
use crate::transport::TransportConfig;
use crate::transport::websocket::{self, UpgradeError};

/// What the endpoint works with.
#[derive(Clone)]
pub struct Connect {
    /// Serves the link.
    pub gateway: Gateway,
    /// Who may connect, and the settings of the link.
    pub config: Arc<TransportConfig>,
    /// Owns the sessions.
    pub shutdown: Shutdown,
}

/// Handles the request.
pub(super) async fn connect(
    State(connect): State<Connect>,
    Extension(remote): Extension<SocketAddr>,
    mut request: Request,
) -> Result<Response, Response> {
    if request.version() > Version::HTTP_11 {
        let detail = "WebSocket is spoken over HTTP/1.1 here; offer http/1.1 in ALPN";
        let problem = Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "http_version", detail);
        return Err(problem.into_response());
    }
    let negotiated = websocket::negotiate(request.uri(), request.headers(), &connect.config)
        .map_err(|error| refuse(&error))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let Connect { gateway, config, shutdown } = connect;
    let (format, headers) = (negotiated.format, negotiated.response_headers());
    shutdown.clone().spawn(async move {
        // The peer may hang up before the answer has left.
        let Ok(upgraded) = upgrade.await else { return };
        let link = websocket::from_upgraded(TokioIo::new(upgraded), format, &config, remote).await;
        gateway.serve(link).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

fn refuse(error: &UpgradeError) -> Response {
    let mut response = Problem::new(error.status(), "no_websocket", error.to_string()).into_response();
    response.headers_mut().extend(error.headers());
    response
}
