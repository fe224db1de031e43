use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn queue(path: &Path, capacity: usize) -> (LineQueue, IntCounter) {
    rotated(path, capacity, None)
}

fn rotated(path: &Path, capacity: usize, rotate: Option<Rotate>) -> (LineQueue, IntCounter) {
    let lost = IntCounter::new("lost", "lost").expect("a valid name");
    let queue = LineQueue::start(Setup {
        name: "the test's log",
        thread: "test-log",
        target: Target::File(path.to_owned()),
        rotate,
        capacity,
        lost: lost.clone(),
    });
    (queue.expect("opened"), lost)
}

/// Waits until there is a result.
fn within<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reader_that_stalls_holds_nobody_up_and_losses_are_counted() {
    const LINES: u64 = 20_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let reader = OpenOptions::new().read(true).write(true).open(&path);
    let reader = reader.expect("opened");
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let (queue, lost) = queue(&path, 64 << 10);
    for number in 0..LINES {
        queue.push(format!("line {number} {}\n", "x".repeat(number as usize % 90)).as_bytes());
    }
    assert!(!queue.flush(Duration::from_millis(10)), "nobody reads");
    let lost_meanwhile = lost.get();
    assert!(
        lost_meanwhile > 0 && lost_meanwhile < LINES,
        "{lost_meanwhile}"
    );
    let octets = {
        let state = queue.0.0.lock();
        state.waiting.len() + state.in_hand
    };
    assert!(octets <= 64 << 10, "{octets}");

    // It recovers with the reader: what was not lost arrives whole and in order.
    let mut lines = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("a line"));
    let mut before = None;
    for _ in 0..LINES - lost_meanwhile {
        let line = lines.next().expect("a line");
        let (number, rest) = line
            .strip_prefix("line ")
            .and_then(|rest| rest.split_once(' '))
            .expect("a whole line");
        let number: u64 = number.parse().expect("a number");
        assert_eq!(rest.len() as u64, number % 90);
        assert!(before < Some(number));
        before = Some(number);
    }
    assert!(queue.flush(PATIENCE));
    assert_eq!(lost.get(), lost_meanwhile);
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let (queue, lost) = queue(&path, 1 << 20);
    for _ in 0..300 {
        queue.push(b"line\n");
    }
    assert!(queue.flush(PATIENCE), "they are given up");
    assert_eq!(lost.get(), 300);

    fs::remove_file(&path).expect("removed");
    queue.reopen();
    queue.push(b"again\n");
    assert!(queue.flush(PATIENCE));
    assert_eq!(fs::read_to_string(&path).expect("a file"), "again\n");
    assert_eq!(lost.get(), 300);
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (logs, old) = (folder.path().join("logs"), folder.path().join("old"));
    fs::create_dir(&logs).expect("made");
    let path = logs.join("log");
    let (queue, lost) = queue(&path, 1 << 20);
    queue.push(b"one\n");
    fs::rename(&logs, &old).expect("moved");
    queue.reopen();
    queue.push(b"two\n");
    assert!(queue.flush(PATIENCE));
    let kept = || fs::read_to_string(old.join("log")).expect("a file");
    assert_eq!(kept(), "one\ntwo\n");

    fs::create_dir(&logs).expect("made");
    // Whether or not anything is logged.
    within(|| path.exists().then_some(()));
    queue.push(b"three\n");
    assert!(queue.flush(PATIENCE));
    assert_eq!(fs::read_to_string(&path).expect("a file"), "three\n");
    assert_eq!((kept().as_str(), lost.get()), ("one\ntwo\n", 0));
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let error = Target::File(path).open().err().expect("nobody reads it");
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENXIO as i32));
}

#[test]
fn a_file_is_for_its_user_and_group() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let (_queue, _) = queue(&path, 1 << 10);
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[test]
fn what_a_link_leads_to_is_rotated_and_the_link_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, disk) = (folder.path().join("log"), folder.path().join("disk"));
    fs::create_dir(&disk).expect("made");
    std::os::unix::fs::symlink(disk.join("log"), &path).expect("linked");
    let rotate = Rotate { size: 10, keep: 2 };
    let (queue, lost) = rotated(&path, 1 << 10, Some(rotate));
    for line in [&b"first\n"[..], b"second\n"] {
        queue.push(line);
        assert!(queue.flush(PATIENCE));
    }
    let read = |name: &str| fs::read_to_string(disk.join(name)).expect("a file");
    assert_eq!(
        (read("log.1").as_str(), read("log").as_str()),
        ("first\n", "second\n")
    );
    assert!(path.is_symlink());
    assert_eq!(lost.get(), 0);
}

#[test]
fn what_is_no_file_is_not_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::os::unix::fs::symlink("/dev/null", &path).expect("linked");
    let rotate = Rotate { size: 10, keep: 2 };
    let (queue, lost) = rotated(&path, 1 << 10, Some(rotate));
    for _ in 0..5 {
        queue.push(b"a line\n");
        assert!(queue.flush(PATIENCE));
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    assert_eq!(
        fs::read_link(&path).expect("a link"),
        Path::new("/dev/null")
    );
    assert_eq!(lost.get(), 0);
}
