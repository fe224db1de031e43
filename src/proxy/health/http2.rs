//! Checks over a connection of HTTP/2 of their own.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::header::{ACCEPT, USER_AGENT};
use http::request::Builder as RequestBuilder;
use http::{Method, Request, Version};

use crate::proxy::dial::Duplex;

/// The most octets of a head that is received.
const MAX_HEAD: u32 = 16 * 1024;

/// Sends a GET request and returns the status of the response.
pub(super) async fn request_status(
    socket: Box<dyn Duplex>,
    path: &str,
    host: &str,
    is_tls: bool,
) -> Result<u16, String> {
    let head = begin(Method::GET, path, host, is_tls).header(ACCEPT, "*/*");
    let head = head.body(()).map_err(unfit)?;
    over_http2(socket, async |mut sender| {
        let (response, _) = sender.send_request(head, true)?;
        response.await.map(|response| response.status().as_u16())
    })
    .await
}

fn begin(method: Method, path: &str, host: &str, is_tls: bool) -> RequestBuilder {
    let scheme = if is_tls { "https" } else { "http" };
    Request::builder()
        .method(method)
        .uri(format!("{scheme}://{host}{path}"))
        .version(Version::HTTP_2)
        .header(USER_AGENT, "snigate")
}

fn unfit(error: http::Error) -> String {
    format!("the request cannot be sent: {error}")
}

/// What `ask` makes of a connection that lasts as long as it.
async fn over_http2<T>(
    socket: Box<dyn Duplex>,
    ask: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<T, h2::Error>,
) -> Result<T, String> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD);
    let asked = async {
        let (sender, connection) = builder.handshake::<_, Bytes>(socket).await?;
        let asking = async { ask(sender.ready().await?).await };
        tokio::select! {
            biased;
            answer = asking => answer.map(Some),
            ended = connection => ended.map(|()| None),
        }
    };
    match asked.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the connection ends before the response".to_owned()),
        Err(error) => Err(format!("the check over HTTP/2 fails: {error}")),
    }
}
