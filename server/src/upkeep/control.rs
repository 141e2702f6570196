//! The control socket: how `tern store` reaches a running node. A Unix socket in the directory of the
//! store, so that who may use it is who may read the data, and no port and no web page reaches it.
//!
//! One request a connection: a line of JSON. Answers are lines of JSON, the last one `done` or `failed`.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tern_protocol::UserId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::accounts::{AccountError, Operator, Revocation};
use super::export::{ExportError, Lines};
use super::{Parts, erase, export};

/// Name of the socket in the directory of the store.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Longest request in bytes: a path or a user.
const REQUEST_BYTES_MAX: u64 = 16 * 1024;
/// Most requests at a time; more wait.
const REQUESTS_MAX: usize = 4;
/// Longest wait for requests when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Longest path of a socket that every system takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Write a backup into this directory, an absolute path on the node's machine.
    Backup {
        /// Where.
        dir: PathBuf,
    },
    /// All that is kept of a user, line by line.
    Export {
        /// Who.
        user: UserId,
    },
    /// Erase a user.
    Erase {
        /// Who.
        user: UserId,
    },
    /// Give the space of removed rows back to the disk now.
    Compact {},
    /// A user's sessions.
    Sessions {
        /// Whose.
        user: UserId,
    },
    /// Close a session of a user, or all.
    CloseSessions {
        /// Whose.
        user: UserId,
        /// Which; absent: all.
        session: Option<String>,
    },
    /// Revoke a user's tokens.
    Revoke {
        /// Whose.
        user: UserId,
        /// Which.
        revocation: Revocation,
    },
}

/// What a store does besides [`Store`](crate::store::Store) that keeps its rows in a directory.
#[async_trait::async_trait]
pub trait OnDisk: Send + Sync {
    /// Writes a backup; what is in it, or why there is none.
    async fn backup(&self, dir: &Path) -> Result<Value, String>;
    /// Gives the space of removed rows back; how many bytes are used before and after.
    async fn compact(&self) -> Result<Value, String>;
}

/// Why a running node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connection, or it broke.
    #[error("cannot talk to the node that holds the store ({}): {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The node said so.
    #[error("{0}")]
    Failed(String),
    /// The node ended before it had answered; what was asked may be half done, and can be asked again.
    #[error("the node stopped before it was done; run it again")]
    Ended,
}

/// The served socket. Dropping it ends what is being done; the file stays, and the next start replaces it.
pub struct Control {
    accepting: JoinHandle<()>,
    requests: TaskTracker,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Control {
    /// Serves the socket in `dir`, which the store holds.
    pub fn start(dir: &Path, store: Arc<dyn OnDisk>, parts: Parts) -> io::Result<Self> {
        let path = dir.join(CONTROL_SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_short_path(&path, |path| UnixListener::bind(path))?;
        let requests = TaskTracker::new();
        let tracker = requests.clone();
        let accepting = tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(REQUESTS_MAX));
            loop {
                let permit = room.clone().acquire_owned().await.expect("this semaphore is never closed");
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "the control socket takes no connections");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                let (store, parts) = (store.clone(), parts.clone());
                tracker.spawn(async move {
                    let _permit = permit;
                    serve(stream, &*store, &parts).await;
                });
            }
        });
        Ok(Self { accepting, requests })
    }

    /// Takes no more requests, and waits a little for those there are: none leaves anything half done
    /// that cannot be done again.
    pub async fn stop(self) {
        self.accepting.abort();
        self.requests.close();
        let _ = tokio::time::timeout(STOP_WAIT, self.requests.wait()).await;
    }
}

/// Answers one request; without anybody to hear it, it is done all the same.
async fn serve(stream: UnixStream, store: &dyn OnDisk, parts: &Parts) {
    let (reader, writer) = stream.into_split();
    let mut line = String::new();
    let read = BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut line).await;
    let mut answers = Answers(BufWriter::new(writer));
    let answer = match read.map(|_| serde_json::from_str::<Request>(&line)) {
        Ok(Ok(request)) => {
            tracing::info!(request = request.name(), "asked through the control socket");
            run(request, store, parts, &mut answers).await
        }
        Ok(Err(error)) => Err(format!("the request cannot be read: {error}")),
        Err(_) => return,
    };
    let answer = answer.map_or_else(|failed| json!({"failed": failed}), |done| json!({"done": done}));
    let _ = answers.write(&answer).await;
    let _ = answers.0.shutdown().await;
}

impl Request {
    fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Export { .. } => "export",
            Self::Erase { .. } => "erase",
            Self::Compact {} => "compact",
            Self::Sessions { .. } => "sessions",
            Self::CloseSessions { .. } => "close_sessions",
            Self::Revoke { .. } => "revoke",
        }
    }
}

/// Does what is asked; lines on the way go to `out`. The error is for people.
pub async fn run(
    request: Request,
    store: &dyn OnDisk,
    parts: &Parts,
    out: &mut dyn Lines,
) -> Result<Value, String> {
    match request {
        Request::Backup { dir } if !dir.is_absolute() => Err("the directory must be an absolute path".into()),
        Request::Backup { dir } => store.backup(&dir).await,
        Request::Export { user } => {
            let exported = export(&*parts.store, &user, out).await;
            exported.map(|()| Value::Null).map_err(|error| error.to_string())
        }
        Request::Erase { user } => {
            erase(parts, &user).await.map(|erased| json!(erased)).map_err(|error| error.to_string())
        }
        Request::Compact {} => store.compact().await,
        Request::Sessions { user } => told(parts.accounts.sessions(&Operator::Machine, &user).await),
        Request::CloseSessions { user, session } => {
            told(parts.accounts.close(&Operator::Machine, &user, session.as_deref()).await)
        }
        Request::Revoke { user, revocation } => {
            told(parts.accounts.revoke(&Operator::Machine, &user, revocation).await)
        }
    }
}

fn told(done: Result<impl Serialize, AccountError>) -> Result<Value, String> {
    done.map(|done| json!(done)).map_err(|error| error.to_string())
}

struct Answers(BufWriter<OwnedWriteHalf>);

impl Answers {
    async fn write(&mut self, answer: &Value) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.0.write_all(&line).await
    }
}

#[async_trait::async_trait]
impl Lines for Answers {
    async fn line(&mut self, line: Value) -> Result<(), ExportError> {
        self.write(&json!({"line": line})).await.map_err(|_| ExportError::Gone)
    }
}

/// Asks the node that holds the store in `dir`. Lines on the way go to `take`.
pub async fn ask(
    dir: &Path,
    request: &Request,
    mut take: impl FnMut(Value) -> io::Result<()>,
) -> Result<Value, ControlError> {
    let path = dir.join(CONTROL_SOCKET);
    let io = |source| ControlError::Io { path: path.clone(), source };
    let mut stream = with_short_path(&path, |path| std::os::unix::net::UnixStream::connect(path))
        .and_then(|stream| stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)))
        .map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(|error| io(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(io)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.map_err(io)? {
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| io(error.into()))?;
        if let Some(line) = answer.get_mut("line") {
            take(line.take()).map_err(io)?;
        } else if let Some(done) = answer.get_mut("done") {
            return Ok(done.take());
        } else {
            let failed = answer.get("failed").and_then(Value::as_str).unwrap_or("the answer cannot be read");
            return Err(ControlError::Failed(failed.into()));
        }
    }
    Err(ControlError::Ended)
}

/// A socket's path has a small limit: a longer one goes by way of an open directory.
fn with_short_path<T>(path: &Path, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return open(path) };
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return open(path);
    }
    let dir = std::fs::File::open(parent)?;
    open(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}
