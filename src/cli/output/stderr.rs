//! Text for stderr, written by a separate thread, because a pipe that nobody reads would block the
//! writer forever.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::IntCounter;

use crate::line_queue::{LineQueue, Setup, Target};

/// How long a reader may take nothing before it counts as stalled, and how long the end of the
/// process waits for it once more.
const READER: Duration = Duration::from_secs(1);

/// How many octets wait for a stalled reader before text is lost.
const QUEUE: usize = 1 << 20;

/// Text that has not been written yet.
struct Said {
    queue: LineQueue,
    /// Whether the reader has stalled, and not caught up since.
    is_stalled: AtomicBool,
}

/// `None` if no thread can be started.
static SAID: OnceLock<Option<Said>> = OnceLock::new();

/// Writes a text and a line end. Usually returns once it is written: programs that run next write
/// to stderr too. A stalled reader is not waited for.
pub(super) fn write_text(text: &str) {
    let Some(said) = SAID.get_or_init(start) else {
        // A closed stderr is no reason to fail.
        _ = writeln!(io::stderr().lock(), "{text}");
        return;
    };
    said.queue.push(format!("{text}\n").as_bytes());
    said.wait(if said.is_stalled.load(Ordering::Relaxed) {
        Duration::ZERO
    } else {
        READER
    });
}

/// Gives a stalled reader a last chance to read the text.
pub(super) fn finish() {
    if let Some(Some(said)) = SAID.get() {
        said.wait(READER);
    }
}

/// Starts the thread.
fn start() -> Option<Said> {
    let queue = LineQueue::start(Setup {
        name: "stderr",
        thread: "stderr",
        target: Target::Stderr,
        rotate: None,
        capacity: QUEUE,
        lost: IntCounter::new("lost", "Messages that found no reader").ok()?,
    });
    Some(Said {
        queue: queue.ok()?,
        is_stalled: AtomicBool::new(false),
    })
}

impl Said {
    fn wait(&self, patience: Duration) {
        let is_written = self.queue.flush(patience);
        self.is_stalled.store(!is_written, Ordering::Relaxed);
    }
}
