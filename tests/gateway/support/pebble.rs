//! A real CA: Let's Encrypt's `pebble` with its DNS server `pebble-challtestsrv`, on ports of their
//! own. It validates for real, and finds every name at 127.0.0.1 unless told otherwise.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Ca, Port, curl, wait_for};

/// A CA to be.
pub struct PebbleBuilder {
    http: u16,
    tls: u16,
    environment: Vec<(String, String)>,
    eab: Vec<(String, String)>,
    validity: u64,
    blocked: Vec<String>,
    resolver: Option<SocketAddr>,
    ocsp: Option<String>,
}

impl PebbleBuilder {
    /// Where http-01 is validated; a port where nothing listens unless given.
    pub fn http_port(mut self, port: u16) -> Self {
        self.http = port;
        self
    }

    /// Where tls-alpn-01 is validated; a port where nothing listens unless given.
    pub fn tls_port(mut self, port: u16) -> Self {
        self.tls = port;
        self
    }

    /// Sets one of its variables, `PEBBLE_WFE_NONCEREJECT`; the last one counts.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks new accounts for an external binding, and knows this key (base64url) among others.
    pub fn eab(mut self, id: &str, key: &str) -> Self {
        self.eab.push((id.to_owned(), key.to_owned()));
        self
    }

    /// How long its certificates are valid, in seconds.
    pub fn validity(mut self, seconds: u64) -> Self {
        self.validity = seconds;
        self
    }

    /// Looks names up at this server instead of its own resolver.
    pub fn resolver(mut self, address: SocketAddr) -> Self {
        self.resolver = Some(address);
        self
    }

    /// Names this OCSP responder in its certificates.
    pub fn ocsp(mut self, url: &str) -> Self {
        self.ocsp = Some(url.to_owned());
        self
    }

    /// Refuses this name and all below it.
    pub fn blocked(mut self, domain: &str) -> Self {
        self.blocked.push(domain.to_owned());
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Pebble {
        let dir = tempfile::tempdir().expect("a directory");
        let [api, management, dns, dns_management] =
            [Port::take(), Port::take(), Port::take(), Port::take()];
        // A name of its own, so that the roots of several go into one file.
        let ca = Ca::new(&format!("Root of the API at {}", api.number()));
        let ca_file = ca.write(dir.path());
        let (cert, key) = ca
            .leaf(&["localhost", "127.0.0.1"])
            .make()
            .write(dir.path(), "api");
        let keys: serde_json::Map<String, Value> = self
            .eab
            .iter()
            .map(|(id, key)| (id.clone(), json!(key)))
            .collect();
        let config = json!({ "pebble": {
            "listenAddress": api.address().to_string(),
            "managementListenAddress": management.address().to_string(),
            "certificate": cert,
            "privateKey": key,
            "httpPort": self.http,
            "tlsPort": self.tls,
            "externalAccountBindingRequired": !keys.is_empty(),
            "externalAccountMACKeys": keys,
            "domainBlocklist": self.blocked,
            "certificateValidityPeriod": self.validity,
            "ocspResponderURL": self.ocsp.unwrap_or_default(),
        }});
        let config_file = dir.path().join("pebble.json");
        fs::write(&config_file, config.to_string()).expect("ours");
        let log = File::create(dir.path().join("dns.log")).expect("ours");
        let resolver = Command::new("pebble-challtestsrv")
            .args(["-management", &dns_management.address().to_string()])
            .args(["-dns01", &dns.address().to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package pebble is installed");
        let mut pebble = Pebble {
            dir,
            ca_file,
            config_file,
            environment: self.environment,
            asked: self.resolver.unwrap_or_else(|| dns.address()),
            ports: [api, management, dns, dns_management],
            resolver,
            process: None,
        };
        pebble.launch();
        pebble
    }
}

/// A running CA; killed when dropped, its log shown where the test failed.
pub struct Pebble {
    dir: TempDir,
    ca_file: PathBuf,
    config_file: PathBuf,
    environment: Vec<(String, String)>,
    /// Where it looks names up.
    asked: SocketAddr,
    /// Of its API, its management, its resolver and the resolver's management.
    ports: [Port; 4],
    resolver: Child,
    process: Option<Child>,
}

impl Pebble {
    /// Begins one. It validates at once and each time anew, and rejects 30% of all good nonces.
    pub fn builder() -> PebbleBuilder {
        PebbleBuilder {
            // RFC 863's port, where nobody listens.
            http: 9,
            tls: 9,
            environment: vec![
                ("PEBBLE_VA_NOSLEEP".to_owned(), "1".to_owned()),
                ("PEBBLE_WFE_NONCEREJECT".to_owned(), "30".to_owned()),
                ("PEBBLE_AUTHZREUSE".to_owned(), "0".to_owned()),
            ],
            eab: Vec::new(),
            validity: 90 * 86_400,
            blocked: Vec::new(),
            resolver: None,
            ocsp: None,
        }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.ports[0].address())
    }

    /// What to trust for its directory; not what it issues from.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The root that its certificates lead to, PEM, made anew at each start.
    pub fn root(&self) -> String {
        self.management("/roots/0")
    }

    /// The certificate that it issues with, and its key, PEM.
    pub fn intermediate(&self) -> (String, String) {
        let key = self.management("/intermediate-keys/0");
        (self.management("/intermediates/0"), key)
    }

    /// All its roots (`PEBBLE_ALTERNATE_ROOTS`), PEM.
    pub fn roots(&self) -> Vec<String> {
        (0..)
            .map_while(|number| self.try_management(&format!("/roots/{number}")))
            .collect()
    }

    /// What it knows of a certificate by its serial number: `Status`, and `Reason` of a revocation.
    pub fn status(&self, serial: &str) -> Value {
        let path = format!("/cert-status-by-serial/{serial}");
        serde_json::from_str(&self.management(&path)).expect("JSON")
    }

    /// Writes [`Self::root`] into a file for `curl --cacert` and the like.
    pub fn write_root(&self) -> PathBuf {
        let path = self.dir.path().join("issuing-root.pem");
        fs::write(&path, self.root()).expect("ours");
        path
    }

    /// Makes `host` lead to these IPv4 addresses; to none where there are none.
    pub fn resolve(&self, host: &str, addresses: &[&str]) {
        let name = format!("{host}.");
        if addresses.is_empty() {
            // There is no record of type A, and the default has to go.
            self.resolver("/set-servfail", &json!({ "host": name }));
        } else {
            self.resolver("/add-a", &json!({ "host": name, "addresses": addresses }));
        }
    }

    /// Asks its resolver's management interface, `/add-caa` for one.
    pub fn resolver(&self, path: &str, body: &Value) {
        let url = format!("{}{path}", self.resolver_url());
        let reply = wait_for("the resolver's management interface", || {
            curl(&url)
                .args(["--data", &body.to_string()])
                .try_send()
                .ok()
        });
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The URL of its resolver's management interface.
    pub fn resolver_url(&self) -> String {
        format!("http://{}", self.ports[3].address())
    }

    /// All that it has said since [`Self::builder`].
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default()
    }

    /// Ends it at once, as a power cut would. Its resolver lives on.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends it and starts it again, at the same ports: it has forgotten all accounts and orders, and
    /// has new roots.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    #[track_caller]
    fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("pebble.log"))
            .expect("ours");
        let process = Command::new("pebble")
            .arg("-config")
            .arg(&self.config_file)
            .args(["-dnsserver", &self.asked.to_string()])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package pebble is installed");
        self.process = Some(process);
        wait_for("the CA to answer", || {
            let reply = curl(&self.directory()).cacert(&self.ca_file).try_send();
            reply.is_ok_and(|reply| reply.status == 200).then_some(())
        });
    }

    fn management(&self, path: &str) -> String {
        self.try_management(path)
            .unwrap_or_else(|| panic!("no {path} at the CA"))
    }

    fn try_management(&self, path: &str) -> Option<String> {
        let url = format!("https://{}{path}", self.ports[1].address());
        let reply = curl(&url)
            .cacert(&self.ca_file)
            .try_send()
            .expect("it runs");
        (reply.status == 200).then(|| reply.text())
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        let _ = self.resolver.kill();
        let _ = self.resolver.wait();
        if thread::panicking() {
            eprintln!("--- log of pebble ---\n{}---", self.log());
        }
    }
}
