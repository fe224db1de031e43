//! The progress of something slow, on stderr: a line for each step, the last one animated on a
//! terminal.

use std::io::{self, Write};

use tokio::time::Instant;

use super::{Style, clean, width_of, write_text};

/// The steps so far.
#[derive(Debug)]
pub(in crate::cli) struct Progress {
    style: Style,
    /// Whether the last line can be rewritten.
    live: bool,
    begin: Instant,
    current: Option<Step>,
}

#[derive(Debug)]
struct Step {
    begin: Instant,
    text: String,
}

impl Progress {
    pub(super) fn new(style: Style, live: bool) -> Self {
        Self {
            style,
            live,
            begin: Instant::now(),
            current: None,
        }
    }

    /// Begins the next step. The same text again continues the current one.
    pub(in crate::cli) fn step(&mut self, text: impl AsRef<str>) {
        let text = clean(&text.as_ref().replace('\n', " "));
        if self.current.as_ref().is_some_and(|step| step.text == text) {
            return;
        }
        self.finish_line();
        let step = Step {
            begin: Instant::now(),
            text,
        };
        if !self.live {
            write_text(&self.line(&step));
        }
        self.current = Some(step);
        self.tick();
    }

    /// Changes the text of the current step, which only a terminal shows.
    pub(in crate::cli) fn update(&mut self, text: impl AsRef<str>) {
        if let Some(step) = &mut self.current {
            step.text = clean(&text.as_ref().replace('\n', " "));
        }
        self.tick();
    }

    /// Shows that time passes.
    pub(in crate::cli) fn tick(&mut self) {
        if let (true, Some(step)) = (self.live, &self.current) {
            let running = format!(" ({} s)", step.begin.elapsed().as_secs());
            // A line that wraps could not be rewritten.
            let width = width_of(io::stderr()).unwrap_or(80);
            let room = width.saturating_sub(running.len() + 1);
            let line = format!("{}  {}", self.since(step), step.text);
            let line: String = line.chars().take(room).chain(running.chars()).collect();
            let mut stderr = io::stderr().lock();
            // A closed stderr is no reason to fail.
            let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
        }
    }

    /// Leaves the last step as it is; the next output gets its own line.
    pub(in crate::cli) fn finish_line(&mut self) {
        if let Some(step) = self.current.take()
            && self.live
        {
            write_text(&format!("\r\x1b[K{}", self.line(&step)));
        }
    }

    fn line(&self, step: &Step) -> String {
        format!("{}  {}", self.style.dim(&self.since(step)), step.text)
    }

    /// How long after the first step this one began.
    fn since(&self, step: &Step) -> String {
        let seconds = step.begin.duration_since(self.begin).as_secs();
        format!("{:>5}", format!("{seconds} s"))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish_line();
    }
}
