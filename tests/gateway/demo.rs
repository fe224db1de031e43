//! `snigate demo` as a newcomer meets it: the line on the screen works as pasted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A demo, killed where a test fails.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_line_on_the_screen_works_as_pasted() {
    let dir = tempfile::tempdir().expect("a directory");
    // A name that a shell takes for two words where it is not quoted.
    let data = dir.path().join("my demo");
    let mut demo = Demo(
        Command::new(env!("CARGO_BIN_EXE_snigate"))
            .arg("demo")
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts"),
    );
    let mut lines = BufReader::new(demo.0.stdout.take().expect("a pipe")).lines();
    let mut screen = Vec::new();
    let line = loop {
        let line = lines.next().expect("a line to paste").expect("text");
        screen.push(line.clone());
        if line.starts_with("curl ") {
            break line;
        }
    };
    assert!(
        screen.iter().all(|line| !line.contains('\x1b')),
        "colour in a pipe"
    );

    let pasted = Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&pasted.stderr);
    assert!(pasted.status.success(), "{line}: {said}");
    assert_eq!(pasted.stdout, b"Hello from Snigate.\n");

    // The wildcard site, by the upstream in the same process.
    let echoed = line.replace("hello.localhost", "any.shop.localhost");
    let echoed = Command::new("sh")
        .args(["-c", &echoed])
        .output()
        .expect("a shell");
    let echoed = String::from_utf8_lossy(&echoed.stdout).into_owned();
    assert!(echoed.starts_with("GET / HTTP/1.1\n"), "{echoed}");
    assert!(echoed.contains("x-forwarded-proto: https\n"), "{echoed}");

    let outside = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(outside, 1, "all is written in one directory");
    let pid = Pid::from_raw(i32::try_from(demo.0.id()).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("a signal");
    let ended = crate::support::wait_for("the demo to end", || demo.0.try_wait().expect("a child"));
    assert!(ended.success(), "{ended}");
}
