//! `forward_auth` of sites and routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::client::{report_user, roots_for};
use super::context::{Context, ServiceSettings};
use super::rewrite::check_request_field;
use super::value::{MOMENT, url};
use crate::config::model::{ForwardAuth, MAX_ANSWER};
use crate::config::problem::At;
use crate::config::schema;
use crate::http_client::{HttpClient, HttpError, Options, Patience};

/// The longest time for a response.
const LONGEST: Duration = Duration::from_secs(60);

/// The service that is asked about requests. Alike ones share their connections.
pub(super) fn forward_auth(
    ctx: &mut Context<'_>,
    raw: &schema::ForwardAuthOptions,
    at: &At<'_>,
) -> Option<Arc<ForwardAuth>> {
    let copied_at = at.key("copy_headers");
    let mut copied = Vec::with_capacity(raw.copy_headers.len());
    for (index, name) in raw.copy_headers.iter().enumerate() {
        check_request_field(ctx, &copied_at.index(index), name);
        copied.extend(HeaderName::from_bytes(name.as_bytes()));
    }
    let timeout = ctx.duration(&at.key("timeout"), &raw.timeout, MOMENT, LONGEST);
    let url = service_url(ctx, &raw.url, &at.key("url"))?;
    let is_plain = url.scheme_str() == Some("http");
    let ca_at = at.key("ca_file");
    let (ca_file, has_roots) = roots_for(ctx, &url, &ca_at, raw.ca_file.as_deref());
    let settings = (url, copied, timeout, ca_file);
    if let Some(known) = ctx.forward_auths.get(&settings) {
        return Some(Arc::clone(known));
    }
    let client = match client(&settings, is_plain) {
        Ok(client) => Some(client),
        Err(error) => {
            if has_roots {
                let message = format!("the service cannot be reached: {error}");
                let hint = "install the system's roots (ca-certificates), or give a 'ca_file'";
                ctx.problems.fault(&at.key("url"), message, hint);
            }
            None
        }
    };
    let (url, copied, timeout, _) = settings.clone();
    let service = Arc::new(ForwardAuth {
        url,
        copy_headers: copied.into(),
        timeout,
        client,
    });
    ctx.forward_auths.insert(settings, Arc::clone(&service));
    Some(service)
}

fn client(settings: &ServiceSettings, is_plain: bool) -> Result<HttpClient, HttpError> {
    let (_, _, timeout, ca_file) = settings;
    HttpClient::new(Options {
        ca_file: ca_file.as_deref(),
        proxy: None,
        allow_plain: is_plain,
        only_plain: is_plain,
        patience: Patience {
            connect: *timeout,
            request: *timeout,
        },
        max_answer: Some(MAX_ANSWER),
    })
}

fn service_url(ctx: &mut Context<'_>, raw: &str, at: &At<'_>) -> Option<Uri> {
    let Some(url) = url(raw) else {
        let message = format!("{} is not a URL of http or https", at.quoted());
        let hint = "write it in full, such as http://127.0.0.1:9000/verify";
        ctx.problems.error(at, message, hint);
        return None;
    };
    if url
        .authority()
        .is_some_and(|part| part.as_str().contains('@'))
    {
        report_user(ctx, at);
        return None;
    }
    Some(url)
}
