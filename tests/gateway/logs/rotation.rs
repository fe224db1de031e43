//! Files that are rotated, by the gateway or by others.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::{lines_with, logging};
use crate::support::{Gateway, Origin, TlsClient, wait_for};

const LOST: &str = "snigate_access_log_lines_lost_total";

/// The numbers of the requests in a file, which are in whole lines.
fn numbers(path: &Path) -> Vec<usize> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "{}",
        path.display()
    );
    let number = |line: &str| {
        let rest = line.split("/n").nth(1)?.split(' ').next()?;
        rest.parse().ok()
    };
    text.lines()
        .map(|line| {
            assert!(
                line.starts_with("127.0.0.1 ") && line.contains(" upstream="),
                "{line}"
            );
            number(line).expect("a number")
        })
        .collect()
}

/// The files of the log, the oldest first.
fn files(gateway: &Gateway) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = (1..100)
        .map(|number| gateway.dir().join(format!("access.log.{number}")))
        .take_while(|path| path.exists())
        .collect();
    files.reverse();
    files.push(gateway.dir().join("access.log"));
    files
}

fn request(stream: &mut crate::support::TlsStream, from: usize, to: usize) {
    for number in from..to {
        assert_eq!(stream.get("a.test", &format!("/n{number}")).status, 200);
    }
}

#[test]
fn files_are_rotated_by_size_and_no_line_is_lost() {
    let origin = Origin::named("hello");
    let log = "access: access.log, rotate: { size: 64KiB, keep: 3 }";
    let gateway = logging(&origin, log).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    request(&mut stream, 0, 700);
    let found = wait_for("all lines", || {
        let found: Vec<usize> = files(&gateway)
            .iter()
            .flat_map(|file| numbers(file))
            .collect();
        (found.last() == Some(&699)).then_some(found)
    });
    assert_eq!(found, (0..700).collect::<Vec<_>>());
    assert!(files(&gateway).len() > 1);
    // The oldest ones are removed.
    request(&mut stream, 700, 2500);
    wait_for("all lines", || {
        (numbers(&gateway.dir().join("access.log")).last() == Some(&2499)).then_some(())
    });
    let files = files(&gateway);
    assert_eq!(files.len(), 4);
    for file in &files {
        assert!(fs::metadata(file).expect("a file").len() <= 64 << 10);
    }
    let found: Vec<usize> = files.iter().flat_map(|file| numbers(file)).collect();
    let first = found[0];
    assert!(first > 0);
    assert_eq!(found, (first..2500).collect::<Vec<_>>());
    assert_eq!(gateway.metric(LOST), Some(0.0));
}

#[test]
fn a_file_that_cannot_be_rotated_grows_until_it_can() {
    let origin = Origin::named("hello");
    let log = "access: logs/access.log, rotate: { size: 64KiB, keep: 1 }";
    let builder = logging(&origin, log);
    let logs = builder.dir().join("logs");
    fs::create_dir(&logs).expect("made");
    // Its place is taken by a folder, which no file replaces.
    fs::create_dir(logs.join("access.log.1")).expect("made");
    let gateway = builder.start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    request(&mut stream, 0, 700);
    let path = logs.join("access.log");
    wait_for("all lines", || (numbers(&path).len() == 700).then_some(()));
    gateway.wait_for_log("the access log cannot be rotated");
    fs::remove_dir(logs.join("access.log.1")).expect("removed");
    let mut next = 700;
    wait_for("a rotation", || {
        request(&mut stream, next, next + 1);
        next += 1;
        logs.join("access.log.1").is_file().then_some(())
    });
    let log = gateway.log();
    assert_eq!(log.matches("cannot be rotated").count(), 1, "{log}");
    wait_for("all lines", || {
        let both = numbers(&logs.join("access.log.1"))
            .into_iter()
            .chain(numbers(&path));
        (both.collect::<Vec<_>>() == (0..next).collect::<Vec<_>>()).then_some(())
    });
    assert_eq!(gateway.metric(LOST), Some(0.0));
}

#[test]
fn others_rotate_beside_load_and_send_a_signal() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: access.log, target: own.log").start();
    let path = gateway.dir().join("access.log");
    let rotated = |number: usize| gateway.dir().join(format!("old.{number}"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) && count < 200 {
                if fs::rename(&path, rotated(count)).is_ok() {
                    count += 1;
                }
                gateway.signal(Signal::SIGUSR1);
                wait_for("a new file", || path.exists().then_some(()));
            }
            count
        });
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        request(&mut stream, 0, 1500);
        done.store(true, Ordering::Relaxed);
        let count = rotating.join().expect("no panic");
        assert!(count > 2, "{count}");
        let files = (0..count).map(rotated).chain([path.clone()]);
        let files: Vec<_> = files.collect();
        let found = wait_for("all lines", || {
            let found: Vec<usize> = files.iter().flat_map(|file| numbers(file)).collect();
            (found.len() == 1500).then_some(found)
        });
        assert_eq!(found, (0..1500).collect::<Vec<_>>());
    });
    assert_eq!(gateway.metric(LOST), Some(0.0));
    // The gateway's own log too.
    fs::rename(
        gateway.dir().join("own.log"),
        gateway.dir().join("own.log.1"),
    )
    .expect("renamed");
    gateway.signal(Signal::SIGUSR1);
    wait_for("a new file", || {
        gateway.dir().join("own.log").exists().then_some(())
    });
    gateway.signal(Signal::SIGHUP);
    lines_with(&gateway, "own.log", "reloaded");
}

#[test]
fn a_file_that_is_removed_is_made_again() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: access.log").start();
    let path = gateway.dir().join("access.log");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    request(&mut stream, 0, 1);
    lines_with(&gateway, "access.log", "/n0");
    fs::remove_file(&path).expect("removed");
    let mut next = 1;
    wait_for("a new file", || {
        request(&mut stream, next, next + 1);
        next += 1;
        path.exists().then_some(())
    });
}
