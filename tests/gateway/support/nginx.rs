//! Debian's `nginx` as an upstream.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::certs::Pair;
use super::{Port, wait_for};

/// Runs until dropped.
pub struct Nginx {
    dir: TempDir,
    port: Port,
    process: Child,
}

impl Nginx {
    /// One that requires the header of the PROXY protocol, with TLS after it if there is a
    /// certificate. Answers with what the header said: the addresses and ports of the client and of
    /// what it connected to, and which request of its connection this is.
    #[track_caller]
    pub fn reading_proxy_protocol(pair: Option<&Pair>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = pair.map(|pair| {
            let (cert, key) = pair.write(dir.path(), "server");
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                cert.display(),
                key.display()
            )
        });
        let options = match tls {
            Some(_) => "proxy_protocol ssl",
            None => "proxy_protocol",
        };
        let location = "location / { return 200 \"$proxy_protocol_addr $proxy_protocol_port \
                        $proxy_protocol_server_addr $proxy_protocol_server_port \
                        $connection_requests\"; }";
        Self::run(dir, options, &(tls.unwrap_or_default() + location))
    }

    /// One with these locations, which speaks HTTP/1.1, or with `h2` HTTP/2 by prior knowledge.
    /// Its files are in [`Self::root`], which locations call `root`.
    #[track_caller]
    pub fn serving(protocol: &str, locations: &str) -> Self {
        let options = if protocol == "h2" { "http2" } else { "" };
        Self::run(
            tempfile::tempdir().expect("a directory"),
            options,
            locations,
        )
    }

    #[track_caller]
    fn run(dir: TempDir, options: &str, server: &str) -> Self {
        let port = Port::take();
        let path = dir.path().display();
        let address = port.address();
        let config = format!(
            "daemon off;
            master_process off;
            pid {path}/nginx.pid;
            error_log stderr;
            events {{}}
            http {{
                access_log off;
                default_type text/plain;
                client_body_temp_path {path}/body;
                proxy_temp_path {path}/proxy;
                fastcgi_temp_path {path}/fastcgi;
                uwsgi_temp_path {path}/uwsgi;
                scgi_temp_path {path}/scgi;
                server {{
                    listen {address} {options};
                    root root;
                    client_max_body_size 0;
                    {server}
                }}
            }}\n",
        );
        fs::create_dir(dir.path().join("root")).expect("a directory");
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).expect("ours");
        let log = File::create(dir.path().join("nginx.log")).expect("ours");
        let process = Command::new("nginx")
            .env(
                "PATH",
                format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
            )
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package nginx is installed");
        let nginx = Self { dir, port, process };
        wait_for("nginx", || TcpStream::connect(nginx.address()).ok());
        nginx
    }

    /// The directory of its files.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("nginx.log"));
            eprintln!("--- log of nginx ---\n{}---", log.unwrap_or_default());
        }
    }
}
