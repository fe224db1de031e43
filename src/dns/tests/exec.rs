use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

/// A program of these lines, with `$HERE` for its directory.
struct Program {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Program {
    fn new(lines: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("set-record");
        let here = directory.path().display().to_string();
        let script = format!("#!/bin/sh\n{}\n", lines.replace("$HERE", &here));
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Self { directory, path }
    }

    fn provider(&self, keys: &str) -> Arc<dyn DnsProvider> {
        let dns = entry(&format!(
            "exec: {{ command: [\"{}\", --quiet], {keys} }}",
            self.path.display()
        ));
        open_provider("main", &dns).expect("opened")
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join(name)).ok()
    }
}

/// Waits until a process has ended, even if nobody has reaped it.
async fn ends(process: &str) {
    let stat = format!("/proc/{}/stat", process.trim());
    let begun = Instant::now();
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it continues");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_program_is_called_in_legos_words() {
    let program = Program::new("echo \"$@\" >>$HERE/calls; env | sort >$HERE/env; pwd >$HERE/pwd");
    let provider = program.provider("env: { API_KEY: s3cret }");
    provider
        .add(&zone(), &record("value-1"))
        .await
        .expect("set");
    let removed = provider.remove(&zone(), &record("value-1")).await;
    removed.expect("removed");
    assert_eq!(
        program.read("calls").as_deref(),
        Some(
            "--quiet present _acme-challenge.www.example.com. value-1\n\
             --quiet cleanup _acme-challenge.www.example.com. value-1\n"
        )
    );
    // Without what the shell adds itself.
    let env = program.read("env").expect("an environment");
    let names = env.lines().filter_map(|line| line.split('=').next());
    let given: Vec<&str> = names
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    assert_eq!(given, ["API_KEY", "PATH"]);
    assert_eq!(program.read("pwd").as_deref(), Some("/\n"));
    assert_eq!(provider.list(&zone(), &zone()).await, Ok(None));
}

#[tokio::test]
async fn what_it_says_when_it_fails_is_told_without_secrets() {
    // More than is kept, and more than a pipe holds.
    let program = Program::new(
        "echo \"no access with $API_KEY\" >&2; head -c 200000 /dev/zero | tr '\\0' x; exit 7",
    );
    let provider = program.provider("env: { API_KEY: s3cret }");
    let error = provider.add(&zone(), &record("value")).await;
    let error = error.expect_err("it failed");
    let text = error.to_string();
    assert!(matches!(error, DnsError::Unreachable(_)), "{text}");
    assert!(text.contains("exit status: 7"), "{text}");
    assert!(text.contains("no access with [redacted]"), "{text}");
    assert!(text.len() < 1000, "{text}");
    let silent = Program::new("exit 1");
    let error = silent.provider("").remove(&zone(), &record("value")).await;
    let text = error.expect_err("it failed").to_string();
    assert!(text.contains("without output"), "{text}");
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_what_it_began() {
    let program = Program::new("sleep 600 & echo $! >$HERE/child; wait");
    let provider = program.provider("timeout: 5s");
    let error = provider.add(&zone(), &record("value")).await;
    let text = error.expect_err("it takes too long").to_string();
    assert!(text.contains("did not finish within 5s"), "{text}");
    let child = program.read("child").expect("it began");
    ends(&child).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_running() {
    let program = Program::new("sleep 600 & echo $! >$HERE/child; wait");
    let provider = program.provider("timeout: 10m");
    let (zone, record) = (zone(), record("value"));
    let child = async {
        loop {
            match program.read("child") {
                Some(child) if child.ends_with('\n') => break child,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let child = tokio::select! {
        child = child => child,
        ended = provider.add(&zone, &record) => panic!("{ended:?}"),
    };
    ends(&child).await;
}

#[tokio::test]
async fn a_program_that_leaves_something_running_has_ended() {
    let program = Program::new("sleep 600 & echo $! >$HERE/child; exit 0");
    let begun = Instant::now();
    let added = program.provider("").add(&zone(), &record("value")).await;
    added.expect("done");
    assert!(begun.elapsed() < Duration::from_secs(15));
    // A process that it left behind is not left to whoever reaps orphans.
    ends(&program.read("child").expect("a process")).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_told() {
    let program = Program::new("exit 0");
    let provider = program.provider("");
    fs::remove_file(&program.path).expect("removed");
    let error = provider.add(&zone(), &record("value")).await;
    let error = error.expect_err("nothing there");
    assert!(
        matches!(&error, DnsError::Refused(what) if what.contains("'command'")),
        "{error}"
    );
}
