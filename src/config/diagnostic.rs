//! What is wrong with a configuration, for people and for programs.
//!
//! One type, three forms: `Display` is one line for logs, [`Diagnostic::render`] shows the source
//! with a caret, and `Serialize` is for `--json`. None of them contains a value that came from
//! `${…}`.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::model::Origin;

use crate::printable::{self, Printable as _};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but probably not intended.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A problem at a place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The file, as named on the command line or found by `include`.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The key, `sites[3].hosts[0]`; empty for a whole file.
    pub path: String,
    /// What is wrong, and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line of the file, unless it holds a secret.
    #[serde(skip)]
    pub(super) excerpt: Option<String>,
}

impl Diagnostic {
    /// A diagnostic about an entry of an accepted configuration.
    pub fn about(severity: Severity, origin: &Origin, message: String) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).max(1);
        Self {
            severity,
            file: origin.file.to_path_buf(),
            line: number(origin.line),
            column: number(origin.column),
            path: origin.path.clone(),
            message,
            hint: None,
            excerpt: None,
        }
    }

    /// Several lines for a terminal: the message, the source line with a caret under the place, and
    /// what to do. With `colour`, in ANSI colours.
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour {
                format!("\x1b[{code}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        let (severity, caret) = match self.severity {
            Severity::Error => ("1;31", "31"),
            Severity::Warning => ("1;33", "33"),
        };
        let mut text = format!(
            "{}: {}\n  {} {}:{}:{}",
            paint(severity, &self.severity.to_string()),
            paint("1", &self.subject()),
            paint("34", "-->"),
            self.file.printable(),
            self.line,
            self.column,
        );
        if let Some((line, indent)) = self.window() {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let bar = paint("34", "|");
            text.push_str(&format!(
                "\n{margin} {bar}\n{} {bar} {line}\n{margin} {bar} {}{}",
                paint("34", &number),
                " ".repeat(indent),
                paint(caret, "^"),
            ));
        }
        if let Some(hint) = &self.hint {
            let hint = printable::line(hint);
            text.push_str(&format!("\n  {} {hint}", paint("36", "help:")));
        }
        text.push('\n');
        text
    }

    /// `what, why, what to do` on one line, where there is no file.
    pub(crate) fn without_place(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {}", self.subject(), printable::line(hint)),
            None => self.subject(),
        }
    }

    /// The sort key of diagnostics.
    pub(super) fn order(&self) -> impl Ord + '_ {
        (&self.file, self.line, self.column)
    }

    /// The key and the message, which quote what the file says.
    fn subject(&self) -> String {
        let message = printable::line(&self.message);
        if self.path.is_empty() {
            message.into_owned()
        } else {
            format!("{}: {message}", printable::line(&self.path))
        }
    }

    /// The visible part of the line, and the position of the place in it.
    fn window(&self) -> Option<(String, usize)> {
        const WIDTH: usize = 100;
        let line = self.excerpt.as_deref()?;
        let place = usize::try_from(self.column).ok()?.saturating_sub(1);
        let skip = if place < WIDTH { 0 } else { place - WIDTH / 2 };
        // A tab or a control character would move the caret, or the terminal.
        let shown = line
            .chars()
            .skip(skip)
            .take(WIDTH)
            .map(|char| if char.is_control() { ' ' } else { char })
            .collect::<String>();
        Some((shown.trim_end().to_owned(), place - skip))
    }
}

impl fmt::Display for Diagnostic {
    /// `FILE:LINE:COLUMN: what, why, what to do` on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: ",
            self.file.printable(),
            self.line,
            self.column
        )?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.without_place())
    }
}

/// Why a configuration was rejected: all errors and warnings, by file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    pub list: Vec<Diagnostic>,
    /// Every file and directory that was read, for a watcher: a change in one of them may fix the
    /// problem.
    pub files: Vec<PathBuf>,
}

impl Diagnostics {
    /// The errors among them.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All of them, as [`Diagnostic::render`] shows each.
    pub fn render(&self, colour: bool) -> String {
        let parts: Vec<_> = self.list.iter().map(|one| one.render(colour)).collect();
        parts.join("\n")
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl fmt::Display for Diagnostics {
    /// One line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
