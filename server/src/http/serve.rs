//! Serves HTTP/1.1 and HTTP/2 on a connection, for as long as it asks something and takes the answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

mod calm;
mod frames;
mod watch;
mod watched;

use super::answers::Answers;
use crate::budget::Budget;
use crate::drain::Shutdown;
use crate::ops::metrics::Metrics;
use crate::transport::TransportConfig;
use watch::{Fault, Patience, Watch};
use watched::Watched;

/// Most bytes of request headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most request headers.
const HEADERS_MAX: usize = 100;
/// Most requests at a time on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 16;
/// Most bytes of one body that an HTTP/2 client may have under way, and of all on a connection.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 128 * 1024;
/// Bytes of an answer that the HTTP/2 library takes before the client has room for them.
const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Requests of one HTTP/2 connection that may be malformed before it is closed.
const H2_MALFORMED_MAX: usize = 64;

/// Serves the connections of a listener. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    router: Router,
    config: Arc<TransportConfig>,
    metrics: Metrics,
    memory: Budget,
    shutdown: Shutdown,
}

impl Server {
    /// Requests go to `router`; the limits are those of `config`, and answers are charged to `memory`.
    pub fn new(
        router: Router,
        config: Arc<TransportConfig>,
        metrics: Metrics,
        memory: Budget,
        shutdown: Shutdown,
    ) -> Self {
        Self { router, config, metrics, memory, shutdown }
    }

    /// Serves one connection until it ends or is upgraded. In a drain, what was asked is still answered.
    pub async fn serve<S>(self, io: S, remote: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, config, metrics, memory, shutdown } = self;
        let patience = Patience {
            begin: config.request_head_timeout(),
            answer: config.answer_timeout(),
            idle: config.http_idle_timeout(),
        };
        let watch = Arc::new(Mutex::new(Watch::new(patience, Instant::now())));
        let answers = Answers::new(config.http_answers_max, memory);
        let service = service_fn(move |request| answer(router.clone(), answers.clone(), remote, request));
        let builder = builder(config.request_head_timeout());
        let io = TokioIo::new(Watched::new(io, watch.clone()));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let first = Instant::now() + patience.begin.min(patience.answer).min(patience.idle);
        let mut alarm = pin!(sleep_until(first));
        let mut draining = pin!(shutdown.draining());
        let mut drains = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = &mut draining, if !drains => {
                    drains = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = shutdown.stopped(), if drains => return,
                () = &mut alarm => {
                    let looked = watch.lock().look(Instant::now());
                    match looked {
                        Ok(next) => alarm.as_mut().reset(next),
                        // Asked once more, it says why, if there is somebody to whom that can be said.
                        Err(_) => break timeout(Duration::ZERO, connection).await.unwrap_or(Ok(())),
                    }
                }
            }
        };
        if let Some(fault) = watch.lock().fault() {
            count(&metrics, fault);
            tracing::debug!(%remote, reason = fault.reason(), "HTTP connection cut");
        }
        // What goes wrong here is the peer's affair: a reset, garbage, a timeout.
        if let Err(error) = ended {
            tracing::trace!(%remote, %error, "HTTP connection ended");
        }
    }
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(H2_MALFORMED_MAX)
        .keep_alive_interval(Some(header_timeout))
        .keep_alive_timeout(header_timeout);
    builder
}

async fn answer(
    router: Router,
    answers: Answers,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let turn = answers.turn().await;
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(remote);
    let Ok(response) = router.oneshot(request).await;
    Ok(turn.hold(response))
}

fn count(metrics: &Metrics, fault: Fault) {
    let sockets = &metrics.sockets;
    match fault {
        Fault::Silent => &sockets.cut_silent,
        Fault::Unread => &sockets.cut_unread,
        Fault::Flood => &sockets.cut_flood,
    }
    .increment(1);
}

#[cfg(test)]
mod tests;
