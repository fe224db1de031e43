//! Asks a CA itself what has become of authorizations, by the account that is stored.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, Error, HttpClient, Problem,
};

use super::fixture::Fixture;
use crate::support::{Pebble, curl};

/// The names whose authorizations are pending in any order that the CA has ever seen.
pub async fn pending(fixture: &Fixture, pebble: &Pebble) -> Vec<String> {
    let stored = fixture.stored("accounts").remove(0);
    let credentials = serde_json::from_value(stored["credentials"].clone()).unwrap();
    let client = CurlClient(pebble.ca_file().to_owned());
    let account = Account::builder_with_http(Box::new(client))
        .from_credentials(credentials)
        .await
        .unwrap();
    let log = pebble.log();
    let orders = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Added order \"")?;
        Some(rest.split('"').next()?.to_owned())
    });
    let mut pending = Vec::new();
    for order in orders {
        let url = pebble
            .directory()
            .replace("/dir", &format!("/my-order/{order}"));
        let mut order = loop {
            match account.order(url.clone()).await {
                Err(error) if is_bad_nonce(&error) => {}
                order => break order.unwrap(),
            }
        };
        let mut checked = false;
        while !checked {
            checked = true;
            pending.retain(|(known, _)| *known != url);
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                match authorization {
                    Err(error) if is_bad_nonce(&error) => checked = false,
                    authorization => {
                        let authorization = authorization.unwrap();
                        if authorization.status == AuthorizationStatus::Pending {
                            pending.push((url.clone(), authorization.identifier().to_string()));
                        }
                    }
                }
            }
        }
    }
    pending.into_iter().map(|(_, name)| name).collect()
}

fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(Problem { r#type: Some(kind), .. }) if kind.ends_with(":badNonce"))
}

/// HTTP by curl, which shares no code with the issuer's.
struct CurlClient(PathBuf);

impl HttpClient for CurlClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let mut run = curl(&request.uri().to_string()).cacert(&self.0);
        let is_head = request.method() == http::Method::HEAD;
        if is_head {
            run = run.arg("--head");
        }
        let is_order = request.uri().path().contains("/my-order/");
        let is_post = request.method() == http::Method::POST;
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if is_post {
                run = run
                    .args(["--header", "content-type: application/jose+json"])
                    .args(["--data-binary", std::str::from_utf8(&body).unwrap()]);
            }
            let reply = tokio::task::spawn_blocking(|| run.try_send())
                .await
                .unwrap()
                .unwrap();
            let mut response = Response::builder().status(reply.status);
            if let Some(nonce) = reply.header("replay-nonce") {
                response = response.header("replay-nonce", nonce);
            }
            // Pebble says of orders what RFC 8555 says of authorizations alone.
            let body = match is_order {
                true => reply
                    .text()
                    .replace("\"deactivated\"", "\"invalid\"")
                    .into_bytes(),
                false => reply.body,
            };
            let body = Full::new(Bytes::from(body));
            Ok(BytesResponse::from(response.body(body).unwrap()))
        })
    }
}
