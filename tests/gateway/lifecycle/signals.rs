//! Signals from the first instant on, and as the first process of a container.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Builder, Gateway, children, wait_for};

/// A new namespace of processes, of which the program is the first. Any user may make one.
const FIRST_PROCESS: [&str; 5] = [
    "unshare",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
];

fn builder() -> Builder {
    Gateway::builder().config(
        "sites: [{ hosts: [a.test], tls: off, routes: [{ respond: { body: x } }] }]\n\
         log: { access: off }\n",
    )
}

/// Some thousand sites, so that the start takes its time.
fn slow_builder() -> Builder {
    let sites: String = (0..3000)
        .map(|number| {
            format!(
                "  - {{ hosts: [s{number}.test], tls: off, routes: [{{ respond: {{ body: x }} }}] }}\n"
            )
        })
        .collect();
    Gateway::builder().config(format!("log: {{ access: off }}\nsites:\n{sites}"))
}

/// Whether a process holds a signal back, or has a handler for it.
fn minds(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & 1 << (signal as u32 - 1) != 0)
    };
    status.starts_with("Name:\tsnigate") && (has("SigBlk:") || has("SigCgt:"))
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    kill(pid, signal).expect("a signal to a running gateway");
}

/// The program itself, where another one runs it, as soon as it minds signals. While it waits for
/// one, the kernel does not show it as held back.
fn first_process(gateway: &Gateway) -> u32 {
    wait_for("the program to mind signals", || {
        let pid = *gateway.children().first()?;
        (minds(pid, Signal::SIGTERM) || !children(pid).is_empty()).then_some(pid)
    })
}

#[test]
fn a_signal_during_the_start_is_not_lost() {
    let mut gateway = slow_builder().spawn();
    let pid = gateway.pid();
    wait_for("the program to mind signals", || {
        minds(pid, Signal::SIGHUP).then_some(())
    });
    gateway.signal(Signal::SIGHUP);
    gateway.wait_until_ready();
    gateway.wait_for_log("configuration reloaded");
    assert_eq!(gateway.stop().code(), Some(0));

    // At any moment of the start.
    for moment in ["minded", "bound", "ready"] {
        gateway.restart_unready();
        let pid = gateway.pid();
        wait_for("the program to mind signals", || {
            minds(pid, Signal::SIGTERM).then_some(())
        });
        match moment {
            "bound" => wait_for("the listener", || {
                std::net::TcpStream::connect(gateway.http).ok().map(drop)
            }),
            "ready" => gateway.wait_until_ready(),
            _ => {}
        }
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.wait().code(), Some(0), "{moment}");
    }
}

#[test]
fn the_first_process_of_a_container_minds_signals_from_the_first_instant() {
    let mut gateway = slow_builder().run_by(&FIRST_PROCESS).spawn();
    let first = first_process(&gateway);
    send(first, Signal::SIGHUP);
    gateway.wait_until_ready();
    gateway.wait_for_log("configuration reloaded");
    send(first, Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(0));

    for is_ready in [false, true] {
        gateway.restart_unready();
        let first = first_process(&gateway);
        if is_ready {
            gateway.wait_until_ready();
        }
        send(first, Signal::SIGTERM);
        assert_eq!(gateway.wait().code(), Some(0), "ready: {is_ready}");
    }

    // One that cannot start ends as it would elsewhere.
    gateway.write("snigate.yaml", "nonsense: 1\n");
    gateway.restart_unready();
    assert_eq!(gateway.wait().code(), Some(3));
}

#[test]
fn the_first_process_of_a_container_reaps_orphans() {
    let gateway = builder().run_by(&FIRST_PROCESS).start();
    let first = first_process(&gateway);
    let own = children(first);
    assert_eq!(own.len(), 1, "the gateway itself");
    // Its parent ends before it does.
    let done = Command::new("nsenter")
        .args(["--user", "--preserve-credentials", "--pid", "--target"])
        .arg(first.to_string())
        .args([
            "sh",
            "-c",
            "for i in 1 2 3; do (sleep 600 >/dev/null 2>&1 &); done",
        ])
        .output()
        .expect("Debian's package util-linux is installed");
    assert!(done.status.success(), "{done:?}");
    let orphans = wait_for("the orphans", || {
        let all = children(first);
        (all.len() == 4).then_some(all)
    });
    for orphan in orphans.into_iter().filter(|pid| !own.contains(pid)) {
        send(orphan, Signal::SIGKILL);
    }
    wait_for("the orphans to be reaped", || {
        (children(first) == own).then_some(())
    });
    assert_eq!(gateway.ask("GET", "/healthz").status, 200);
}

/// A socket such as systemd's, which sees which process a message is from.
struct Notified(UnixDatagram);

impl Notified {
    fn bind(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let on: libc::c_int = 1;
        // SAFETY: the option is a number of this size.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of_val(&on)).expect("small"),
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        Self(socket)
    }

    /// The next message that has come, and which process it is from.
    fn next(&self) -> Option<(String, u32)> {
        let mut text = [0_u8; 2048];
        // In units that are aligned as the header of a control message has to be.
        let mut control = [0_usize; 16];
        let mut part = libc::iovec {
            iov_base: text.as_mut_ptr().cast(),
            iov_len: text.len(),
        };
        // SAFETY: all of it may be zero, and the pointers are to memory that outlives the call.
        let (length, sender) = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            let length = libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0);
            let length = usize::try_from(length).ok()?;
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            assert!(!first.is_null(), "the kernel tells the sender");
            let sender: libc::ucred = std::ptr::read_unaligned(libc::CMSG_DATA(first).cast());
            (length, sender)
        };
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        Some((text, u32::try_from(sender.pid).expect("a process id")))
    }
}

#[test]
fn systemd_hears_the_first_process_of_a_container() {
    let builder = builder().run_by(&FIRST_PROCESS);
    let path = builder.dir().join("notify");
    let socket = Notified::bind(&path);
    let mut gateway = builder
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .env("WATCHDOG_USEC", "600000")
        // As it is outside of the namespace.
        .env("WATCHDOG_PID", "4194304")
        .spawn();
    let first = first_process(&gateway);
    let hears = |wanted: &str| {
        let (_, sender) = wait_for(wanted, || {
            socket.next().filter(|(text, _)| text.contains(wanted))
        });
        assert_eq!(sender, first, "{wanted}: the main process of the unit");
    };
    // What belongs together comes in one message.
    hears("READY=1\nSTATUS=serving");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    send(first, Signal::SIGTERM);
    hears("STOPPING=1");
    assert_eq!(gateway.wait().code(), Some(0));

    // What the watchdog does.
    gateway.restart_unready();
    let first = first_process(&gateway);
    gateway.wait_until_ready();
    send(first, Signal::SIGABRT);
    assert_eq!(gateway.wait().code(), Some(128 + libc::SIGABRT));
}
