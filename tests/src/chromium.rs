//! A headless Chromium with a profile of its own, driven over its debugging port; it ends with the
//! value.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::hang::{until, within};

/// The program, as Debian names it.
const PROGRAM: &str = "chromium";
/// What keeps it quiet and off the network; it runs as whoever runs the tests, root too.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
];
/// Pause between two looks at something that cannot be waited for.
const LOOK: Duration = Duration::from_millis(10);
/// How long it may take to end.
const END_TIME: Duration = Duration::from_secs(10);
/// The page of every tab.
const PAGE: &str = include_str!("../browser/page.html");

/// Who waits for the answer to a command, by its number and with the tab that it is for.
type Waiting = Arc<Mutex<HashMap<u64, (Option<String>, oneshot::Sender<Result<Value, String>>)>>>;

/// A running browser, and a server of pages for it on `http://localhost`, where WebTransport is allowed.
pub struct Chromium {
    child: Child,
    profile: TempDir,
    origin: String,
    debugger: Arc<Debugger>,
    pages: JoinHandle<()>,
}

impl Chromium {
    /// Starts one.
    ///
    /// # Panics
    /// With its words if there is none.
    pub async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("tern-test-").tempdir().expect("a directory");
        let log = File::create(log_file(profile.path())).expect("a log file");
        let mut command = Command::new(PROGRAM);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display()));
        command
            .process_group(0)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://localhost:{}", listener.local_addr().expect("a port").port());
        let pages = tokio::spawn(serve(listener));
        let mut starting = Starting { child: Some(child), profile: profile.path().to_owned() };
        let port_file = profile.path().join("DevToolsActivePort");
        let address = until("the debugging port", || {
            let text = std::fs::read_to_string(&port_file).ok()?;
            let (port, path) = text.split_once('\n')?;
            (!path.is_empty()).then(|| (port.to_owned(), path.trim().to_owned()))
        })
        .await;
        let debugger = Debugger::connect(&address.0, &address.1).await;
        let child = starting.child.take().expect("it is there");
        Self { child, profile, origin, debugger, pages }
    }

    /// Opens a tab with the page.
    pub async fn tab(&self) -> Tab {
        let create = json!({ "url": self.origin });
        let created = within("a tab", self.debugger.call(None, "Target.createTarget", create)).await;
        let target = created.expect("a tab")["targetId"].as_str().expect("an id").to_owned();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = self.debugger.call(None, "Target.attachToTarget", attach).await;
        let session = attached.expect("the tab")["sessionId"].as_str().expect("an id").to_owned();
        let tab = Tab { debugger: self.debugger.clone(), target, session };
        let loaded = "document.readyState === 'complete' && typeof Session === 'function'";
        within("the page", async {
            // While the tab is still on its way to the page, what runs in it is cut off.
            while tab.run(loaded).await != Ok(true.into()) {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        tab
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        kill(&mut self.child);
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.pages.abort();
        end(&mut self.child);
        show_log(self.profile.path());
        remove(self.profile.path());
    }
}

/// A child that is not ready: it ends when the wait for it fails.
struct Starting {
    child: Option<Child>,
    profile: PathBuf,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
            show_log(&self.profile);
        }
    }
}

/// One tab.
#[derive(Clone)]
pub struct Tab {
    debugger: Arc<Debugger>,
    target: String,
    session: String,
}

impl Tab {
    /// Evaluates an expression, waits for its promise, and gives its value; an exception, or the
    /// end of the tab, is an error.
    pub async fn run(&self, expression: &str) -> Result<Value, String> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let done = self.debugger.call(Some(&self.session), "Runtime.evaluate", parameters).await?;
        match done.get("exceptionDetails") {
            Some(exception) => Err(exception["exception"]["description"].as_str().unwrap_or("?").to_owned()),
            None => Ok(done["result"]["value"].clone()),
        }
    }

    /// Closes the tab, as a person does.
    pub async fn close(self) {
        let closed = self.debugger.call(None, "Target.closeTarget", json!({ "targetId": self.target })).await;
        closed.expect("the tab is there");
    }
}

/// The debugging protocol: numbered commands and their answers.
struct Debugger {
    sink: tokio::sync::Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>,
    waiting: Waiting,
    commands: AtomicU64,
}

impl Debugger {
    async fn connect(port: &str, path: &str) -> Arc<Self> {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("the debugging port");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client_async(url, stream).await.expect("the debugging protocol");
        let (sink, stream) = socket.split();
        let waiting = Waiting::default();
        tokio::spawn(answer(stream, waiting.clone()));
        Arc::new(Self { sink: sink.into(), waiting, commands: AtomicU64::new(1) })
    }

    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value, String> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let mut command = json!({ "id": number, "method": method, "params": parameters });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let (caller, answer) = oneshot::channel();
        self.waiting.lock().insert(number, (session.map(str::to_owned), caller));
        let sent = self.sink.lock().await.send(Message::text(command.to_string())).await;
        sent.map_err(|error| format!("the browser is gone: {error}"))?;
        answer.await.map_err(|_| "the tab is gone".to_owned())?
    }
}

/// Hands answers to whoever waits for them. To commands in a tab that is gone there is none.
async fn answer(mut stream: SplitStream<WebSocketStream<TcpStream>>, waiting: Waiting) {
    while let Some(Ok(message)) = stream.next().await {
        let Ok(mut answer) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
        if let Some((_, caller)) = answer["id"].as_u64().and_then(|number| waiting.lock().remove(&number)) {
            let result = match answer.get("error") {
                Some(error) => Err(error.to_string()),
                None => Ok(answer["result"].take()),
            };
            // Whoever does not wait any more needs no answer.
            let _ = caller.send(result);
        } else if answer["method"] == "Target.detachedFromTarget" {
            let gone = answer["params"]["sessionId"].as_str();
            waiting.lock().retain(|_, (session, _)| session.as_deref() != gone);
        }
    }
    waiting.lock().clear();
}

/// Answers every request with the page.
async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                    return;
                }
            }
            let length = PAGE.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {length}\r\n\r\n{PAGE}");
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// Asks it to end, which takes its other processes along; ends what is left.
fn end(child: &mut Child) {
    let start = Instant::now();
    if matches!(child.try_wait(), Ok(None)) {
        signal("TERM", child.id().to_string());
    }
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < END_TIME {
        std::thread::sleep(LOOK);
    }
    kill(child);
}

/// Ends all of its processes: they are a group of their own.
fn kill(child: &mut Child) {
    signal("KILL", format!("-{}", child.id()));
    let _ = child.wait();
}

fn signal(name: &str, to: String) {
    // In vain if nobody is left.
    let _ = Command::new("sh").args(["-c", &format!("kill -s {name} -- {to} 2>/dev/null")]).status();
}

/// Removes the profile, which a process on its way to its end may still write to.
fn remove(profile: &Path) {
    let start = Instant::now();
    while std::fs::remove_dir_all(profile).is_err() && profile.exists() && start.elapsed() < END_TIME {
        std::thread::sleep(LOOK);
    }
}

fn log_file(profile: &Path) -> PathBuf {
    profile.join("stderr.log")
}

fn show_log(profile: &Path) {
    if std::thread::panicking() {
        let log = std::fs::read(log_file(profile)).unwrap_or_default();
        eprintln!("--- {PROGRAM} ---\n{}\n---", String::from_utf8_lossy(&log));
    }
}
