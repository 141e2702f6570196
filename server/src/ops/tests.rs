use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use parking_lot::Mutex;
use tern_protocol::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;

use super::logs::{LogFormat, OneLine};
use super::metrics::{TransportLabel, record};
use super::*;

async fn get(router: &axum::Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_names_what_is_down_and_flips_in_a_drain() {
    let readiness = Readiness::default();
    let router = router(Arc::new(Exporter::new()), readiness.clone(), &[]);
    let (store, events) = (readiness.check("store"), readiness.check("events"));
    let (status, body) = get(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let starting = r#"{"ready":false,"draining":false,"checks":{"events":"starting","store":"starting"}}"#;
    assert_eq!(body, starting);
    store.ready();
    events.ready();
    let (status, body) = get(&router, "/readyz").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, r#"{"ready":true,"draining":false,"checks":{"events":"ok","store":"ok"}}"#);
    events.down("disk full");
    let (status, body) = get(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""events":"disk full""#), "{body}");
    drop(events);
    assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
    readiness.drain();
    let (status, body) = get(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""draining":true"#), "{body}");
    for path in ["/livez", "/healthz"] {
        assert_eq!(get(&router, path).await, (StatusCode::OK, "ok\n".into()), "alive while draining");
    }
}

#[tokio::test]
async fn metrics_are_shown_in_prometheus_text_with_their_values() {
    let exporter = Arc::new(Exporter::new());
    let metrics = exporter.metrics();
    let quic = metrics.connections.opened(TransportLabel::Quic);
    let _second = metrics.connections.opened(TransportLabel::Quic);
    let _websocket = metrics.connections.opened(TransportLabel::WebSocket);
    drop(quic);
    record(&metrics.messages.delivery_seconds, Duration::from_millis(3));
    metrics.store.commit_entries.record(5.0);
    metrics.messages.sends_applied.increment(2);
    metrics.refused.count(Code::RATE_LIMITED);
    metrics.refused.count(Code(4999));
    let router = router(exporter, Readiness::default(), &[]);
    let (status, text) = get(&router, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"tern_connections{transport="quic"} 1"#,
        r#"tern_connections{transport="websocket"} 1"#,
        r#"tern_delivery_seconds_bucket{le="0.0025"} 0"#,
        r#"tern_delivery_seconds_bucket{le="0.005"} 1"#,
        r#"tern_delivery_seconds_bucket{le="10"} 1"#,
        r#"tern_store_commit_entries_bucket{le="8"} 1"#,
        r#"tern_sends_total{outcome="applied"} 2"#,
        r#"tern_refused_total{code="4300"} 1"#,
        r#"tern_refused_total{code="other"} 1"#,
        r#"tern_panics_total 0"#,
        "# TYPE tern_delivery_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(text.contains("# HELP tern_dedupe_hits_total "), "{text}");
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
}

#[test]
fn two_nodes_in_one_process_count_apart_and_none_counts_nowhere() {
    let (one, two) = (Exporter::new(), Exporter::new());
    one.metrics().messages.lagged.increment(1);
    Metrics::none().messages.lagged.increment(1);
    assert!(one.render().contains("tern_lagged_total 1"));
    assert!(two.render().contains("tern_lagged_total 0"));
}

#[tokio::test]
async fn a_version_is_told_and_other_paths_are_not_found() {
    let router = router(Arc::new(Exporter::new()), Readiness::default(), &[]);
    let (_, version) = get(&router, "/version").await;
    let version: serde_json::Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&version["name"], &version["protocol"]), (&"tern".into(), &"tern.v1".into()));
    let commit = version["commit"].as_str().unwrap();
    assert!(commit == "unknown" || commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
    assert_eq!(get(&router, "/debug").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_ops_port_stays_on_this_machine_unless_told_otherwise() {
    let start = |config: OpsConfig| async move {
        OpsServer::start(&config, Arc::new(Exporter::new()), Readiness::default()).await
    };
    let remote = OpsConfig { listen: "0.0.0.0:0".parse().unwrap(), allow_remote: false, hosts: Vec::new() };
    assert!(matches!(start(remote.clone()).await, Err(OpsError::Remote(_))));
    OpsConfig { allow_remote: true, ..remote }.check().unwrap();
    let free = OpsConfig { listen: "127.0.0.1:0".parse().unwrap(), allow_remote: false, hosts: Vec::new() };
    let server = start(free.clone()).await.unwrap();
    let taken = start(OpsConfig { listen: server.address(), ..free }).await;
    assert!(taken.unwrap_err().to_string().contains(&server.address().to_string()));
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Sink;
    fn make_writer(&'a self) -> Sink {
        self.clone()
    }
}

fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(OneLine(sink.clone()));
    match format {
        LogFormat::Json => {
            tracing::subscriber::with_default(subscriber.json().flatten_event(true).finish(), log)
        }
        LogFormat::Text => tracing::subscriber::with_default(subscriber.finish(), log),
    }
    String::from_utf8(sink.0.lock().clone()).unwrap()
}

#[test]
fn nothing_a_client_chooses_can_forge_a_log_line_or_drive_a_terminal() {
    let nasty = "a\nERROR forged\r\t\u{1b}[2J\u{0}\u{7f}\u{9b}31m\u{202e}\u{2066}\u{2028}Ä";
    for format in [LogFormat::Text, LogFormat::Json] {
        let lines = logged(format, || {
            tracing::info!(agent = %nasty, debug = ?nasty, "said {nasty}");
            tracing::info!("plain Ä");
        });
        assert_eq!(lines.lines().count(), 2, "{lines:?}");
        assert!(lines.ends_with('\n') && lines.contains("plain Ä"), "{lines:?}");
        let bad = |c: char| c != '\n' && logs::needs_escape(c);
        assert!(!lines.contains(bad), "{lines:?}");
        if format == LogFormat::Json {
            for line in lines.lines() {
                let _: serde_json::Value = serde_json::from_str(line).unwrap();
            }
        }
    }
}

#[test]
fn a_bad_log_filter_names_its_key() {
    let config = LogConfig { level: "loud=very".into(), ..LogConfig::default() };
    assert!(config.check().unwrap_err().to_string().starts_with("log.level = \"loud=very\" is not"));
    for level in ["infoo", "info,warning", "tern"] {
        let config = LogConfig { level: level.into(), ..LogConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("is no level"), "{level}");
    }
    for level in ["off", "trace", "INFO", "info,tern::session=debug", "warn,tern[hello]=trace"] {
        LogConfig { level: level.into(), ..LogConfig::default() }.check().unwrap();
    }
}

#[tokio::test]
async fn a_web_page_can_change_nothing_over_the_ops_port() {
    let router = router(Arc::new(Exporter::new()), Readiness::default(), &[]);
    let put = async |name: &'static str, value: &'static str| {
        let request = Request::put("/log").header("host", "127.0.0.1:9433").header(name, value);
        let response = router.clone().oneshot(request.body(Body::from("debug")).unwrap()).await.unwrap();
        response.status()
    };
    // Allowed, but this process has no log of its own to change.
    assert_eq!(put("accept", "*/*").await, StatusCode::BAD_REQUEST);
    assert_eq!(put("origin", "http://127.0.0.1:9433").await, StatusCode::FORBIDDEN);
    assert_eq!(put("sec-fetch-site", "cross-site").await, StatusCode::FORBIDDEN);
    let rebound = Request::put("/log").header("host", "evil.example").body(Body::from("debug")).unwrap();
    assert_eq!(router.clone().oneshot(rebound).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_ops_port_is_read_under_addresses_and_names_of_the_operator_only() {
    let router = router(Arc::new(Exporter::new()), Readiness::default(), &["tern-1.internal".into()]);
    let read = async |host: &'static str, path: &'static str| {
        let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    };
    for host in ["127.0.0.1:9433", "localhost:9433", "[::1]:9433", "10.1.2.3:9433", "TERN-1.internal:9433"] {
        assert_eq!(read(host, "/livez").await, StatusCode::OK, "{host}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/version", "/log", "/nothing"] {
        assert_eq!(read("evil.example:9433", path).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(get(&router, "/livez").await.0, StatusCode::OK, "who names no host is no browser");
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_shut_the_ops_port() {
    let config = OpsConfig { listen: "127.0.0.1:0".parse().unwrap(), ..OpsConfig::default() };
    let server = OpsServer::start(&config, Arc::new(Exporter::new()), Readiness::default()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(tokio::net::TcpStream::connect(server.address()).await.unwrap());
    }
    let mut asking = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    asking.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // Its turn comes when the silent ones have had theirs.
    tokio::time::timeout(Duration::from_secs(100), asking.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
