//! A network of its own for a test that needs ports below 1024, or its own name server.
//!
//! The test runs itself again, as root of a new user, network and mount namespace, which any user
//! may make. There, 127.0.0.1 is its own and so is `/etc/resolv.conf`.

use std::fs;
use std::net::SocketAddrV4;
use std::process::Command;

/// Says to the test that it is there already.
const INSIDE: &str = "SNIGATE_TEST_NETWORK";

const SETUP: &str = "set -e
ip link set lo up
printf 'nameserver 127.0.0.1\\n' >\"$SNIGATE_TEST_NETWORK\"
mount --bind \"$SNIGATE_TEST_NETWORK\" /etc/resolv.conf
exec \"$0\" \"$@\"";

/// Whether this runs in a network of its own. Where it does not, runs this test there, which is the
/// caller, and fails where it fails; the caller has nothing more to do then.
#[track_caller]
pub fn in_own_network<Test: Fn()>(_: Test) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("a program");
    let path = std::any::type_name::<Test>();
    let (_, test) = path.split_once("::").expect("a path in this program");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount", "--"])
        .args(["sh", "-c", SETUP])
        .arg(program)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, dir.path().join("resolv.conf"))
        .output()
        .expect("Debian's package util-linux is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in a network of its own: {}\n{said}\n{complained}",
        output.status
    );
    false
}

/// A state of a TCP connection, as the kernel lists it.
#[derive(Clone, Copy, Debug)]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
}

/// How many connections to an address are in a state, whosever they are.
pub fn connections_to(address: SocketAddrV4, state: TcpState) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux lists connections");
    let ip = u32::from_ne_bytes(address.ip().octets());
    let remote = format!("{ip:08X}:{:04X}", address.port());
    let state = format!("{:02X}", state as u8);
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(&remote) && fields.next() == Some(&state)
    };
    table.lines().filter(is_one).count()
}
