//! A gateway as its users run it: the built program, a configuration file, ports of its own.

mod builder;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

use super::http1::{Response, connect, exchange, read_response};
use super::{Curl, Port, announcing, curl, wait_for};
pub use builder::Builder;
use builder::{pass, refuse};

/// Names the lane over which gateways send requests to upstreams; their own where it is not set.
const LANE: &str = "SNIGATE_TEST_LANE";

/// A running gateway; killed when dropped, its log shown where the test failed.
pub struct Gateway {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    /// The configuration file.
    pub config: PathBuf,
    child: Option<Child>,
    /// The end of its stderr that nobody reads.
    stderr: Option<PipeReader>,
    log: Arc<Mutex<String>>,
    builder: Builder,
}

impl Gateway {
    /// Begins one.
    pub fn builder() -> Builder {
        Builder {
            dir: tempfile::tempdir().expect("a directory"),
            ports: [Port::take(), Port::take(), Port::take()],
            more: Vec::new(),
            server: String::new(),
            rest: String::new(),
            token: None,
            environment: Vec::new(),
            relative: false,
            prelude: String::new(),
            wrapper: Vec::new(),
            is_unread: false,
            passed: Vec::new(),
            refused: Vec::new(),
            lane: std::env::var_os(LANE),
            is_announced: announcing::is_asked_for(),
        }
    }

    /// One with this configuration, ready; `server` is added.
    #[track_caller]
    pub fn start(yaml: impl AsRef<str>) -> Self {
        Self::builder().config(yaml).start()
    }

    /// Writes the configuration: what was given to the builder, then `yaml`.
    pub fn write_config(&self, yaml: &str) {
        let Builder {
            server,
            rest,
            token,
            ..
        } = &self.builder;
        let more = self.builder.more.iter();
        let https: Vec<String> = std::iter::once(self.https.to_string())
            .chain(more.cloned())
            .map(|address| format!("\"{address}\""))
            .collect();
        let mut text = format!(
            "server:\n  https: [{}]\n  http: [\"{}\"]\n  admin: \"{}\"\n",
            https.join(", "),
            self.http,
            self.admin
        );
        if !server.contains("grace_period") {
            text.push_str("  grace_period: 5s\n");
        }
        if self.builder.is_announced {
            let _ = writeln!(text, "  {}", announcing::TRUSTED);
        }
        if let Some(token) = token {
            let _ = writeln!(text, "  admin_token: {token:?}");
        }
        for line in server.lines() {
            let _ = writeln!(text, "  {line}");
        }
        if !rest.contains("storage:") && !yaml.contains("storage:") {
            text.push_str("storage:\n  file: { path: ./data }\n");
        }
        text.push_str(rest);
        text.push_str(yaml);
        self.write("snigate.yaml", &text);
    }

    /// Replaces all that was given to [`Builder::config`], without a reload.
    pub fn replace_config(&mut self, yaml: impl AsRef<str>) {
        self.builder.rest = format!("{}\n", yaml.as_ref());
        self.write_config("");
    }

    /// Writes a file beside the configuration, at once as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.builder.dir().join(name);
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, text).expect("a file");
        fs::rename(fresh, path).expect("a file");
    }

    pub fn dir(&self) -> &Path {
        self.builder.dir()
    }

    fn launch(&mut self) {
        let program = env!("CARGO_BIN_EXE_snigate");
        let prelude = &self.builder.prelude;
        let mut command = if let [first, rest @ ..] = &self.builder.wrapper[..] {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        } else if prelude.is_empty() {
            Command::new(program)
        } else {
            let mut shell = Command::new("sh");
            let script = format!("{prelude}exec \"$0\" \"$@\"");
            shell.args(["-c", &script, program]);
            shell
        };
        command.args(["run", "--config"]);
        if self.builder.relative {
            command.current_dir(self.dir()).arg("snigate.yaml");
        } else {
            command.arg(&self.config);
        }
        if let Some(lane) = &self.builder.lane {
            command.arg("--lane").arg(lane);
        }
        if !self.builder.passed.is_empty() {
            pass(&mut command, &self.builder.passed);
        }
        for refused in &self.builder.refused {
            refuse(&mut command, *refused);
        }
        let (unread, stderr) = if self.builder.is_unread {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
            (Some(reader), Stdio::from(writer))
        } else {
            (None, Stdio::piped())
        };
        self.stderr = unread;
        if !Uid::effective().is_root() {
            // Only root sees the descriptors of a process that may not be dumped.
            command.env("SNIGATE_CORE_DUMPS", "1");
        }
        let mut child = command
            .env_remove("NOTIFY_SOCKET")
            .envs(
                self.builder
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        self.collect(stdout);
        if let Some(stderr) = child.stderr.take() {
            self.collect(stderr);
        }
        self.child = Some(child);
    }

    fn collect(&self, stream: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let mut log = log.lock().expect("not poisoned");
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
    }

    /// Waits until `/readyz` answers 200; fails at once where the process ends before.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        wait_for("the gateway to be ready", || {
            if let Some(status) = self.exited() {
                panic!("the gateway ended with {status}:\n{}", self.log());
            }
            let mut stream = std::net::TcpStream::connect(self.admin).ok()?;
            let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            exchange(&mut stream, request)
                .starts_with(b"HTTP/1.1 200")
                .then_some(())
        });
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || {
            self.log().contains(text).then_some(())
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running gateway").id()
    }

    /// Whether it runs; a crash of it is no reason to wait for anything.
    pub fn is_running(&self) -> bool {
        self.child.as_ref().is_some_and(|child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()));
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit(") ").next().unwrap_or_default();
            !state.is_empty() && !state.starts_with('Z')
        })
    }

    /// How it ended, where it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).expect("a signal to a running gateway");
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the gateway to end", || self.exited());
        self.child = None;
        status
    }

    /// Stops it gracefully.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, on the same ports and with the same files, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_unready();
        self.wait_until_ready();
    }

    /// Starts it again without waiting for anything.
    pub fn restart_unready(&mut self) {
        self.kill();
        self.launch();
    }

    /// A request to the admin interface.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str) -> Response {
        let token = self.builder.token.as_ref();
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}Content-Length: 0\r\n\r\n",
            self.admin
        );
        let mut stream = connect(self.admin);
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
        read_response(&mut stream).expect("an answer of the admin interface")
    }

    /// Makes it read its configuration again: the status, and what it says.
    #[track_caller]
    pub fn reload(&self) -> (u16, Value) {
        let answer = self.ask("POST", "/api/v1/reload");
        (
            answer.status,
            serde_json::from_slice(&answer.body).expect("JSON"),
        )
    }

    /// The value of a metric with these labels, as `snigate_connections{listener="https"}`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.ask("GET", "/metrics").text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Makes every write to a file fail as on a full disk, or no longer.
    pub fn fill_disk(&self, full: bool) {
        let limit = if full { "0:unlimited" } else { "unlimited" };
        let done = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string()])
            .arg(format!("--fsize={limit}"))
            .status()
            .expect("Debian's package util-linux is installed");
        assert!(done.success(), "prlimit: {done}");
    }

    /// Lets no file of it grow beyond this many octets, as on a disk that is about to be full.
    pub fn limit_files(&self, octets: u64) {
        let done = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string()])
            .arg(format!("--fsize={octets}:unlimited"))
            .status()
            .expect("Debian's package util-linux is installed");
        assert!(done.success(), "prlimit: {done}");
    }

    /// The processes that it, or what runs it, has started, with that which it is by `run_by`.
    pub fn children(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// How many bytes of memory it has resident.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Begins a request over HTTPS to `host`, which curl takes to be at this gateway.
    pub fn curl(&self, host: &str, path: &str) -> Curl {
        let url = format!("https://{host}:{}{path}", self.https.port());
        self.announced(curl(&url).resolve(host, self.https))
    }

    /// The same over plain HTTP.
    pub fn curl_http(&self, host: &str, path: &str) -> Curl {
        let url = format!("http://{host}:{}{path}", self.http.port());
        self.announced(curl(&url).resolve(host, self.http))
    }

    fn announced(&self, curl: Curl) -> Curl {
        match self.builder.is_announced {
            true => curl.arg("--haproxy-protocol"),
            false => curl,
        }
    }
}

/// The children of a process, zombies among them.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        announcing::expect_headers([self.https, self.http], false);
        if thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}---", self.log());
        }
    }
}
