//! A real `tern` process with a data directory of its own; it ends with the value.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::hang::{HANG, until};
use crate::token;

/// Users of the two tokens that a development node prints.
pub const DEV_USERS: [&str; 2] = ["alice", "bob"];
/// Lines of the server's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;
/// Times a restart tries to get its ports back from whoever took them meanwhile.
const RESTART_TRIES: usize = 5;
/// Pause between those tries.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// Settings that tests want loose, so that only the suites about limits meet them.
pub fn loose() -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("QUOTA__USER_SENDS_PER_SECOND", "100000"),
        ("QUOTA__USER_SENDS_BURST", "100000"),
        ("QUOTA__USER_FETCHES_PER_SECOND", "100000"),
        ("QUOTA__USER_FETCHES_BURST", "100000"),
        ("QUOTA__CONNECTION_FRAMES_PER_SECOND", "100000"),
        ("QUOTA__CONNECTION_FRAMES_BURST", "100000"),
        ("QUOTA__CONNECTION_WATCHES_PER_SECOND", "100000"),
        ("QUOTA__CONNECTION_WATCHES_BURST", "100000"),
    ] {
        options = options.set(key, value);
    }
    options
}

/// The line that says where a server is.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// `host:port` of native QUIC.
    pub quic_addr: SocketAddr,
    /// `https://` URL of WebTransport.
    pub webtransport_url: String,
    /// `ws://` URL.
    pub websocket_url: String,
    /// `wss://` URL.
    pub wss_url: String,
    /// `http://` URL of the API.
    pub http_url: String,
    /// URL of the chat page, where there is one.
    pub page_url: Option<String>,
    /// `http://` URL of the operator's port.
    pub ops_url: String,
    /// SHA-256 of the certificate in hex.
    pub cert_sha256: String,
    /// Which store it speaks for.
    pub store_id: String,
    /// File with the secret that signs tokens, where there is one.
    #[serde(default, deserialize_with = "or_default")]
    pub jwt_secret_file: PathBuf,
    /// A token by user.
    #[serde(default, deserialize_with = "or_default")]
    pub tokens: std::collections::BTreeMap<String, String>,
}

/// A node that is run for real tells fewer things.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote on standard error.
    pub stderr: String,
}

impl Exit {
    /// The exit code, if it was not killed.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    data_dir: Option<PathBuf>,
    ports: Option<[u16; 3]>,
    serve: Option<PathBuf>,
    days_behind: u32,
}

impl Options {
    /// Runs `tern serve` by this configuration instead of `tern dev`; directory and ports are still
    /// chosen here, over the environment.
    #[must_use]
    pub fn serve(mut self, config: &Path) -> Self {
        self.serve = Some(config.into());
        self
    }

    /// Sets `TERN__` + `key`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.env.push((format!("TERN__{key}"), value.into()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Runs the server under this command, which must become the server (`strace -D`, `env`).
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs the server with a clock that is so many days behind. Only its wall clock: waits are not changed.
    ///
    /// # Panics
    /// If libfaketime is not installed.
    #[must_use]
    pub fn days_behind(mut self, days: u32) -> Self {
        self.days_behind = days;
        self.with_faketime().env("FAKETIME", &format!("-{days}d"))
    }

    fn with_faketime(self) -> Self {
        // The command `faketime` would stand between the test and the server.
        let dirs = fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(Result::ok);
        let library =
            dirs.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
        let library = library.expect("libfaketime is not there: apt-get install faketime");
        self.env("LD_PRELOAD", library.to_str().expect("a path in text"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// Runs the server with a wall clock that [`Server::set_clock`] sets while it runs. Waits are not changed.
    ///
    /// # Panics
    /// If libfaketime is not installed.
    #[must_use]
    pub fn settable_clock(self, file: &Path) -> Self {
        fs::write(file, "+0").expect("a file for the clock");
        let file = file.to_str().expect("a path in text");
        self.with_faketime().env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1")
    }

    /// Uses this directory instead of a fresh one.
    #[must_use]
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Asks for these ports (clients, HTTP, operators) instead of free ones.
    #[must_use]
    pub fn ports(mut self, ports: [u16; 3]) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// With the server's words if it does not come up.
    pub async fn start(self) -> Server {
        match self.try_start().await {
            Ok(server) => server,
            Err(exit) => panic!("the server did not start: {:?}\n{}", exit.status, exit.stderr),
        }
    }

    /// Starts a server, or says how it ended before it was ready.
    pub async fn try_start(self) -> Result<Server, Exit> {
        let dir = Arc::new(tempfile::Builder::new().prefix("tern-test-").tempdir().expect("a directory"));
        let data_dir = self.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
        let (child, ready) = launch(&self, &data_dir, self.ports.unwrap_or_default(), dir.path()).await?;
        Ok(Server { child: Some(child), dir, data_dir, options: self, ready })
    }
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    dir: Arc<TempDir>,
    data_dir: PathBuf,
    options: Options,
    ready: Ready,
}

impl Server {
    /// A server with loose limits.
    pub async fn start() -> Self {
        loose().start().await
    }

    /// Changes how the next restart starts it.
    pub fn change(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(std::mem::take(&mut self.options));
    }

    /// Where it is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its ports: clients, HTTP, operators.
    pub fn ports(&self) -> [u16; 3] {
        let port = |url: &str| url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        [self.ready.quic_addr.port(), port(&self.ready.http_url), port(&self.ready.ops_url)]
    }

    /// SHA-256 of its certificate.
    pub fn cert_sha256(&self) -> [u8; 32] {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(self.ready.cert_sha256.as_bytes());
        bytes.expect("hex").try_into().expect("32 bytes")
    }

    /// From now on its clients expect this certificate.
    pub fn expect_certificate(&mut self, sha256: [u8; 32]) {
        self.ready.cert_sha256 = data_encoding::HEXLOWER.encode(&sha256);
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// The secret that signs its tokens.
    pub fn secret(&self) -> Vec<u8> {
        let secret = fs::read(&self.ready.jwt_secret_file).expect("the secret file");
        let end = secret.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
        secret[..end].to_vec()
    }

    /// A token of this user that outlives the test.
    pub fn token(&self, user: &str) -> String {
        self.sign(&self.claims(user))
    }

    /// The claims of such a token, issued now by the server's clock.
    pub fn claims(&self, user: &str) -> Value {
        let mut claims = token::claims(user);
        claims["iat"] = (token::now_s() - i64::from(self.options.days_behind) * 86_400).into();
        claims
    }

    /// A token with these claims that it accepts, if they are good.
    pub fn sign(&self, claims: &Value) -> String {
        token::sign(claims, &self.secret())
    }

    /// Sets its wall clock so many seconds ahead of the right time, or behind it. It was started with
    /// [`Options::settable_clock`] and this file.
    pub fn set_clock(file: &Path, ahead_s: i64) {
        let aside = file.with_extension("new");
        fs::write(&aside, format!("{ahead_s:+}")).expect("a file for the clock");
        fs::rename(&aside, file).expect("a file for the clock");
    }

    /// What it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        read_log(self.dir.path())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process is ours");
            child.wait().expect("the process is ours");
        }
    }

    /// Sends it a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.expect("sh").success(), "the signal was not sent");
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self) -> Exit {
        let mut child = self.child.take().expect("the server runs");
        let status = until("the end of the server", || child.try_wait().expect("the process is ours")).await;
        Exit { status, stderr: self.log() }
    }

    /// It still runs.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("the process is ours").is_none())
    }

    /// Starts it again on the same data and ports. Kills it first if it runs.
    pub async fn restart(&mut self) {
        self.kill();
        let ports = self.ports();
        for _ in 1..RESTART_TRIES {
            match launch(&self.options, &self.data_dir, ports, self.dir.path()).await {
                Ok((child, ready)) => {
                    self.child = Some(child);
                    self.ready = ready;
                    return;
                }
                // Somebody else got one of the ports meanwhile: a client of another test.
                Err(exit) if exit.stderr.contains("another program uses it") => {
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
                Err(exit) => panic!("the server did not come back: {:?}\n{}", exit.status, exit.stderr),
            }
        }
        panic!("the ports {ports:?} did not become free again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = read_log(self.dir.path());
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- end of the server's log ---\n{}\n---", shown.join("\n"));
        }
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("stderr.log")
}

fn read_log(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log_file(dir)).unwrap_or_default()).into_owned()
}

/// The server's binary, beside the running test.
///
/// # Panics
/// If it was not built.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let path = profile.join("tern");
    assert!(path.is_file(), "{} is not there: run `cargo build -p tern`", path.display());
    path
}

/// A program of a virtual environment in the target directory, as `tests/run` makes it for a suite.
///
/// # Panics
/// If it was not installed.
pub fn installed(environment: &str, program: &str, suite: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let path = target.join(environment).join("bin").join(program);
    assert!(path.exists(), "{} is missing: ./tests/run {suite} installs it", path.display());
    path
}

async fn launch(
    options: &Options,
    data_dir: &Path,
    ports: [u16; 3],
    dir: &Path,
) -> Result<(Child, Ready), Exit> {
    let tern = binary();
    let mut command = match options.wrapper.split_first() {
        None => Command::new(&tern),
        Some((wrapper, words)) => {
            let mut command = Command::new(wrapper);
            command.args(words).arg(&tern);
            command
        }
    };
    let log = File::options().create(true).append(true).open(log_file(dir)).expect("a log file");
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("TERN_") || key == "RUST_LOG") {
        command.env_remove(key);
    }
    match &options.serve {
        None => {
            command.args(["dev", "--json", "--data-dir"]).arg(data_dir);
            for (flag, port) in ["--port", "--http-port", "--ops-port"].into_iter().zip(ports) {
                command.arg(flag).arg(port.to_string());
            }
        }
        Some(config) => {
            command.args(["serve", "--json", "--config"]).arg(config);
            command.env("TERN__NODE__DATA_DIR", data_dir);
            for (key, port) in ["LISTEN__CLIENT", "LISTEN__HTTP", "OPS__LISTEN"].into_iter().zip(ports) {
                command.env(format!("TERN__{key}"), format!("127.0.0.1:{port}"));
            }
        }
    }
    command.envs(options.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = child.stdout.take().expect("it is piped");
    let (line, first_line) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut text = String::new();
        let _ = stdout.read_line(&mut text);
        let _ = line.send(text);
        // Whatever else is said must not fill the pipe.
        let _ = stdout.read_to_end(&mut Vec::new());
    });
    let text = tokio::time::timeout(HANG, first_line).await;
    let Ok(Ok(text)) = text else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server neither got ready nor ended\n{}", read_log(dir));
    };
    if text.is_empty() {
        let status = child.wait().expect("the process is ours");
        return Err(Exit { status, stderr: read_log(dir) });
    }
    match serde_json::from_str(&text) {
        Ok(ready) => Ok((child, ready)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the ready line is wrong: {error}\n{text}");
        }
    }
}
