//! Asks the ops port of a running node on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::Body;
use clap::Args;
use http::{Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::environment;
use crate::config::Config;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait for a connection.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// Which node is asked.
#[derive(Clone, Debug, Args)]
pub(super) struct Operator {
    /// The node's configuration, for its ops.listen; without it the default port is asked
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Address of its ops port, such as 127.0.0.1:9433
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config", global = true)]
    ops: Option<SocketAddr>,
}

/// What the node answered.
pub(super) struct OpsResponse {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) body: String,
}

impl Operator {
    /// The address to ask.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(match self.ops {
            Some(address) => address,
            None => Config::load(self.config.as_deref(), environment::variables())?.ops.listen,
        })
    }

    /// Asks, and takes anything but success for an error. `time` is for the whole answer.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
        time: Duration,
    ) -> anyhow::Result<String> {
        let address = self.address()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(ask(address, method, path, body, time))?;
        if !answer.status.is_success() {
            bail!("the node at {address} answered {}: {}", answer.status, answer.body.trim_end());
        }
        Ok(answer.body)
    }
}

/// Asks the ops port at an address, on a runtime of the caller.
pub(super) async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: String,
    time: Duration,
) -> anyhow::Result<OpsResponse> {
    let connecting = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address));
    let stream = connecting
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .with_context(|| format!("no node answers at {address}; give its --ops or --config"))?;
    let request = Request::builder().method(method).uri(path).header("host", address.to_string());
    let request = request.body(Body::from(body))?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await?;
        connection.abort();
        anyhow::Ok(OpsResponse { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::time::timeout(time, exchange).await.context("the node did not answer in time")?
}
