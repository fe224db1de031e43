//! Log files of a gateway that has given up root.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use super::someone;
use crate::support::{Gateway, Origin, connect, logging, read_response, wait_for};

/// Requests, one after the other, by the numbers in their targets.
fn request(gateway: &Gateway, from: usize, to: usize) {
    let mut stream = connect(gateway.http);
    for number in from..to {
        let head = format!("GET /n{number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("taken");
        // The redirect to TLS, whose key it cannot read.
        let status = read_response(&mut stream).expect("a response").status;
        assert!((300..400).contains(&status), "{status}");
    }
}

/// The numbers of the requests in a file of whole lines.
fn numbers(path: &Path) -> Vec<usize> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let number = |line: &str| {
        let rest = line.split("/n").nth(1)?.split(' ').next()?;
        rest.parse().ok()
    };
    let lines = text.lines();
    lines.map(|line| number(line).expect("a number")).collect()
}

fn check_owner(path: &Path, user: &User) {
    let data = fs::metadata(path).expect("a file");
    assert_eq!(data.uid(), user.uid.as_raw(), "{}", path.display());
    assert_eq!(data.mode() & 0o137, 0, "{:o}", data.mode());
}

#[test]
fn they_are_rotated_by_the_user_that_it_has_become() {
    let user = someone();
    let origin = Origin::named("x");
    let log = "access: logs/access.log, target: logs/own.log, rotate: { size: 64KiB, keep: 5 }";
    let builder = logging(&origin, log).server(&format!("user: {}", user.name));
    fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
    let logs = builder.dir().join("logs");
    fs::create_dir(&logs).expect("made");
    chown(&logs, Some(user.uid), Some(user.gid)).expect("its owner may");
    let gateway = builder.spawn();
    let own = logs.join("own.log");
    let has = |what: &str| fs::read_to_string(&own).is_ok_and(|log| log.contains(what));
    wait_for("the start", || has("kind=Https").then_some(()));

    // By size.
    request(&gateway, 0, 1500);
    let path = logs.join("access.log");
    let numbered = |number: usize| logs.join(format!("access.log.{number}"));
    let files = || -> Vec<PathBuf> {
        let older = (1..=5).map(numbered).filter(|path| path.exists());
        let mut files: Vec<_> = older.collect();
        files.reverse();
        files.push(path.clone());
        files
    };
    let all = || -> Vec<usize> { files().iter().flat_map(|path| numbers(path)).collect() };
    wait_for("all lines", || (all().len() == 1500).then_some(()));
    assert_eq!(all(), (0..1500).collect::<Vec<_>>());
    assert!(files().len() > 2, "{:?}", files());
    for path in files() {
        check_owner(&path, &user);
    }

    // By others, who may be root.
    let moved = logs.join("moved");
    fs::rename(&path, &moved).expect("renamed");
    fs::rename(&own, logs.join("own.moved")).expect("renamed");
    gateway.signal(Signal::SIGUSR1);
    wait_for("new files", || {
        (path.exists() && own.exists()).then_some(())
    });
    request(&gateway, 1500, 1600);
    wait_for("the lines", || (numbers(&path).len() == 100).then_some(()));
    assert_eq!(numbers(&path), (1500..1600).collect::<Vec<_>>());
    assert!(!numbers(&moved).contains(&1500));
    gateway.signal(Signal::SIGHUP);
    wait_for("a line of its own", || has("reload").then_some(()));
    check_owner(&path, &user);
    check_owner(&own, &user);
    let lost = gateway.metric("snigate_access_log_lines_lost_total");
    assert_eq!(lost, Some(0.0));
}

#[test]
fn a_file_that_its_user_may_not_write_is_named_at_the_start() {
    let user = someone();
    if user.uid != nix::unistd::Uid::effective() {
        let origin = Origin::named("x");
        let builder = logging(&origin, "access: logs/access.log");
        let builder = builder.server(&format!("user: {}", user.name));
        fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
        fs::create_dir(builder.dir().join("logs")).expect("made");
        let mut gateway = builder.spawn();
        assert!(!gateway.wait().success());
        let log = gateway.log();
        assert!(
            log.contains("log.access") && log.contains("Permission denied"),
            "{log}"
        );
    }
}
