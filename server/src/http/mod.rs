//! The HTTP surface: the WebSocket endpoint and history, on HTTP/1.1, HTTP/2 and HTTP/3.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Extension;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::time::Duration;
use tern_protocol::CONNECT_PATH;
use tokio::io::{AsyncRead, AsyncWrite};

mod connect;
mod history;
pub mod http3;
mod problem;
mod request_id;

pub use connect::Connect;
pub use history::HistoryApi;
pub use problem::Problem;

/// Headers must be complete within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of request headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most request headers.
const HEADERS_MAX: usize = 100;
/// Most requests at a time on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 32;

/// All routes for clients.
pub fn router(connect: Connect, history: HistoryApi) -> Router {
    Router::new()
        .route("/", get(welcome))
        .route(CONNECT_PATH, get(connect::connect).with_state(connect))
        .route("/v1/history/{conv_id}", get(history::history).with_state(history))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes GET only")
        })
        .layer(axum::middleware::from_fn(request_id::name))
}

async fn welcome() -> impl IntoResponse {
    concat!("tern ", env!("CARGO_PKG_VERSION"), "\nWebSocket: /v1/connect\nHistory: /v1/history/{conv_id}\n")
}

/// Serves one connection until it ends or is upgraded.
pub async fn serve<S>(io: S, remote: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(remote)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .keep_alive_interval(Some(HEADER_TIMEOUT))
        .keep_alive_timeout(HEADER_TIMEOUT);
    // What goes wrong here is the peer's affair: a reset, garbage, a timeout.
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(io), service).await {
        tracing::trace!(%remote, %error, "HTTP connection ended");
    }
}
