//! Another process: this program again, running the test [`child`] with a task.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snigate::storage::{FileStorage, Storage, StorageError};

use super::{CERTIFICATES, PATIENCE, TERMS, certificate, counted, generation, key};

const TASK: &str = "SNIGATE_TEST_STORAGE_TASK";

const ROOT: &str = "SNIGATE_TEST_STORAGE_ROOT";

/// What another process does, where this one is another; else nothing.
#[test]
fn child() {
    let (Ok(task), Some(root)) = (env::var(TASK), env::var_os(ROOT)) else {
        return;
    };
    let storage = FileStorage::with_terms(root, TERMS);
    match task.as_str() {
        "replace" => replace(&storage),
        "count" => count(&storage),
        "hold" => hold(&storage),
        task => panic!("no task {task:?}"),
    }
}

/// Replaces the certificates again and again.
fn replace(storage: &FileStorage) {
    let lock = storage.lock(&key("locks/a")).expect("a lease");
    let next = generation(storage, &key(CERTIFICATES[0])).map_or(1, |last| last + 1);
    for generation in next.. {
        let value = certificate(generation);
        for (number, name) in CERTIFICATES.iter().enumerate() {
            let stored = if number == 0 {
                storage.store(&key(name), &value)
            } else {
                storage.store_under(&lock, &key(name), &value)
            };
            stored.expect("writable");
        }
        say(&format!("stored {generation}"));
    }
}

/// Counts one up under the lock, again and again, and says what it has stored.
fn count(storage: &FileStorage) {
    loop {
        let lease = match storage.lock(&key("locks/count")) {
            Ok(lease) => lease,
            Err(StorageError::Busy { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        for _ in 0..20 {
            let (count, token) = counted(storage);
            if token > lease.token() {
                assert!(!lease.is_held(), "a lease after this one has stored");
            }
            let next = format!("{} {}", count + 1, lease.token());
            match storage.store_under(&lease, &key("count"), next.as_bytes()) {
                Ok(()) => say(&format!("stored {next}")),
                Err(StorageError::Lost { .. }) => {
                    assert!(!lease.is_held());
                    say("lost");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Takes the lock and keeps it.
fn hold(storage: &FileStorage) {
    let lease = storage.lock(&key("locks/a")).expect("a lease");
    say(&format!("holds {}", lease.token()));
    loop {
        thread::park();
    }
}

/// To whoever has started this process, and may be gone.
#[expect(clippy::print_stdout, reason = "it is what the parent reads")]
fn say(line: &str) {
    // The test harness may have begun a line.
    println!("\n{line}");
    let _ = std::io::stdout().flush();
}

/// Another process, killed when dropped.
pub(super) struct Other {
    pub(super) child: Child,
    pub(super) lines: Receiver<String>,
}

impl Other {
    pub(super) fn start(task: &str, root: &Path) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args([
                "--exact",
                "storage::process::child",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(TASK, task)
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that begins with `start`, without that.
    pub(super) fn wait_for(&self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("it continues");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill(Pid::from_raw(id), signal).expect("signalled");
    }

    /// Kills it, and the lines that it has said and nobody has read.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.end();
        self.lines.iter().collect()
    }

    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait().expect("ended");
        assert_eq!(status.code(), None, "it failed before it was killed");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
