//! Responses of the gateway itself, ready for the client of one request.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::request::Request;
use super::request_ctx::RequestCtx;
use super::response::LocalResponse;

/// A response that is ready to be sent, and the context of its request.
pub struct Prepared {
    pub(super) ctx: RequestCtx,
    /// `None` if it is the one that was decided for the request.
    page: Option<LocalResponse>,
    /// Whether the client requests the head alone.
    head_alone: bool,
    /// Whether the client's connection must not be kept.
    closes: bool,
}

impl Prepared {
    pub(super) fn new(ctx: RequestCtx, page: Option<LocalResponse>, request: &Request<'_>) -> Self {
        let prepared = Self {
            ctx,
            page: page.map(|page| page.in_form_for(request.fields)),
            head_alone: request.method == "HEAD",
            closes: false,
        };
        // Nothing more is read from a client that has sent a malformed request.
        let closes = prepared.status() == StatusCode::BAD_REQUEST;
        prepared.closing(closes)
    }

    /// This response, which also closes the client's connection if `closes`.
    pub(super) fn closing(mut self, closes: bool) -> Self {
        self.closes |= closes;
        self
    }

    fn response(&self) -> Option<&LocalResponse> {
        self.page.as_ref().or_else(|| self.ctx.response())
    }

    /// Whether the client's connection must be closed after this response.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// The status in its head.
    pub fn head_status(&self) -> StatusCode {
        let response = self.response();
        response.map_or_else(|| self.status(), LocalResponse::head_status)
    }

    /// The status that it stands for, which is logged. To a client of gRPC the head says another.
    pub fn status(&self) -> StatusCode {
        self.response()
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, LocalResponse::code)
    }

    /// The fields of its head, without those of the connection and the time.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let gateway = self.ctx.response_fields();
        let response = self.response().into_iter();
        response.flat_map(move |response| response.fields_with(gateway))
    }

    /// Gives a response without a body its status as its body.
    pub fn add_note(&mut self) {
        let noted = self.response().filter(|response| response.may_have_note());
        if let Some(noted) = noted.map(|response| response.clone().with_note()) {
            self.page = Some(noted);
        }
    }

    /// What follows the head, if anything.
    pub fn body(&self) -> Option<&Bytes> {
        let response = self.response().filter(|_| !self.head_alone)?;
        response.body()
    }
}
