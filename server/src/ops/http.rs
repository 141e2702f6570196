//! The ops port: `/livez`, `/readyz`, `/metrics`, `/version`, `/log`. For machines that watch this
//! node, not for clients.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::metrics::Exporter;
use super::readiness::Readiness;
use super::version::Version;
use super::{guard, logs};

/// Histograms keep every sample until they are folded; between scrapes that is done this often.
const FOLD_EVERY: Duration = Duration::from_secs(1);
/// Most connections at a time; the others wait. So few that there are always descriptors for them.
const CONNECTIONS_MAX: usize = 16;
/// A request must be complete, and asked after the one before it, within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is finished with what it asks after this time, and cut after as long again.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Pause after a connection that the system did not give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The `[ops]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Address and TCP port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows an address that is not loopback. The port has no authentication: keep it in a network
    /// of your own.
    pub allow_remote: bool,
    /// Names under which the port may be asked, besides `localhost` and addresses: web pages could give it a
    /// name of theirs. Example: `["tern-1.internal"]`.
    pub hosts: Vec<String>,
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9433)), allow_remote: false, hosts: Vec::new() }
    }
}

/// Why the ops port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// Other machines could reach it.
    #[error("ops.listen = {0} is not a loopback address; set ops.allow_remote = true if that is meant")]
    Remote(SocketAddr),
    /// The port cannot be had.
    #[error("ops.listen = {address}: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

impl OpsConfig {
    /// What can be checked without taking the port.
    pub fn check(&self) -> Result<(), OpsError> {
        if self.listen.ip().to_canonical().is_loopback() || self.allow_remote {
            Ok(())
        } else {
            Err(OpsError::Remote(self.listen))
        }
    }
}

/// The running ops port. Dropping it closes the port; keep it until the very end of a drain.
#[derive(Debug)]
pub struct OpsServer {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl OpsServer {
    /// Takes the port and serves it.
    pub async fn start(
        config: &OpsConfig,
        exporter: Arc<Exporter>,
        readiness: Readiness,
    ) -> Result<Self, OpsError> {
        config.check()?;
        let bind = |source| OpsError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let router = router(exporter.clone(), readiness, &config.hosts);
        let serve = tokio::spawn(serve(listener, router));
        let fold = tokio::spawn(async move {
            let mut every = tokio::time::interval(FOLD_EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                exporter.fold();
            }
        });
        Ok(Self { address, tasks: [serve, fold] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for OpsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Serves all who come, a few at a time.
async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await;
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone();
                tasks.spawn(async move {
                    let _place = place;
                    serve_one(stream, peer, router).await;
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_one(stream: TcpStream, peer: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(peer))));
    let mut builder = http1::Builder::new();
    // Whoever keeps its connection keeps a place from the next.
    builder.keep_alive(false);
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if timeout(CONNECTION_TIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(CONNECTION_TIME, connection).await;
    }
}

/// The routes, without a port. They may be asked under these names, besides addresses and localhost.
pub fn router(exporter: Arc<Exporter>, readiness: Readiness, hosts: &[String]) -> Router {
    let hosts: guard::Hosts = hosts.into();
    Router::new()
        .route("/livez", get(live))
        // Probes of many charts ask here by default.
        .route("/healthz", get(live))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(exporter))
        .route("/version", get(version))
        .route("/log", get(log_filter).put(set_log_filter).delete(reset_log_filter))
        .layer(middleware::from_fn_with_state(hosts, guard::no_web_page))
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(exporter): State<Arc<Exporter>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], exporter.render())
}

async fn version() -> Json<Version> {
    Json(Version::of_this_build())
}

async fn log_filter() -> Response {
    told(logs::filter_in_force())
}

/// The body is a filter such as `tern::session=debug`.
async fn set_log_filter(filter: String) -> Response {
    told(logs::put_over(&filter))
}

async fn reset_log_filter() -> Response {
    told(logs::put_over(""))
}

/// The filter in force, on a line.
fn told(filter: Result<String, logs::LogError>) -> Response {
    match filter {
        Ok(filter) => format!("{filter}\n").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
