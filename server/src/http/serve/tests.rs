use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::frames::tests::frame;
use super::frames::{END_STREAM, Head, Heads, Kind};
use super::*;
use crate::ops::metrics::Exporter;

/// What an HTTP/2 client says first: the preface and empty SETTINGS.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET /` over http, to no host in particular, by the static table of HPACK.
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'x'];
/// No connection of these tests stays for so long.
const HANG: Duration = Duration::from_secs(600);
/// Larger than what fits anywhere on the way.
const LONG: usize = 100_000;

/// A client's end of a connection that is served, and how to see what became of it.
struct Served {
    io: DuplexStream,
    task: JoinHandle<()>,
    exporter: Exporter,
    start: Instant,
}

impl Served {
    fn new(room: usize) -> Self {
        let (io, end) = duplex(room);
        let exporter = Exporter::new();
        let router = Router::new()
            .route("/", get(|| async { "x".repeat(LONG) }))
            .route("/body", post(|body: String| async move { body }));
        let config = Arc::new(TransportConfig::default());
        let server =
            Server::new(router, config, exporter.metrics(), Budget::new(usize::MAX), Shutdown::new());
        let task = tokio::spawn(server.serve(end, "127.0.0.1:1".parse().unwrap()));
        Self { io, task, exporter, start: Instant::now() }
    }

    async fn http2() -> Self {
        let mut served = Self::new(1 << 20);
        served.io.write_all(BEGIN).await.unwrap();
        served
    }

    /// The server may have closed the connection meanwhile.
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let _ = self.io.write_all(&frame(kind, flags, stream, body)).await;
    }

    /// Everything until the server closes the connection, and after how many seconds it does.
    async fn rest(&mut self) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        timeout(HANG, self.io.read_to_end(&mut bytes)).await.expect("it is never closed").unwrap();
        (bytes, self.start.elapsed().as_secs())
    }

    fn cut(&self, reason: &str) -> bool {
        self.exporter.render().contains(&format!("tern_connections_cut_total{{reason=\"{reason}\"}} 1"))
    }
}

fn heads(bytes: &[u8]) -> Vec<Head> {
    let (mut heads, mut found) = (Heads::default(), Vec::new());
    heads.take(bytes, |head| found.push(head));
    assert!(heads.between_frames(), "the last frame is not whole");
    found
}

/// The reason of the GOAWAY that asks for calm, which is the last frame.
fn calm(bytes: &[u8]) -> &str {
    heads(bytes);
    let at = bytes.windows(4).rposition(|code| code == [0, 0, 0, 0xb]).expect("ENHANCE_YOUR_CALM");
    std::str::from_utf8(&bytes[at + 4..]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_preface_is_closed_after_ten_seconds() {
    for said in [&b""[..], b"PRI * HT"] {
        let mut served = Served::new(1024);
        served.io.write_all(said).await.unwrap();
        assert_eq!(served.rest().await, (Vec::new(), 10), "{said:?}");
        served.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_header_and_an_idle_connection_of_http_1_are_closed_after_ten_seconds() {
    let mut served = Served::new(1 << 20);
    served.io.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    assert_eq!(served.rest().await.1, 10);
    let mut served = Served::new(1 << 20);
    served.io.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (answer, seconds) = served.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(seconds, 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_http_2_is_closed_after_a_minute_though_it_answers_pings() {
    let mut served = Served::http2().await;
    let (mut heads, mut bytes, mut pings) = (Heads::default(), [0; 1024], 0);
    loop {
        assert!(served.start.elapsed() < HANG, "it is never closed");
        let length = served.io.read(&mut bytes).await.unwrap();
        if length == 0 {
            break;
        }
        let mut asked = 0;
        heads.take(&bytes[..length], |head| asked += usize::from(head.kind == Kind::Ping && head.flags == 0));
        if asked > 0 {
            pings += 1;
            // The payload is the end of what came.
            let payload = bytes[length - 8..length].to_vec();
            served.send(6, 1, 0, &payload).await;
        }
    }
    assert!(pings >= 5, "{pings} pings");
    assert_eq!(served.start.elapsed().as_secs(), 60);
    assert!(served.cut("silent"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_http_1_that_nobody_takes_is_given_up_after_half_a_minute() {
    let mut served = Served::new(1024);
    served.io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(HANG, &mut served.task).await.expect("it is never closed").unwrap();
    assert_eq!(served.start.elapsed().as_secs(), 30);
    assert!(served.exporter.render().contains("tern_connections_cut_total{reason=\"unread\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn answers_of_http_2_that_nobody_has_room_for_end_after_half_a_minute_with_the_reason() {
    let mut served = Served::http2().await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0, and as many requests as are allowed.
    served.send(4, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    for number in 0..H2_STREAMS_MAX {
        served.send(1, END_STREAM | 4, 2 * number + 1, GET).await;
    }
    let (mut answers, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        assert!(served.start.elapsed() < HANG, "it is never closed");
        let length = served.io.read(&mut bytes).await.unwrap();
        if length == 0 {
            break;
        }
        let new = &bytes[..length];
        answers.extend_from_slice(new);
        // A ping is answered, so that it is not for this that the connection ends.
        if let Some(at) = new.windows(9).position(|head| head == frame(6, 0, 0, &[0; 8])[..9].to_vec()) {
            let payload = new[at + 9..at + 17].to_vec();
            served.send(6, 1, 0, &payload).await;
        }
    }
    assert_eq!(served.start.elapsed().as_secs(), 30);
    assert_eq!(calm(&answers), "an answer was not taken in time");
    let begun = heads(&answers).into_iter().filter(|head| head.kind == Kind::Headers).count();
    assert_eq!(
        begun,
        TransportConfig::default().http_answers_max,
        "the others wait unanswered, and cost nothing"
    );
    assert!(served.cut("unread"));
}

#[tokio::test(start_paused = true)]
async fn frames_that_ask_nothing_end_the_connection_with_the_reason() {
    let floods: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0x77, 0, 0, &[])),
        ("ORIGIN", frame(0xc, 0, 0, &[])),
    ];
    for (what, frame) in floods {
        let mut served = Served::http2().await;
        let _ = served.io.write_all(&frame.repeat(2000)).await;
        let (bytes, seconds) = served.rest().await;
        assert_eq!((calm(&bytes), seconds), ("too many frames that ask nothing", 0), "{what}");
        assert!(served.cut("flood"), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_taken_back_end_the_connection() {
    let mut served = Served::http2().await;
    for number in 0..500 {
        let stream = 2 * number + 1;
        let pair = [frame(1, END_STREAM | 4, stream, GET), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
        if served.io.write_all(&pair).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (bytes, seconds) = served.rest().await;
    assert_eq!(seconds, 0);
    calm(&bytes);
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_client_asks_as_often_as_it_likes() {
    let (io, end) = duplex(1 << 20);
    let router = Router::new().route("/", get(|| async { "x".repeat(LONG) }));
    let config = Arc::new(TransportConfig::default());
    let server = Server::new(router, config, Metrics::none(), Budget::new(usize::MAX), Shutdown::new());
    tokio::spawn(server.serve(end, "127.0.0.1:1".parse().unwrap()));
    let executor = TokioExecutor::new();
    let (mut asking, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    for number in 0..500 {
        let request = Request::get("http://x/").body(Body::empty()).unwrap();
        let answer = asking.send_request(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert_eq!(body.len(), LONG, "request {number}");
    }
}
