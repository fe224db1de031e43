//! Programs that are run: their commands and environments.

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
    if !program.trim().is_empty() && !Path::new(program).is_absolute() {
        let at = at.index(0);
        let message = format!("{} is not an absolute path", at.quoted());
        let hint = format!("write the program's full path, such as {example}");
        ctx.problems.error(&at, message, hint);
    }
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
