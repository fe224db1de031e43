//! The only place that prints: data to stdout, everything else to stderr, in colour only for a
//! person.

#![allow(clippy::print_stderr, reason = "this is where stderr is written")]

mod progress;
mod stderr;

use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

pub(super) use self::progress::Progress;
use self::stderr::write_text;
use super::failure::Failure;
use crate::config::Diagnostic;
use crate::printable;

/// Prints, in colour if wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    stdout: Style,
    stderr: Style,
    /// Whether a person reads stderr.
    person: bool,
    /// Whether a line on stderr can be rewritten.
    live: bool,
}

impl Output {
    /// Colour on terminals, unless `NO_COLOR` is set or the terminal is dumb.
    pub(super) fn from_environment() -> Self {
        let able = env::var_os("TERM").is_none_or(|term| term != "dumb");
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && able;
        Self {
            stdout: Style(wanted && io::stdout().is_terminal()),
            stderr: Style(wanted && io::stderr().is_terminal()),
            person: io::stderr().is_terminal(),
            live: able && io::stderr().is_terminal(),
        }
    }

    /// Without colour, for tests.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            stdout: Style(false),
            stderr: Style(false),
            person: false,
            live: false,
        }
    }

    /// The style of text for stdout.
    pub(super) fn style(&self) -> Style {
        self.stdout
    }

    /// The maximum width of a line of data; `None` if no person reads it.
    pub(super) fn width(&self) -> Option<usize> {
        width_of(io::stdout())
    }

    /// Shows the progress of something slow.
    pub(super) fn progress(&self) -> Progress {
        Progress::new(self.stderr, self.live)
    }

    /// Prints data.
    pub(super) fn data(&self, data: impl AsRef<[u8]>) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        written(
            stdout
                .write_all(data.as_ref())
                .and_then(|()| stdout.flush()),
        )
    }

    /// Reports progress or a result.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        write_text(text.as_ref());
    }

    /// Warns.
    pub(super) fn warning(&self, text: impl AsRef<str>) {
        write_text(&format!(
            "{} {}",
            self.stderr.yellow("warning:"),
            text.as_ref()
        ));
    }

    /// Shows a problem of a configuration: with its line for a person, on one line for programs.
    pub(super) fn diagnostic(&self, diagnostic: &Diagnostic) {
        if self.person {
            write_text(&diagnostic.render(self.stderr.0));
        } else {
            write_text(&diagnostic.to_string());
        }
    }

    /// A mistake in a configuration, `FILE:LINE:COLUMN: what, why, what to do`: editors and people
    /// find the place if nothing precedes it.
    pub(super) fn mistake(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        match text.split_once(": ") {
            Some((place, what)) => write_text(&format!("{}: {what}", self.stderr.bold(place))),
            None => write_text(text),
        }
    }

    /// Shows a failure, unless it has been shown.
    pub(super) fn failure(&self, failure: &Failure) {
        let (error, hint) = match failure {
            Failure::Failed { error, hint } => (in_full(error), hint.as_deref()),
            Failure::Usage(error) => (error.clone(), Some("see snigate --help")),
            Failure::UsageShown
            | Failure::Invalid
            | Failure::Found
            | Failure::ReaderGone
            | Failure::Ended(_) => return,
        };
        write_text(&format!("{} {error}", self.stderr.red("error:")));
        if let Some(hint) = hint {
            write_text(&format!("{} {hint}", self.stderr.cyan("hint:")));
        }
    }

    /// Shows what clap returns instead of arguments: help and version are data, the rest is not.
    pub(super) fn clap(&self, answer: &clap::Error) -> Result<(), Failure> {
        if !answer.use_stderr() {
            return written(answer.print());
        }
        let text = answer.render();
        write_text(
            if self.stderr.0 {
                text.ansi().to_string()
            } else {
                text.to_string()
            }
            .trim_end(),
        );
        Err(Failure::UsageShown)
    }

    /// Waits until everything is written, but not for a stalled reader of stderr. To be called at
    /// the end of the process.
    pub(super) fn finish(&self) {
        stderr::finish();
    }
}

/// The columns of a terminal.
fn width_of(stream: impl AsFd + IsTerminal) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Somebody else's text, without anything that would control a terminal or mislead its reader.
pub(super) fn clean(text: &str) -> String {
    printable::lines(text)
}

/// An error with its causes, without those whose words are in it already.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => anyhow::Error::new(error)
            .context("cannot write to stdout")
            .into(),
    })
}

/// Colours text, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style(bool);

impl Style {
    /// In colour, for tests.
    #[cfg(test)]
    pub(super) fn always() -> Self {
        Self(true)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = io::Error::from_raw_os_error(98);
        let text = cause.to_string();
        let told = Err::<(), _>(cause).context(format!("cannot listen: {text}"));
        let told = in_full(&told.context("cannot start").expect_err("an error"));
        assert_eq!(told, format!("cannot start: cannot listen: {text}"));
    }
}
