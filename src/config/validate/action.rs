//! What routes do with requests.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::context::Context;
use super::files::files;
use super::redirect;
use super::references::{self, Upstreams};
use super::retries::retries;
use super::value::{FOREVER, MOMENT};
use crate::config::model::{Action, PathMatch, Proxy};
use crate::config::problem::At;
use crate::config::schema;

/// The one thing that a route for `path` does.
pub(super) fn action(
    ctx: &mut Context<'_>,
    route: &schema::Route,
    upstreams: &Upstreams,
    path: Option<&PathMatch>,
    at: &At<'_>,
) -> Option<Action> {
    if route.upstream.is_none() && !at.key("upstream").is_written() {
        let others = [
            ("timeout", route.timeout.is_some()),
            ("retries", route.retries.is_some()),
            ("max_body", route.max_body.is_some()),
            ("strip_prefix", route.strip_prefix),
            ("rewrite", route.rewrite.is_some()),
            ("host", route.host.is_some()),
            ("request_headers", route.request_headers.is_some()),
            ("compress", route.compress.is_some()),
        ];
        let (has_files, has_body) = (route.files.is_some(), route.respond.is_some());
        for (key, given) in others {
            let (or, is_fit) = match key {
                "strip_prefix" | "rewrite" => (" or 'files'", has_files),
                "compress" => (", 'files' or 'respond'", has_files || has_body),
                _ => ("", false),
            };
            if given && !is_fit {
                let message = format!("'{key}' has no meaning without 'upstream'{or}");
                ctx.problems
                    .error(&at.key(key).at_key(), message, "remove it");
            }
        }
    }
    match (
        &route.upstream,
        &route.redirect,
        &route.respond,
        &route.files,
    ) {
        (Some(name), None, None, None) => {
            let default = schema::Timeout::default();
            let timeout = route.timeout.as_ref().unwrap_or(&default);
            let max_body = route.max_body.as_ref();
            let max_body = max_body.map(|raw| ctx.body_size(&at.key("max_body"), raw));
            let upstream_at = at.key("upstream");
            let mut action = proxy(
                ctx,
                &upstream_at,
                name,
                upstreams,
                timeout,
                route.retries.as_ref(),
                at,
            );
            if let Some(Action::Proxy(proxy)) = &mut action {
                proxy.max_body = max_body;
            }
            action
        }
        (None, None, None, Some(files)) => Some(self::files(ctx, files, &at.key("files"))),
        (None, Some(redirect), None, None) => {
            self::redirect(ctx, redirect, path, &at.key("redirect"))
        }
        (None, None, Some(respond), None) => self::respond(ctx, respond, &at.key("respond")),
        (None, None, None, None) => {
            let message = "the route does nothing";
            let hint = "give exactly one of 'upstream', 'redirect', 'respond', 'files'";
            ctx.problems.error(at, message, hint);
            None
        }
        _ => {
            let message = "'upstream', 'redirect', 'respond' and 'files' exclude each other";
            ctx.problems
                .error(at, message, "keep one, or make a separate route for each");
            None
        }
    }
}

/// Passing requests on to the upstream of this name.
pub(super) fn proxy(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    name: &str,
    upstreams: &Upstreams,
    timeout: &schema::Timeout,
    retries: Option<&schema::Retries>,
    route: &At<'_>,
) -> Option<Action> {
    let timeout_at = route.key("timeout");
    let connect = ctx.duration(
        &timeout_at.key("connect"),
        &timeout.connect,
        MOMENT,
        FOREVER,
    );
    let read = ctx.duration(&timeout_at.key("read"), &timeout.read, MOMENT, FOREVER);
    let send = ctx.duration(&timeout_at.key("send"), &timeout.send, MOMENT, FOREVER);
    let total_at = timeout_at.key("total");
    let total = ctx.duration(&total_at, &timeout.total, Duration::ZERO, FOREVER);
    Some(Action::Proxy(Proxy {
        upstream: references::upstream(ctx, at, name, upstreams)?,
        connect_timeout: connect,
        read_timeout: read,
        send_timeout: send,
        total_timeout: Some(total).filter(|total| !total.is_zero()),
        max_body: None,
        retries: self::retries(ctx, retries, &route.key("retries")),
    }))
}

fn redirect(
    ctx: &mut Context<'_>,
    raw: &schema::Redirect,
    path: Option<&PathMatch>,
    at: &At<'_>,
) -> Option<Action> {
    let status =
        status(raw.status).filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        let at = at.key("status");
        let message = format!("{} is not a redirect status", at.quoted());
        ctx.problems.error(
            &at,
            message,
            "give 301 or 308 for good, 302, 303 or 307 for now",
        );
    }
    let to = redirect::target(ctx, &at.key("to"), &raw.to, path);
    Some(Action::Redirect {
        to: to?,
        status: status?,
    })
}

fn respond(ctx: &mut Context<'_>, raw: &schema::Respond, at: &At<'_>) -> Option<Action> {
    let status = status(raw.status).filter(|status| (200..600).contains(&status.as_u16()));
    let Some(status) = status else {
        let at = at.key("status");
        let message = format!("{} is not a response status", at.quoted());
        ctx.problems
            .error(&at, message, "give a number from 200 to 599");
        return None;
    };
    if matches!(status.as_u16(), 204 | 205 | 304) && !raw.body.is_empty() {
        let message = "a response with this status has no body";
        ctx.problems
            .error(&at.key("body"), message, "remove the body");
    }
    let Ok(content_type) = HeaderValue::from_str(&raw.content_type) else {
        let at = at.key("content_type");
        let message = format!("{} is not a media type", at.quoted());
        ctx.problems.error(
            &at,
            message,
            "write a type such as text/html; charset=utf-8",
        );
        return None;
    };
    Some(Action::Respond {
        status,
        body: bytes::Bytes::from(raw.body.clone()),
        content_type,
    })
}

fn status(number: u64) -> Option<StatusCode> {
    StatusCode::from_u16(u16::try_from(number).ok()?).ok()
}
