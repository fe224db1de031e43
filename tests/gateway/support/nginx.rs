//! Debian's `nginx` as an upstream, which reads the PROXY protocol by code that is not ours.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::certs::Pair;
use super::{Port, wait_for};

/// Runs until dropped. Answers with what a connection's header said: the addresses and ports of the
/// client and of what it connected to, and which request of its connection this is.
pub struct Nginx {
    dir: TempDir,
    port: Port,
    process: Child,
}

impl Nginx {
    /// One that requires the header, with TLS after it if there is a certificate.
    #[track_caller]
    pub fn reading_proxy_protocol(pair: Option<&Pair>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = Port::take();
        let path = dir.path().display();
        let tls = pair.map(|pair| {
            let (cert, key) = pair.write(dir.path(), "server");
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                cert.display(),
                key.display()
            )
        });
        let ssl = if tls.is_some() { "ssl" } else { "" };
        let config = format!(
            "daemon off;
            master_process off;
            pid {path}/nginx.pid;
            error_log stderr;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path {path}/body;
                proxy_temp_path {path}/proxy;
                fastcgi_temp_path {path}/fastcgi;
                uwsgi_temp_path {path}/uwsgi;
                scgi_temp_path {path}/scgi;
                server {{
                    listen {address} proxy_protocol {ssl};
                    {tls}
                    location / {{
                        return 200 \"$proxy_protocol_addr $proxy_protocol_port \
                $proxy_protocol_server_addr $proxy_protocol_server_port $connection_requests\";
                    }}
                }}
            }}\n",
            address = port.address(),
            tls = tls.unwrap_or_default(),
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).expect("ours");
        let log = File::create(dir.path().join("nginx.log")).expect("ours");
        let process = Command::new("nginx")
            .env(
                "PATH",
                format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
            )
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

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("nginx.log"));
            eprintln!("--- log of nginx ---\n{}---", log.unwrap_or_default());
        }
    }
}
