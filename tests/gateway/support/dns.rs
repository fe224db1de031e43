//! A name server: `pebble-challtestsrv`, for which every name is at 127.0.0.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::{Port, wait_for};

/// Runs until dropped.
pub struct NameServer {
    process: Child,
    management: Port,
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
            management,
        }
    }

    /// Lets no CA but `ca` issue for `domain` and what is below it (RFC 8659).
    #[track_caller]
    pub fn forbid(&self, domain: &str, ca: &str) {
        let policies = json!([{ "tag": "issue", "value": ca }]);
        let body = json!({ "host": format!("{domain}."), "policies": policies }).to_string();
        let mut stream = TcpStream::connect(self.management.address()).expect("it manages");
        let head = format!(
            "POST /add-caa HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("written");
        stream.write_all(body.as_bytes()).expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert!(reply.contains("200 OK"), "{reply}");
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
