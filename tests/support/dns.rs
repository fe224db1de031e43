//! A name server: `pebble-challtestsrv`, for which every name is at 127.0.0.1.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{Port, wait_for};

/// Runs until dropped.
pub struct NameServer {
    process: Child,
    _management: Port,
}

impl NameServer {
    /// Starts one at this address.
    #[track_caller]
    pub fn start(address: SocketAddr) -> Self {
        let management = Port::take();
        let process = Command::new("pebble-challtestsrv")
            .args(["-management", &management.address().to_string()])
            .args(["-dns01", &address.to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package pebble is installed");
        wait_for("the name server", || TcpStream::connect(address).ok());
        Self {
            process,
            _management: management,
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
