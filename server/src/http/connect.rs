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
use crate::ops::turned_away;
use crate::session::Gateway;
use crate::transport::websocket::{self, UpgradeError};
use crate::transport::{TransportConfig, TrustedProxies};

/// Where WebSockets come in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) gateway: Gateway,
    pub(super) shutdown: Shutdown,
    pub(super) transport: Arc<TransportConfig>,
    pub(super) proxies: Arc<TrustedProxies>,
}

/// Opens a WebSocket.
///
/// The protocol on it is another document. The token goes into its first frame, never into the URL.
#[utoipa::path(
    get, path = "/v1/connect", operation_id = "connect",
    responses(
        (status = 101, description = "A WebSocket"),
        (status = 403, response = Problem), (status = 426, response = Problem),
        (status = 505, response = Problem),
    )
)]
pub(super) async fn connect(
    State(Entrance { gateway, shutdown, transport, proxies }): State<Entrance>,
    Extension(peer): Extension<SocketAddr>,
    mut request: Request,
) -> Result<Response, Response> {
    if request.version() > Version::HTTP_11 {
        let detail = "WebSocket is spoken over HTTP/1.1 here; offer http/1.1 in ALPN";
        let problem = Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "http_version", detail);
        return Err(problem.into_response());
    }
    let client = proxies.client(peer.ip().to_canonical(), request.headers());
    let negotiated = websocket::negotiate(request.uri(), request.headers(), &transport).map_err(|error| {
        turned_away("websocket", client, &error);
        refuse(&error)
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let remote = SocketAddr::new(client, peer.port());
    let owner = shutdown.clone();
    let (format, headers) = (negotiated.format, negotiated.response_headers());
    shutdown.spawn(async move {
        // The peer may hang up before the answer has left.
        let Ok(upgraded) = upgrade.await else { return };
        let link = websocket::from_upgraded(TokioIo::new(upgraded), format, &transport, remote).await;
        // A task of its own: what the upgrade needed is not kept.
        owner.spawn(gateway.serve(Box::new(link)));
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
