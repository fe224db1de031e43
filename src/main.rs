//! The `snigate` program: hands the arguments over and returns the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    snigate::cli::main(std::env::args_os())
}
