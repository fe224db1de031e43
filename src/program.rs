//! Programs of the user's, run to their end within a time limit.
//!
//! A program gets the environment that its caller says and nothing of the gateway's, besides the path
//! to find others. It is killed together with what it has begun: when its time is over, when it has
//! ended, and when nobody waits for it any more.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

use crate::secret::Secret;

/// How much of each kind of output is kept, in octets. The rest is read and dropped.
const MAX_OUTPUT: usize = 4 << 10;

/// How long to wait for output after it has ended: processes it left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The search path for programs if we have no `PATH` ourselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The beginning of its output, errors first.
    pub(crate) output: Vec<u8>,
}

/// Why a program has not ended by itself.
#[derive(Debug)]
pub(crate) enum ProgramError {
    NotRun(io::Error),
    /// It took longer than this, and was killed.
    TimedOut(Duration),
}

/// Runs a program in the directory `/` for at most this time, with this environment besides `PATH`, and
/// with `input` on its standard input.
pub(crate) async fn run_program(
    (program, arguments): (&Path, &[OsString]),
    env: impl IntoIterator<Item = (String, String)>,
    input: Option<&[u8]>,
    timeout: Duration,
) -> Result<Ended, ProgramError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let stdin = match input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .envs(env)
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let running = run(command, input.unwrap_or_default());
    match tokio::time::timeout(timeout, running).await {
        Ok(ended) => ended.map_err(ProgramError::NotRun),
        Err(_) => Err(ProgramError::TimedOut(timeout)),
    }
}

/// A text without the secrets in it.
pub(crate) fn without_secrets<'s>(
    text: &str,
    secrets: impl IntoIterator<Item = &'s Secret>,
) -> String {
    let secrets = secrets.into_iter().map(Secret::expose);
    secrets
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| {
            text.replace(secret, "[redacted]")
        })
}

async fn run(mut command: Command, input: &[u8]) -> io::Result<Ended> {
    let mut child = command.spawn()?;
    // After its end too: processes it left behind belong to nobody.
    let _group = Group::of(child.id());
    let (mut errors, mut words) = (Vec::new(), Vec::new());
    let status = {
        let feeding = feed(child.stdin.take(), input);
        let (stderr, stdout) = (child.stderr.take(), child.stdout.take());
        let exchange = async {
            tokio::join!(
                feeding,
                read_limited(stderr, &mut errors),
                read_limited(stdout, &mut words)
            );
        };
        tokio::pin!(exchange);
        tokio::select! {
            status = child.wait() => {
                // What is cut off here is only missing from a message.
                let _ = tokio::time::timeout(LAST_WORDS, exchange).await;
                status?
            }
            () = &mut exchange => child.wait().await?,
        }
    };
    errors.append(&mut words);
    Ok(Ended {
        status,
        output: errors,
    })
}

/// Writes all of its input, as far as the program reads it.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        // It need not read what it does not want.
        let _ = stdin.write_all(input).await;
    }
}

/// Reads to the end, and keeps the beginning.
async fn read_limited(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(read.min(room)));
    }
}

/// The processes of a call, which are killed when it is over.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let id = leader.and_then(|id| i32::try_from(id).ok());
        Self(id.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // If this fails, there is nothing left to kill.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
