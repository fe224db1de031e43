//! What the process has given up for good.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::Uid;

use super::{in_front_of, someone};
use crate::support::{Gateway, Origin, TlsClient};

/// The one capability that is kept, of listening on ports below 1024.
const NET_BIND_SERVICE: u64 = 1 << 10;

/// A flag of a descriptor that a program that is started does not get.
const CLOSED_ON_EXEC: u32 = libc::O_CLOEXEC.unsigned_abs();

/// The lines of `/proc/PID/task/TID/status`.
struct Status(HashMap<String, String>);

impl Status {
    fn of(path: &str) -> Self {
        let text = fs::read_to_string(path).expect("it runs");
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.trim().into()))
                .collect(),
        )
    }

    fn of_threads(gateway: &Gateway) -> Vec<Self> {
        let threads = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("it runs");
        let paths = threads.map(|thread| thread.expect("a thread").path().join("status"));
        // A thread may end meanwhile.
        paths
            .filter(|path| path.exists())
            .map(|path| Self::of(&path.to_string_lossy()))
            .collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let words = self.0[name].split_whitespace();
        words.map(|word| word.parse().expect("a number")).collect()
    }

    fn capabilities(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.0[name], 16).expect("a set")
    }
}

#[test]
fn as_another_user_it_may_listen_on_low_ports_and_nothing_else() {
    let user = someone();
    let origin = Origin::named("x");
    let builder = in_front_of(&origin).server(&format!("user: {}", user.name));
    fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
    let gateway = builder.spawn();
    gateway.wait_for_log("kind=Https");
    let before = Status::of("/proc/self/status").capabilities("CapPrm");
    let threads = Status::of_threads(&gateway);
    assert!(threads.len() > 3, "{} threads", threads.len());
    for thread in &threads {
        let name = &thread.0["Name"];
        assert_eq!(thread.0["NoNewPrivs"], "1", "{name}");
        assert_eq!(thread.capabilities("CapAmb"), 0, "{name}");
        assert_eq!(thread.ids("Uid"), [user.uid.as_raw(); 4], "{name}");
        assert_eq!(thread.ids("Gid"), [user.gid.as_raw(); 4], "{name}");
        if user.uid != Uid::effective() {
            assert!(!thread.ids("Groups").contains(&0), "{name}");
            assert_eq!(thread.capabilities("CapInh"), 0, "{name}");
            for set in ["CapPrm", "CapEff"] {
                let kept = thread.capabilities(set);
                assert_eq!(kept & !NET_BIND_SERVICE, 0, "{set} of {name}");
            }
        }
    }
    // Those that may have to listen on another port.
    if user.uid != Uid::effective() && before & NET_BIND_SERVICE != 0 {
        let main = Status::of(&format!("/proc/{}/status", gateway.pid()));
        assert_eq!(main.capabilities("CapEff"), NET_BIND_SERVICE);
        let may_bind = |thread: &&Status| thread.capabilities("CapEff") == NET_BIND_SERVICE;
        assert!(threads.iter().filter(may_bind).count() > 1);
    }
}

#[test]
fn no_other_process_of_its_user_reads_its_memory() {
    let user = someone();
    let origin = Origin::named("x");
    let owner = |core_dumps: &str| {
        let builder = in_front_of(&origin)
            .server(&format!("user: {}", user.name))
            .env("SNIGATE_CORE_DUMPS", core_dumps);
        fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
        let gateway = builder.spawn();
        gateway.wait_for_log("kind=Https");
        let memory = fs::metadata(format!("/proc/{}/mem", gateway.pid()));
        memory.expect("it runs").uid()
    };
    assert_eq!(owner("0"), 0, "root's");
    assert_eq!(owner("1"), user.uid.as_raw());
}

#[test]
fn programs_that_it_starts_get_no_descriptors() {
    let origin = Origin::named("x");
    let gateway = in_front_of(&origin).env("SNIGATE_CORE_DUMPS", "1").start();
    // One connection to a client and one to a server, which stay open.
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(client.get("a.test", "/").status, 200);
    let mut count = 0;
    for descriptor in fs::read_dir(format!("/proc/{}/fdinfo", gateway.pid())).expect("it runs") {
        let path = descriptor.expect("a descriptor").path();
        let number: u32 = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
            .expect("a number");
        // A file may be closed meanwhile.
        let Some(is_closed) = is_closed_on_exec(&path) else {
            continue;
        };
        count += 1;
        if number > 2 {
            let target = fs::read_link(format!("/proc/{}/fd/{number}", gateway.pid()));
            assert!(is_closed, "{number}: {target:?}");
        }
    }
    assert!(count > 10, "{count} descriptors");
}

/// Whether a program that is started does not get a descriptor; `None` if it is closed.
fn is_closed_on_exec(info: &Path) -> Option<bool> {
    let info = fs::read_to_string(info).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.expect("flags").trim(), 8).expect("octal");
    Some(flags & CLOSED_ON_EXEC != 0)
}
