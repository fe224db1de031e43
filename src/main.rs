//! The `snigate` program: hands the arguments over and returns the exit code.

use std::process::ExitCode;

/// Chosen by measurement, see `benches/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    snigate::cli::main(std::env::args_os())
}
