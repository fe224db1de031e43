//! A real Prometheus and its `promtool`, of Debian's package `prometheus`. Only its programs are used,
//! unpacked by `scripts/install test`: the package would start a service.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{CurlReply, Port, curl, wait_for};

/// Runs until dropped.
pub struct Prometheus {
    dir: TempDir,
    port: Port,
    process: Child,
}

fn program(name: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus/usr/bin");
    let unpacked = installed.join(name);
    match unpacked.exists() {
        true => unpacked,
        false => name.into(),
    }
}

/// Runs `promtool` with this input: whether it is content, and what it says.
pub fn promtool(arguments: &[&str], input: &[u8]) -> (bool, String) {
    let mut process = Command::new(program("promtool"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by `scripts/install test`");
    let mut stdin = process.stdin.take().expect("a pipe");
    // It may read nothing.
    _ = stdin.write_all(input);
    drop(stdin);
    let output = process.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

impl Prometheus {
    /// Starts one that scrapes `target` every few seconds, as the job `snigate`, with the rules of the file
    /// at `rules`.
    #[track_caller]
    pub fn start(target: SocketAddr, rules: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = Port::take();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(rules);
        let config = format!(
            "global: {{ scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 1s }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n\
             - job_name: snigate\n  static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("ours");
        let log = File::create(dir.path().join("log")).expect("ours");
        let process = Command::new(program("prometheus"))
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg("--enable-feature=exemplar-storage")
            .arg(format!("--web.listen-address={}", port.address()))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("prometheus is installed by `scripts/install test`");
        let prometheus = Self { dir, port, process };
        wait_for("Prometheus to be ready", || {
            let reply = prometheus.ask("/-/ready", &[]);
            reply.is_ok_and(|reply| reply.status == 200).then_some(())
        });
        prometheus
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<CurlReply, String> {
        let mut ask = curl(&format!("http://{}{path}", self.port.address())).arg("--get");
        for (name, value) in parameters {
            ask = ask.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        ask.try_send()
    }

    /// The `data` of an answer of its API.
    #[track_caller]
    pub fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let reply = self.ask(path, parameters).expect("an answer");
        let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// How many series an expression has now.
    #[track_caller]
    pub fn count(&self, expression: &str) -> usize {
        let data = self.data("/api/v1/query", &[("query", expression)]);
        data["result"].as_array().map_or(0, Vec::len)
    }

    /// The value of the first series of an expression, 0 if it has none.
    #[track_caller]
    pub fn value(&self, expression: &str) -> f64 {
        let data = self.data("/api/v1/query", &[("query", expression)]);
        let value = data["result"][0]["value"][1].as_str();
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- prometheus ---\n{}", self.log());
        }
    }
}
