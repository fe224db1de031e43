//! Another real CA: Debian's `caddy` with `acme_server`.
//!
//! It validates at ports 80 and 443 of what the system's name server says, so it needs
//! [`super::in_own_network`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{Port, curl, wait_for};

/// Runs until dropped.
pub struct Caddy {
    dir: TempDir,
    port: Port,
    process: Child,
}

impl Caddy {
    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (http, https) = (Port::take(), Port::take());
        let config = format!(
            "{{
                admin off
                storage file_system {data}
                skip_install_trust
                http_port {http}
                https_port {https}
                auto_https disable_redirects
                default_bind 127.0.0.1
            }}
            https://127.0.0.1:{https} {{
                tls internal
                acme_server
            }}\n",
            data = dir.path().join("data").display(),
            http = http.number(),
            https = https.number(),
        );
        let file = dir.path().join("Caddyfile");
        fs::write(&file, config).expect("ours");
        let log = File::create(dir.path().join("caddy.log")).expect("ours");
        let process = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("HOME", dir.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package caddy is installed");
        let caddy = Self {
            dir,
            port: https,
            process,
        };
        wait_for("the other CA to answer", || {
            let reply = curl(&caddy.directory()).cacert(&caddy.root()).try_send();
            reply.is_ok_and(|reply| reply.status == 200).then_some(())
        });
        caddy
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/acme/local/directory", self.port.address())
    }

    /// The root of all its certificates, of its directory too.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("data/pki/authorities/local/root.crt")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(self.dir.path()).join("caddy.log")).unwrap_or_default()
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- log of caddy ---\n{}---", self.log());
        }
    }
}
