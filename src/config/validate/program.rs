//! Programs that are run: their commands and environments.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use indexmap::IndexMap;

use super::context::Context;
use crate::config::problem::{At, quote};
use crate::config::schema;

/// Reports a command that does not begin with the full path of a program, such as `example`.
pub(super) fn check_command(ctx: &mut Context<'_>, raw: &[String], at: &At<'_>, example: &str) {
    ctx.command(raw, at);
    let Some(program) = raw.first() else { return };
    // An empty one has been reported.
    if program.trim().is_empty() {
        return;
    }
    let at = at.index(0);
    if Path::new(program).is_absolute() {
        warn_unless_executable(ctx, Path::new(program), &at);
    } else {
        let message = format!("{} is not an absolute path", at.quoted());
        let hint = format!("write the program's full path, such as {example}");
        ctx.problems.error(&at, message, hint);
    }
}

/// Warns of a program that nobody can run. It may be there by the time it is needed.
fn warn_unless_executable(ctx: &mut Context<'_>, program: &Path, at: &At<'_>) {
    let (why, hint) = match std::fs::metadata(program) {
        Ok(known) if !known.is_file() => ("is not a file", "write the full path of the program"),
        Ok(known) if known.permissions().mode() & 0o111 == 0 => {
            ("cannot be executed", "give it the mode 0755")
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            ("does not exist", "install it, or correct the path")
        }
        // Somebody else may be allowed to look.
        Ok(_) | Err(_) => return,
    };
    ctx.problems
        .warn(at, format!("the program {} {why}", at.quoted()), hint);
}

/// Reports what cannot be an environment variable.
pub(super) fn check_env(
    ctx: &mut Context<'_>,
    raw: &IndexMap<String, schema::SecretText>,
    at: &At<'_>,
) {
    for (name, value) in raw {
        if name.is_empty() || name.contains(['=', '\0']) || value.0.expose().contains('\0') {
            let message = format!("{} cannot be an environment variable", quote(name));
            let hint = "a name must not contain '=' or a zero octet";
            ctx.problems.error(&at.key(name).at_key(), message, hint);
        }
    }
}
