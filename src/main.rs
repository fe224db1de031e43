//! The `snigate` program: hands the arguments over and returns the exit code.

use std::process::ExitCode;

/// Chosen by measurement, see `benches/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Gives back what the allocator holds free for this thread.
    fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    snigate::memory::on_give_back(|| {
        // SAFETY: it is the allocator's own, which any thread may call at any time.
        unsafe { mi_collect(true) }
    });
    snigate::cli::main(std::env::args_os())
}
