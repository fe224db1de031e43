//! `files` of routes.

use std::sync::Arc;

use super::context::Context;
use super::rewrite;
use crate::config::model::{Action, Files, Part};
use crate::config::problem::At;
use crate::config::schema::{self, Switch};

/// The files that a route serves.
pub(super) fn files(ctx: &mut Context<'_>, raw: &schema::Files, at: &At<'_>) -> Action {
    let root_at = at.key("root");
    let root = ctx.path(&root_at, &raw.root);
    if !root.is_dir() {
        let message = format!("there is no directory {} yet", root_at.quoted());
        let hint =
            "make it, or check the path; a relative one is relative to the file it stands in";
        ctx.problems.warn(&root_at, message, hint);
    }
    let index_at = at.key("index");
    for (number, name) in raw.index.iter().enumerate() {
        if matches!(&**name, "" | "." | "..") || name.contains(['/', '\0']) {
            let at = index_at.index(number);
            let message = format!("{} is not the name of a file", at.quoted());
            ctx.problems
                .error(&at, message, "write a name such as index.html");
        }
    }
    let try_at = at.key("try");
    let mut candidates = Vec::with_capacity(raw.candidates.len());
    for (number, text) in raw.candidates.iter().enumerate() {
        let at = try_at.index(number);
        let Some(template) = rewrite::target(ctx, &at, text, None) else {
            continue;
        };
        let has_query =
            |part: &Part| matches!(part, Part::Text(text) if text.contains('?')) || is_query(part);
        if template.parts().iter().any(has_query) {
            let message = format!("{} is not the path of a file", at.quoted());
            ctx.problems.error(&at, message, "leave out the query");
        }
        candidates.push(template);
    }
    Action::Files(Arc::new(Files {
        root,
        index: raw.index.iter().map(|name| Box::from(&**name)).collect(),
        candidates,
        list: raw.list == Switch::On,
        hidden: raw.hidden == Switch::On,
        symlinks: raw.symlinks == Switch::On,
    }))
}

fn is_query(part: &Part) -> bool {
    use crate::config::model::Placeholder::{Query, QuestionedQuery};
    matches!(part, Part::Placeholder(Query | QuestionedQuery))
}
