//! Tells the service manager how the node is (systemd's `sd_notify`): nothing where there is none.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Variable with the socket of the service manager.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Variable with the time within which it wants to hear from us, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// Variable with the process that is meant by that time.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The way to the service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Notify {
    socket: Option<PathBuf>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
        Self {
            socket: std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()).map(PathBuf::from),
            watchdog: number(WATCHDOG).filter(|_| ours).map(Duration::from_micros),
        }
    }

    /// Clients can connect.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read again; [`Notify::ready`] follows.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// The drain has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that the runtime still runs tasks, twice as often as asked. Never returns.
    pub(super) async fn keep_alive(&self) {
        let Some(every) = self.watchdog.map(|time| time / 2).filter(|every| !every.is_zero()) else {
            return std::future::pending().await;
        };
        loop {
            self.tell("WATCHDOG=1");
            tokio::time::sleep(every).await;
        }
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(state, %error, "the service manager was not told");
        }
    }
}

/// A name that begins with `@` is not a file but an abstract socket.
#[cfg(target_os = "linux")]
fn send(socket: &std::path::Path, state: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(_: &std::path::Path, _: &str) -> io::Result<()> {
    Ok(())
}
