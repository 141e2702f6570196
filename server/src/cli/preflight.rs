//! Is this machine ready: ports that are free, directories that can be written. Nothing stays behind.

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

/// The TCP port can be listened on.
pub fn tcp_port(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// The UDP port can be listened on.
pub fn udp_port(address: SocketAddr) -> io::Result<()> {
    UdpSocket::bind(address).map(drop)
}

/// The directory can be written, or could be made where it does not exist.
pub fn writable_directory(path: &Path) -> io::Result<()> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is a file", existing.display()),
        ));
    }
    let probe = existing.join(format!(".tern-probe-{:016x}", rand::random::<u64>()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_and_a_free_one_is_not_taken() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(tcp_port(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(tcp);
        tcp_port(address).unwrap();
        tcp_port(address).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp_port(udp.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_directory_that_could_be_made_is_fine_and_is_not_made() {
        let dir = tempfile::TempDir::new().unwrap();
        writable_directory(dir.path()).unwrap();
        writable_directory(&dir.path().join("a/b")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = writable_directory(&dir.path().join("file/b")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
