//! A real CA that gives advice on renewals (RFC 9773): PyPI's `acme2certifier`.
//!
//! It validates nothing, issues for a day, and wants each certificate renewed within seconds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use openssl::x509::X509;
use tempfile::TempDir;

use super::{Ca, Port, curl, wait_for};

/// Runs until dropped.
pub struct Acme2Certifier {
    dir: TempDir,
    port: Port,
    root: Ca,
    ca_file: PathBuf,
    process: Child,
}

impl Acme2Certifier {
    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let api = Ca::new("Root of the API");
        let ca_file = api.write(dir.path());
        let (chain, key) = api.leaf(&["127.0.0.1"]).make().write(dir.path(), "api");
        let root = Ca::new("Issuing Root");
        fs::write(dir.path().join("ca.pem"), root.pem()).expect("ours");
        fs::write(dir.path().join("ca.key"), root.key_pem()).expect("ours");
        fs::create_dir(dir.path().join("saved")).expect("ours");
        let config = dir.path().join("acme_srv.cfg");
        // The window begins 8.64 s after the issue.
        let text = format!(
            "[CAhandler]\n\
             handler_module: acme2certifier.cahandlers.openssl_ca_handler\n\
             issuing_ca_key: {dir}/ca.key\n\
             issuing_ca_cert: {dir}/ca.pem\n\
             issuing_ca_crl: {dir}/crl.pem\n\
             cert_save_path: {dir}/saved\n\
             cert_validity_days: 1\n\
             [DBhandler]\n\
             handler: wsgi\n\
             dbfile: {dir}/acme.db\n\
             [Challenge]\n\
             challenge_validation_disable: True\n\
             [Renewalinfo]\n\
             renewalthreshold_pctg: 0.01\n\
             renewal_window_duration: 5\n\
             retry_after_timeout: 21600\n",
            dir = dir.path().display()
        );
        fs::write(&config, text).expect("ours");
        let port = Port::take();
        let log = File::create(dir.path().join("log")).expect("ours");
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let process = Command::new(project.join("target/acme2certifier/bin/python"))
            .arg(project.join("tests/gateway/support/acme2certifier.py"))
            .arg(port.number().to_string())
            .args([chain, key])
            .current_dir(dir.path())
            .env("ACME_SRV_CONFIGFILE", &config)
            .env("ACME2CERTIFIER_BASE_DIR", dir.path())
            .env("ACME2CERTIFIER_I_KNOW_THE_RISK", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("acme2certifier is installed by `scripts/install test`");
        let ca = Self {
            dir,
            port,
            root,
            ca_file,
            process,
        };
        wait_for("acme2certifier to answer", || {
            let reply = curl(&ca.directory()).cacert(ca.ca_file()).try_send();
            reply.is_ok_and(|reply| reply.status == 200).then_some(())
        });
        ca
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/directory", self.port.address())
    }

    /// What to trust for its directory.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// What signs its certificates.
    pub fn root(&self) -> &X509 {
        self.root.certificate()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Acme2Certifier {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- log of acme2certifier ---\n{}---", self.log());
        }
    }
}
