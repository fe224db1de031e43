//! What stands still: the reader of the log, the data plane itself.

use std::ffi::OsStr;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use super::{SECOND, in_front_of};
use crate::support::{Builder, Gateway, Origin, TlsClient, wait_for, within};

/// A gateway whose upstream is dead, so that each request is worth a line in its log.
fn without_upstream() -> (Builder, crate::support::Port) {
    let nobody = Origin::refusing();
    let builder = crate::support::serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: off, level: \"trace\" }}\n",
            nobody.address()
        ),
    );
    (builder, nobody)
}

/// The status of a request on a connection of its own.
fn get(gateway: &Gateway) -> u16 {
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream.get("a.test", "/").status
}

#[test]
fn a_reader_of_stderr_that_stalls_stops_nothing() {
    let (builder, _nobody) = without_upstream();
    let mut gateway = builder.unread().start();
    // At this level the pipe was full before the first.
    for _ in 0..100 {
        assert_eq!(get(&gateway), 502);
    }
    assert_eq!(gateway.ask("GET", "/healthz").status, 200);
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(start.elapsed() < SECOND * 10, "{:?}", start.elapsed());
}

/// A pipe that is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    writer
        .write_all(&vec![b'x'; usize::try_from(room).expect("a size")])
        .expect("there is room");
    (reader, writer)
}

/// The exit code of the program, which says what it has to say to a pipe that nobody reads.
#[track_caller]
fn code_unread(arguments: &[&OsStr]) -> Option<i32> {
    let (_reader, writer) = full_pipe();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snigate"))
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .expect("the program starts");
    let until = Instant::now() + SECOND * 20;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        std::thread::sleep(SECOND / 50);
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    panic!("it waits for the reader of its last message");
}

#[test]
fn what_fails_ends_though_nobody_reads_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let file = |name: &str, https: &str, more: &str| {
        let path = dir.path().join(name);
        let text = format!(
            "server: {{ https: [{https}], http: [\"127.0.0.1:0\"], admin: off }}\n\
             storage: {{ file: {{ path: data }} }}\n\
             sites: [{{ hosts: [a.test], tls: off, routes: [{{ respond: {{ status: 200 }} }}] }}]\n\
             {more}"
        );
        fs::write(&path, text).expect("a file");
        path
    };
    let address = format!("\"{}\"", taken.local_addr().expect("an address"));
    let in_use = file("in_use.yaml", &address, "");
    let odd = file(
        "odd.yaml",
        &address,
        "upstreams: { unused: { servers: [\"127.0.0.1:1\"] } }\n",
    );
    // More than the queue before a pipe holds, too.
    let wrong: String = (0..500).map(|n| format!("nonsense{n}: 1\n")).collect();
    let invalid = file("invalid.yaml", "", &wrong);
    let config = OsStr::new("--config");
    std::thread::scope(|scope| {
        for (verb, file, code) in [
            ("run", &in_use, 1),
            ("run", &odd, 1),
            ("run", &invalid, 3),
            ("check", &invalid, 3),
        ] {
            scope.spawn(move || {
                let arguments = [OsStr::new(verb), config, file.as_os_str()];
                assert_eq!(code_unread(&arguments), Some(code), "{arguments:?}");
            });
        }
        assert_eq!(code_unread(&[OsStr::new("nonsense")]), Some(2));
    });
}

#[test]
fn a_reader_that_is_only_slow_is_told_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snigate.yaml");
    let wrong: String = (0..500).map(|n| format!("nonsense{n}: 1\n")).collect();
    fs::write(&path, wrong).expect("a file");
    let (mut reader, writer) = full_pipe();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snigate"))
        .args(["check", "--config"])
        .arg(&path)
        .stderr(writer)
        .spawn()
        .expect("the program starts");
    let mut said = Vec::new();
    // Each read makes room for as much.
    let mut part = [0; 512];
    loop {
        match reader.read(&mut part).expect("a pipe") {
            0 => break,
            count => said.extend_from_slice(&part[..count]),
        }
    }
    assert_eq!(child.wait().expect("ended").code(), Some(3));
    let said = String::from_utf8_lossy(&said);
    for n in 0..500 {
        assert!(said.contains(&format!("nonsense{n}'")), "{n}: {said}");
    }
}

/// Threads that stand still until this is dropped, as in a system call that does not return.
struct Frozen(Vec<libc::pid_t>);

impl Frozen {
    /// Those of a process with this name.
    fn threads(pid: u32, name: &str) -> Self {
        let mut frozen = Self(Vec::new());
        for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
            let path = entry.expect("a thread").path();
            let known = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if known.trim_end() != name {
                continue;
            }
            let thread = path.file_name().and_then(|id| id.to_str()?.parse().ok());
            let thread: libc::pid_t = thread.expect("a thread's id");
            // SAFETY: neither request takes or gives memory.
            let stopped = unsafe {
                libc::ptrace(libc::PTRACE_SEIZE, thread, 0_usize, 0_usize) == 0
                    && libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0_usize, 0_usize) == 0
            };
            assert!(stopped, "{}", std::io::Error::last_os_error());
            frozen.0.push(thread);
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for thread in &self.0 {
            // SAFETY: it takes no status, and a request that lets a thread go takes no memory.
            unsafe {
                libc::waitpid(*thread, std::ptr::null_mut(), libc::__WALL);
                libc::ptrace(libc::PTRACE_DETACH, *thread, 0_usize, 0_usize);
            }
        }
    }
}

#[test]
fn health_is_that_of_the_data_plane() {
    let origin = Origin::named("x");
    let gateway = in_front_of(&origin).server("threads: 2").start();
    let health = || gateway.ask("GET", "/healthz");
    assert_eq!(health().status, 200);
    let frozen = Frozen::threads(gateway.pid(), "edge");
    assert_eq!(frozen.0.len(), 2, "the threads that serve");
    let told = within(SECOND * 20, "/healthz to see it", || {
        let answer = health();
        (answer.status == 503).then(|| answer.text())
    });
    assert!(told.contains("the data plane is stuck"), "{told}");
    drop(frozen);
    wait_for("/healthz to see that it continues", || {
        (health().status == 200).then_some(())
    });
    assert_eq!(get(&gateway), 200);
}

#[test]
fn systemd_s_watchdog_is_that_of_the_data_plane() {
    let origin = Origin::named("x");
    let builder = in_front_of(&origin).server("threads: 1");
    let path = builder.dir().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let told = || {
        let mut text = [0; 2048];
        let length = socket.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..length]).into_owned())
    };
    let hears = |wanted: &str| wait_for(wanted, || told().filter(|told| told.contains(wanted)));
    let mut gateway = builder
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .env("WATCHDOG_USEC", "600000")
        .spawn();
    hears("READY=1");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");

    let frozen = Frozen::threads(gateway.pid(), "edge");
    gateway.wait_for_log("systemd's watchdog is not notified");
    while told().is_some() {}
    let log = gateway
        .log()
        .matches("systemd's watchdog is not notified")
        .count();
    wait_for("it to be silent on", || {
        let again = gateway
            .log()
            .matches("systemd's watchdog is not notified")
            .count();
        (again >= log + 2).then_some(())
    });
    assert_eq!(told(), None);
    drop(frozen);
    hears("WATCHDOG=1");

    // What became of a reload, however it was asked for.
    gateway.write_config("nonsense: 1\n");
    gateway.signal(Signal::SIGHUP);
    let refused = hears("refused");
    assert!(refused.starts_with("STATUS="), "{refused}");
    assert!(refused.contains("'nonsense'"), "{refused}");
    gateway.write_config("");
    gateway.signal(Signal::SIGHUP);
    let status = hears("STATUS=serving");
    assert_eq!(status.trim_end(), "STATUS=serving");
    gateway.signal(Signal::SIGTERM);
    hears("STOPPING=1");
    assert_eq!(gateway.wait().code(), Some(0));
}

/// The unit's lines that begin with this.
fn unit(key: &str) -> String {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/snigate.service"));
    let unit = unit.expect("the unit");
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key));
    let value = lines.next().and_then(|line| line.strip_prefix('='));
    value
        .unwrap_or_else(|| panic!("the unit has no {key}"))
        .to_owned()
}

#[test]
fn systemctl_reload_fails_where_the_reload_was_refused() {
    assert_eq!(unit("Type"), "notify");
    assert_eq!(unit("LimitCORE"), "0");
    assert!(!unit("WatchdogSec").is_empty());
    let origin = Origin::named("x");
    let gateway = in_front_of(&origin).start();
    let command = unit("ExecReload");
    let reload = || {
        let words = command.split_whitespace().map(|word| match word {
            "/usr/bin/snigate" => env!("CARGO_BIN_EXE_snigate").into(),
            "/etc/snigate/snigate.yaml" => gateway.config.clone().into_os_string(),
            word => word.into(),
        });
        let words: Vec<std::ffi::OsString> = words.collect();
        let output = Command::new(&words[0])
            .args(&words[1..])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = reload();
    assert_eq!(code, Some(0), "{said}");
    gateway.write_config("nonsense: 1\n");
    let (code, said) = reload();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("'nonsense'"), "{said}");
}

#[test]
fn no_core_dump_holds_a_key() {
    let origin = Origin::named("x");
    let limit = |gateway: &Gateway| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid()));
        let limits = limits.expect("it runs");
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"));
        let mut words = line.expect("a limit").split_whitespace();
        (
            words.next().map(str::to_owned),
            words.next().map(str::to_owned),
        )
    };
    let none = (Some("0".to_owned()), Some("0".to_owned()));
    let usual = in_front_of(&origin).env("SNIGATE_CORE_DUMPS", "0").start();
    assert_eq!(limit(&usual), none);
    let asked = in_front_of(&origin).env("SNIGATE_CORE_DUMPS", "1").start();
    let hard = fs::read_to_string("/proc/self/limits").expect("limits");
    if hard.contains("Max core file size        0                    0") {
        return;
    }
    assert_ne!(limit(&asked), none);
}
