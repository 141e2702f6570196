//! The ops port: `/livez`, `/readyz`, `/metrics`, `/version`, `/log`. For machines that watch this
//! node, not for clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::metrics::Exporter;
use super::readiness::Readiness;
use super::version::Version;
use super::{guard, logs};

/// Histograms keep every sample until they are folded; between scrapes that is done this often.
const FOLD_EVERY: Duration = Duration::from_secs(1);
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
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9433)), allow_remote: false }
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
        let router = router(exporter.clone(), readiness);
        let serve = tokio::spawn(async move {
            // Serving ends only with the task: axum retries failing accepts by itself.
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            let _ = axum::serve(listener, service).await;
        });
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

/// The routes, without a port.
pub fn router(exporter: Arc<Exporter>, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(live))
        // Probes of many charts ask here by default.
        .route("/healthz", get(live))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(exporter))
        .route("/version", get(version))
        .route("/log", get(log_filter).put(set_log_filter).delete(reset_log_filter))
        .layer(middleware::from_fn(guard::changes_are_local))
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
