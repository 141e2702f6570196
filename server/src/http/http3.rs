//! One HTTP/3 connection: requests go to the routes, WebTransport sessions to the gateway.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::ServiceExt;

use super::Problem;
use super::answers::{Answers, Turn};
use crate::budget::Budget;
use crate::drain::Shutdown;
use crate::ops::turned_away;
use crate::session::Gateway;
use crate::transport::TransportConfig;
use crate::transport::http3::{BodyReader, Exchange, Http3Connection, HttpRequest, Resolved};
use crate::transport::webtransport;

/// Headers that belong to a connection and may not be sent in HTTP/3 (RFC 9114, section 4.2).
const CONNECTION_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Serves a connection until it ends; in a drain, until its last session has. Answers are charged to `memory`.
pub async fn serve(
    mut connection: Box<Http3Connection>,
    router: Router,
    memory: Budget,
    gateway: Gateway,
    shutdown: Shutdown,
) {
    let remote = connection.remote();
    let config = connection.config().clone();
    let mut draining = pin!(shutdown.draining());
    let mut drained = false;
    let answers = Answers::new(config.http_answers_max, memory);
    loop {
        let exchange = tokio::select! {
            exchange = connection.accept() => exchange,
            _ = &mut draining, if !drained => {
                drained = true;
                connection.drain();
                continue;
            }
            () = shutdown.stopped() => return,
        };
        let Some(exchange) = exchange else { return };
        let (served, config, stop) = ((router.clone(), answers.clone()), config.clone(), shutdown.clone());
        shutdown.spawn(exchange_one(exchange, remote, served, gateway.clone(), config, stop));
    }
}

async fn exchange_one(
    exchange: Exchange,
    remote: SocketAddr,
    (router, answers): (Router, Answers),
    gateway: Gateway,
    config: Arc<TransportConfig>,
    shutdown: Shutdown,
) {
    match exchange.resolve(&config).await {
        None => {}
        Some(Resolved::Request(request)) => {
            let answered = async {
                let turn = answers.turn().await;
                answer(request, remote, router, turn).await;
            };
            let answered = timeout(config.answer_timeout(), answered).await;
            answered.unwrap_or_else(|_| tracing::debug!(%remote, "HTTP/3 request not answered in time"));
        }
        Some(Resolved::Session(request)) => match webtransport::establish(request, &config).await {
            // A task of its own: what the handshake needed is not kept for the life of the session.
            Ok(link) => drop(shutdown.spawn(gateway.serve(Box::new(link)))),
            Err(error) => turned_away("webtransport", remote.ip(), &error),
        },
    }
}

async fn answer(request: HttpRequest, remote: SocketAddr, router: Router, turn: Turn) {
    let HttpRequest { head, body, response: mut writer } = request;
    let response = if head.method() == Method::CONNECT {
        let detail = "CONNECT only opens WebTransport sessions: send :protocol = webtransport";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
    } else {
        match router.oneshot(request_of(head, body, remote)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
    let (mut parts, mut body) = turn.hold(response).into_parts();
    for name in CONNECTION_HEADERS {
        parts.headers.remove(name);
    }
    if writer.head(Response::from_parts(parts, ())).await.is_err() {
        return;
    }
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return writer.abort() };
        // Trailers are for protocols that nobody speaks here.
        let Ok(data) = frame.into_data() else { continue };
        if !data.is_empty() && writer.data(data).await.is_err() {
            return;
        }
    }
    let _ = writer.finish().await;
}

fn request_of(head: Request<()>, body: BodyReader, remote: SocketAddr) -> Request<Body> {
    let chunks = stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match body.next().await {
            Ok(Some(bytes)) => Some((Ok::<Bytes, axum::Error>(bytes), Some(body))),
            Ok(None) => None,
            Err(error) => Some((Err(axum::Error::new(error)), None)),
        }
    });
    let mut request = head.map(|()| Body::from_stream(chunks));
    request.extensions_mut().insert(remote);
    request
}
