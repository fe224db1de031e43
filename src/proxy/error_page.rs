//! Pages for errors and maintenance, as one request gets them.

use std::sync::Arc;

use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::grpc::is_call;
use super::request::Request;
use super::response::{LocalResponse, describes_content};
use crate::config::model::{ErrorPages, Form, Maintenance, Page, PageValues};
use crate::host::NameBuffer;

/// Why a request is not served during maintenance.
const MAINTAINED: &str = "The site is under maintenance.";

/// The pages that replace bodies of servers in responses to one request.
#[derive(Clone, Debug)]
pub(crate) struct Replacements {
    pages: Arc<ErrorPages>,
    form: Form,
}

impl Replacements {
    /// Those for a request of a site with these pages; `None` if there are none.
    pub(crate) fn of(pages: &Arc<ErrorPages>, request: &Request<'_>) -> Option<Self> {
        (pages.has_upstream() && !is_call(request.fields)).then(|| Self {
            pages: Arc::clone(pages),
            form: Form::wanted(request.fields.get(&ACCEPT)),
        })
    }

    /// Whether the body of a response is replaced.
    pub(crate) fn has(&self, status: StatusCode) -> bool {
        self.pages.find_upstream(status, self.form).is_some()
    }

    /// The response in place of a server's, with what is kept of its `fields`.
    pub(crate) fn respond(
        &self,
        status: StatusCode,
        fields: Vec<(HeaderName, HeaderValue)>,
        request: &Request<'_>,
        request_id: &str,
    ) -> LocalResponse {
        let response = match self.pages.find_upstream(status, self.form) {
            Some(page) => page_response(page, status, request, request_id),
            None => LocalResponse::status(status).uncacheable(),
        };
        let fields = fields.into_iter();
        fields.fold(response.without_retry(), |response, (name, value)| {
            response.with_field(name, value)
        })
    }
}

/// Whether a field of a response describes its body, so that it does not outlive it.
pub(crate) fn describes_body(name: &[u8]) -> bool {
    const OTHERS: [&str; 4] = ["age", "cache-control", "date", "expires"];
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    describes_content(name) || OTHERS.into_iter().any(is)
}

/// The error page for a request: the configured one, or one that says `why`.
pub(crate) fn error_response(
    pages: Option<&ErrorPages>,
    status: StatusCode,
    why: &str,
    request: &Request<'_>,
    request_id: &str,
) -> LocalResponse {
    let accept = request.fields.get(&ACCEPT);
    let page = pages
        .filter(|_| !is_call(request.fields))
        .and_then(|pages| pages.find(status, Form::wanted(accept)));
    match page {
        Some(page) => page_response(page, status, request, request_id),
        None => LocalResponse::error(status, why, accept, request_id),
    }
}

/// The response to a request during maintenance.
pub(crate) fn maintenance_response(
    maintenance: &Maintenance,
    pages: Option<&ErrorPages>,
    request: &Request<'_>,
    request_id: &str,
) -> LocalResponse {
    let form = Form::wanted(request.fields.get(&ACCEPT));
    let page = maintenance.page.as_deref();
    let status = maintenance.status;
    let response = match page.filter(|page| page.suits(form) && !is_call(request.fields)) {
        Some(page) => page_response(page, status, request, request_id),
        None => error_response(pages, status, MAINTAINED, request, request_id),
    };
    let retry_after = maintenance.retry_after;
    match retry_after.is_zero() {
        true => response.without_retry(),
        false => {
            let seconds = retry_after.as_millis().div_ceil(1000);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.with_field(RETRY_AFTER, HeaderValue::from(seconds))
        }
    }
}

fn page_response(
    page: &Page,
    status: StatusCode,
    request: &Request<'_>,
    request_id: &str,
) -> LocalResponse {
    let mut buffer = NameBuffer::new();
    let host = request.parse_authority(&mut buffer);
    let host = host.map(|authority| authority.host.to_string());
    let body = page.fill(PageValues {
        status,
        host: host.as_deref().unwrap_or_default(),
        request_id,
    });
    LocalResponse::new(status, page.media_type().clone(), body).uncacheable()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderMap;
    use http::header::{CACHE_CONTROL, CONTENT_TYPE};

    use super::*;
    use crate::proxy::request::Fields;
    use crate::proxy::response_fields::ResponseFields;

    const WHY: &str = "It is not here.";

    fn with_request<T>(fields: &[(HeaderName, &str)], then: impl FnOnce(&Request<'_>) -> T) -> T {
        let fields: HeaderMap = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().expect("a value")))
            .collect();
        then(&Request {
            method: "GET",
            target: b"/",
            authority: b"A.Example.:8443",
            version: "HTTP/1.1",
            fields: Fields::Map(&fields),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        })
    }

    fn pages() -> ErrorPages {
        use crate::config::model::{ErrorKey, ErrorPage};
        let html = HeaderValue::from_static("text/html");
        let page = Page::new(html, Bytes::from_static(b"{status} {host} {request_id}"));
        let entry = ErrorPage {
            pages: vec![page.into()],
            upstream: false,
        };
        ErrorPages::new([(ErrorKey::Class(4), entry)])
    }

    fn body(response: &LocalResponse) -> String {
        let body = response.body().cloned().unwrap_or_default();
        String::from_utf8(body.to_vec()).expect("text")
    }

    fn field(response: &LocalResponse, name: &HeaderName) -> Option<String> {
        let id = HeaderValue::from_static("00ff");
        let mut fields = response.fields_with(ResponseFields::of_request(&id));
        let found = fields.find(|(other, _)| other == name);
        found.map(|(_, value)| value.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_configured_page_takes_the_place_of_the_built_in_one() {
        let pages = pages();
        let of = |status, fields: &[(HeaderName, &str)]| {
            with_request(fields, |request| {
                error_response(Some(&pages), status, WHY, request, "00ff")
            })
        };
        let page = of(StatusCode::NOT_FOUND, &[]);
        assert_eq!(body(&page), "404 a.example 00ff");
        assert_eq!(field(&page, &CONTENT_TYPE).as_deref(), Some("text/html"));
        assert_eq!(field(&page, &CACHE_CONTROL).as_deref(), Some("no-store"));
        for (status, fields) in [
            (StatusCode::BAD_GATEWAY, &[][..]),
            (StatusCode::NOT_FOUND, &[(ACCEPT, "application/json")]),
            (
                StatusCode::NOT_FOUND,
                &[(CONTENT_TYPE, "Application/grpc+proto")],
            ),
        ] {
            assert!(body(&of(status, fields)).contains(WHY), "{fields:?}");
        }
    }

    #[test]
    fn maintenance_says_when_to_try_again() {
        let mut maintenance = Maintenance {
            status: StatusCode::SERVICE_UNAVAILABLE,
            page: None,
            retry_after: Duration::from_millis(1500),
            allow: Vec::new(),
        };
        let of = |maintenance: &Maintenance| {
            with_request(&[], |request| {
                maintenance_response(maintenance, None, request, "00ff")
            })
        };
        let response = of(&maintenance);
        assert!(body(&response).contains(MAINTAINED));
        assert_eq!(field(&response, &RETRY_AFTER).as_deref(), Some("2"));
        maintenance.retry_after = Duration::ZERO;
        assert_eq!(field(&of(&maintenance), &RETRY_AFTER), None);
    }
}
