//! How a gateway is configured and started.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use tempfile::TempDir;

use super::Gateway;
use crate::support::{Port, announcing};

/// A gateway to be.
pub struct Builder {
    pub(super) dir: TempDir,
    pub(super) ports: [Port; 3],
    /// Where it listens for HTTPS besides.
    pub(super) more: Vec<String>,
    pub(super) server: String,
    pub(super) rest: String,
    pub(super) token: Option<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) relative: bool,
    /// What the shell does that becomes the program; none where empty.
    pub(super) prelude: String,
    /// The command that becomes, or runs, the program; none where empty.
    pub(super) wrapper: Vec<String>,
    pub(super) is_unread: bool,
    /// Its descriptors from 3 on.
    pub(super) passed: Vec<OwnedFd>,
    /// What the kernel refuses it.
    pub(super) refused: Vec<Refused>,
    /// What `--lane` is given; it is not given where this is none.
    pub(super) lane: Option<OsString>,
    /// Whether its clients send a header of the PROXY protocol first.
    pub(super) is_announced: bool,
}

/// A system call that is refused, where its first argument is this one, and with which error.
type Refused = (i64, Option<i32>, i32);

impl Builder {
    /// Adds keys under `server`, as `limits: { handshake: 1s }`; several lines keep their indent.
    pub fn server(mut self, yaml: &str) -> Self {
        // A test that says whose headers are believed sends them itself.
        self.is_announced &= !yaml.contains("proxy_protocol:");
        self.server.push_str(yaml.trim_end());
        self.server.push('\n');
        self
    }

    /// Adds the rest of the configuration: all top-level keys but `server`.
    pub fn config(mut self, yaml: impl AsRef<str>) -> Self {
        self.rest.push_str(yaml.as_ref());
        self.rest.push('\n');
        self
    }

    /// Asks for this token on the admin interface.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it no more file descriptors than these.
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.prelude.push_str(&format!("ulimit -n {limit}; "));
        self
    }

    /// Starts it in the directory of its configuration, which it is given by a relative path.
    pub fn relative(mut self) -> Self {
        self.relative = true;
        self
    }

    /// Lets it live where a file may grow no further, see [`Gateway::fill_disk`].
    pub fn disk(mut self) -> Self {
        self.prelude.push_str("trap '' XFSZ; ");
        self
    }

    /// Has it run by this command, which is given the program and its arguments.
    pub fn run_by(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Gives it the smallest pipe for stderr, which nobody reads.
    pub fn unread(mut self) -> Self {
        self.is_unread = true;
        self
    }

    /// Lets the kernel refuse it sockets of IPv6, as systemd's `RestrictAddressFamilies` does.
    pub fn without_ipv6(mut self) -> Self {
        let refused = (libc::SYS_socket, Some(libc::AF_INET6), libc::EAFNOSUPPORT);
        self.refused.push(refused);
        self
    }

    /// Lets the kernel refuse it watches of files, as where `max_user_watches` is reached.
    pub fn without_watches(mut self) -> Self {
        let refused = (libc::SYS_inotify_add_watch, None, libc::ENOSPC);
        self.refused.push(refused);
        self
    }

    /// Lets the kernel refuse it `openat2`, as those before 5.6 do.
    pub fn without_openat2(mut self) -> Self {
        let refused = (libc::SYS_openat2, None, libc::ENOSYS);
        self.refused.push(refused);
        self
    }

    /// Lets it listen for HTTPS at another address of this machine too, at the same port.
    pub fn also_at(mut self, address: impl Into<std::net::IpAddr>) -> Self {
        let port = self.ports[0].number();
        self.more
            .push(SocketAddr::new(address.into(), port).to_string());
        self
    }

    /// Lets it listen for HTTPS at this address too.
    pub fn also_on(mut self, address: &str) -> Self {
        self.more.push(address.to_owned());
        self
    }

    /// Passes it sockets by name, as systemd does.
    pub fn passed(mut self, sockets: &[(&str, &dyn AsFd)]) -> Self {
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        self.prelude.push_str(&format!(
            "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; ",
            names.len(),
            names.join(":"),
        ));
        // Above those that they become.
        let copy = |socket: &dyn AsFd| fcntl(socket.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(100));
        self.passed = sockets
            .iter()
            .map(|(_, socket)| {
                let copy = copy(*socket).expect("a descriptor");
                // SAFETY: it has just been made, for this alone.
                unsafe { OwnedFd::from_raw_fd(copy) }
            })
            .collect();
        self
    }

    /// Lets requests take the gateway's own lane, whatever the environment says: for what Pingora's
    /// lane does not do.
    pub fn over_own_lane(mut self) -> Self {
        self.lane = None;
        self
    }

    /// Where its HTTPS listener will be.
    pub fn https(&self) -> SocketAddr {
        self.ports[0].address()
    }

    /// Where its HTTP listener will be.
    pub fn http(&self) -> SocketAddr {
        self.ports[1].address()
    }

    /// Where the configuration and all that it names by relative paths will be.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it without waiting for anything.
    pub fn spawn(self) -> Gateway {
        let [https, http, admin] = &self.ports;
        let mut gateway = Gateway {
            https: https.address(),
            http: http.address(),
            admin: admin.address(),
            config: self.dir.path().join("snigate.yaml"),
            child: None,
            stderr: None,
            log: Arc::default(),
            builder: self,
        };
        announcing::expect_headers([gateway.https, gateway.http], gateway.builder.is_announced);
        gateway.write_config("");
        gateway.launch();
        gateway
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let mut gateway = self.spawn();
        gateway.wait_until_ready();
        gateway
    }
}

/// Has a command begin with these descriptors, from 3 on.
pub(super) fn pass(command: &mut Command, descriptors: &[OwnedFd]) {
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let pass = move || {
        for (descriptor, place) in descriptors.iter().zip(3..) {
            // SAFETY: what was at this place is not used before exec closes it.
            if unsafe { libc::dup2(*descriptor, place) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls and nothing else.
    unsafe { command.pre_exec(pass) };
}

/// Has the kernel refuse a system call, as systemd's sandbox does.
pub(super) fn refuse(command: &mut Command, (call, argument, error): Refused) {
    let statement = |code: u32, yes: u8, no: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).expect("a code"),
        jt: yes,
        jf: no,
        k: value,
    };
    let number = |number: i64| u32::try_from(number).expect("a number");
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    // The low half of its first argument, or the call itself once more.
    let (offset, value) = match argument {
        Some(argument) => (16, number(argument.into())),
        None => (0, number(call)),
    };
    let mut program = [
        statement(load, 0, 0, 0),
        statement(equal, 0, 3, number(call)),
        statement(load, 0, 0, offset),
        statement(equal, 0, 1, value),
        statement(end, 0, 0, libc::SECCOMP_RET_ERRNO | number(error.into())),
        statement(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let filter = libc::sock_fprog {
            len: 6,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: both calls take what they point to before they return.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) != 0
        };
        if failed {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls and nothing else.
    unsafe { command.pre_exec(install) };
}
