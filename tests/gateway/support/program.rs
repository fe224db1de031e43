//! The program's other commands: started, waited for, read.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `snigate` with these arguments, without the environment variables that stand for some.
pub fn snigate<A: AsRef<OsStr>>(arguments: &[A]) -> Printed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snigate"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["SNIGATE_ADMIN", "SNIGATE_TOKEN", "NO_COLOR"] {
        command.env_remove(name);
    }
    let output = command.output().expect("the program starts");
    Printed {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `snigate check` of a file.
pub fn check(config: &Path) -> Printed {
    snigate(&[
        OsStr::new("check"),
        OsStr::new("--config"),
        config.as_os_str(),
    ])
}

/// `snigate check --json` of a file, and whether it says that all is well.
pub fn check_json(config: &Path) -> (Option<i32>, Value) {
    let arguments = ["check", "--json", "--config"].map(OsStr::new);
    let printed = snigate(&[&arguments[..], &[config.as_os_str()]].concat());
    assert_eq!(printed.stderr, "", "nothing beside the JSON");
    let report = serde_json::from_str(&printed.stdout);
    (
        printed.code,
        report.unwrap_or_else(|error| panic!("{error}: {}", printed.stdout)),
    )
}
