//! `tracing`.

use http::Uri;
use http::uri::PathAndQuery;

use super::client::{report_user, roots_for};
use super::context::Context;
use super::notify::headers;
use super::value::url;
use crate::config::model::Tracing;
use crate::config::problem::At;

/// Where collectors take spans (OTLP specification, "Endpoint URLs for OTLP/HTTP").
const PATH: PathAndQuery = PathAndQuery::from_static("/v1/traces");

pub(super) fn tracing(ctx: &mut Context<'_>, root: &At<'_>) -> Option<Tracing> {
    let raw = ctx.raw.tracing.as_ref()?;
    let at = root.key("tracing");
    let endpoint = endpoint(ctx, raw.endpoint.as_deref(), &at);
    let headers = headers(ctx, &raw.headers, &at.key("headers"));
    let service_at = at.key("service");
    if raw.service.trim().is_empty() {
        let hint = "write a name for this gateway, such as edge";
        ctx.problems.error(&service_at, "the name is empty", hint);
    }
    if !(0.0..=1.0).contains(&raw.sample) {
        let at = at.key("sample");
        let message = format!("{} is not a share of the requests", at.quoted());
        let hint = "give a number between 0 and 1, such as 0.01";
        ctx.problems.error(&at, message, hint);
    }
    let endpoint = endpoint?;
    let (ca_file, _) = roots_for(ctx, &endpoint, &at.key("ca_file"), raw.ca_file.as_deref());
    Some(Tracing {
        endpoint,
        headers,
        ca_file,
        service: raw.service.clone(),
        sample: raw.sample,
    })
}

fn endpoint(ctx: &mut Context<'_>, raw: Option<&str>, at: &At<'_>) -> Option<Uri> {
    let endpoint_at = at.key("endpoint");
    let Some(text) = raw else {
        if !endpoint_at.is_written() {
            let hint = "add 'endpoint: http://127.0.0.1:4318', or where your collector is";
            ctx.problems.error(at, "there is no 'endpoint'", hint);
        }
        return None;
    };
    let Some(endpoint) = url(text) else {
        let message = format!("{} is not a URL of http or https", endpoint_at.quoted());
        let hint = "write it in full, such as http://127.0.0.1:4318";
        ctx.problems.error(&endpoint_at, message, hint);
        return None;
    };
    if text.contains('@') {
        report_user(ctx, &endpoint_at);
        return None;
    }
    if endpoint.path() != "/" || endpoint.query().is_some() {
        return Some(endpoint);
    }
    let mut parts = endpoint.into_parts();
    parts.path_and_query = Some(PATH);
    Uri::from_parts(parts).ok()
}
