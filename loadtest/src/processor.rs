//! Processor time of a measurement, of the node and of this program: during it, and until the node has
//! done what it put off, which is push events.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::node::OwnNode;
use crate::process::processor_time;
use crate::server::Server;

/// How often a node is asked for its push backlog.
const PUSH_POLL: Duration = Duration::from_millis(100);
/// The backlog is over when none was told for this long: events leave 2 s after their message, and are
/// looked for every half second.
const PUSH_QUIET: Duration = Duration::from_secs(3);
/// Longest wait for that.
const PUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for one answer of the node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is not done yet, by the node's own count.
const PENDING: &str = "tern_push_pending";

/// Processor time used so far, or between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    /// Absent: the server is not ours.
    node: Option<Duration>,
    generator: Duration,
}

impl Processor {
    /// Used since the processes started.
    pub(crate) fn now(server: &Server) -> io::Result<Self> {
        let node = server.own.as_ref().map(|node| processor_time(node.pid())).transpose()?;
        Ok(Self { node, generator: processor_time(std::process::id())? })
    }

    /// Used since then.
    pub(crate) fn until_now(self, server: &Server) -> io::Result<Self> {
        let now = Self::now(server)?;
        let node = now.node.zip(self.node).map(|(now, then)| now.saturating_sub(then));
        Ok(Self { node, generator: now.generator.saturating_sub(self.generator) })
    }

    /// Waits until no push event is waiting; used by the node from then until there was none. `None`
    /// for a server that is not ours.
    pub(crate) async fn until_pushed(self, server: &Server) -> anyhow::Result<Option<Duration>> {
        let Some((node, before)) = server.own.as_ref().zip(self.node) else { return Ok(None) };
        let limit = Instant::now() + PUSH_TIMEOUT;
        let mut quiet: Option<(Instant, Duration)> = None;
        loop {
            let pending = push_pending(node).await?;
            let (since, used) = match quiet {
                Some(quiet) if pending == 0 => quiet,
                _ => (Instant::now(), processor_time(node.pid())?),
            };
            quiet = (pending == 0).then_some((since, used));
            if quiet.is_some() && since.elapsed() >= PUSH_QUIET {
                return Ok(Some(used.saturating_sub(before)));
            }
            anyhow::ensure!(Instant::now() < limit, "{pending} push intents are still waiting");
            sleep(PUSH_POLL).await;
        }
    }

    /// Shared out over `units` of the measurement itself, and the node's until all was `pushed` over all
    /// units of the run.
    pub(crate) fn share(self, units: u64, pushed: Option<Duration>, all_units: u64) -> ProcessorShare {
        let share = |time: Duration, units: u64| time.as_secs_f64() * 1e6 / units.max(1) as f64;
        ProcessorShare {
            node_us: self.node.map(|time| share(time, units)),
            node_with_push_us: pushed.map(|time| share(time, all_units)),
            generator_us: share(self.generator, units),
        }
    }
}

/// Processor time of one message or delivery, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessorShare {
    /// Of the node, during the measurement.
    pub(crate) node_us: Option<f64>,
    /// Of the node, from the start of the measurement until no push event waited.
    pub(crate) node_with_push_us: Option<f64>,
    /// Of this program, during the measurement.
    pub(crate) generator_us: f64,
}

impl ProcessorShare {
    /// The node's figures as words.
    pub(crate) fn node_words(&self) -> [String; 2] {
        [self.node_us, self.node_with_push_us].map(|us| us.map_or("-".to_owned(), |us| format!("{us:.1}")))
    }
}

/// Push intents that the node has not worked off.
async fn push_pending(node: &OwnNode) -> anyhow::Result<u64> {
    let text = timeout(ANSWER_TIMEOUT, metrics(&node.ready().ops_url)).await??;
    parse_pending(&text).ok_or_else(|| anyhow::anyhow!("the node does not tell {PENDING}"))
}

async fn metrics(ops_url: &str) -> anyhow::Result<String> {
    let url: Url = ops_url.parse()?;
    let host = url.host_str().ok_or_else(|| anyhow::anyhow!("{ops_url} has no host"))?;
    let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let mut stream = TcpStream::connect(&address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn parse_pending(metrics: &str) -> Option<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(PENDING)?.strip_prefix(' '))?;
    value.trim().parse::<f64>().ok().map(|count| count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_read_from_the_metrics() {
        let text = "# HELP tern_push_pending Push\n# TYPE tern_push_pending gauge\ntern_push_pending 30720\n";
        assert_eq!(parse_pending(text), Some(30_720));
        assert_eq!(parse_pending("tern_push_pending_more 1\n"), None);
    }

    #[test]
    fn time_is_shared_out_over_what_was_done_in_it() {
        let used = Processor { node: Some(Duration::from_millis(60)), generator: Duration::from_millis(30) };
        let share = used.share(1_000, Some(Duration::from_millis(90)), 1_200);
        assert_eq!(
            (share.node_us, share.node_with_push_us, share.generator_us),
            (Some(60.0), Some(75.0), 30.0)
        );
    }
}
