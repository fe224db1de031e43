//! A proxy that plain HTTP is sent through (RFC 9110, section 3.7): it gets the whole URL. Few let a
//! tunnel through to port 80.

use std::io;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use super::{Body, credentials};

/// A proxy. Each request has a connection of its own.
pub(super) struct ForwardProxy {
    /// Its host and port.
    address: String,
    credentials: Option<HeaderValue>,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub(super) enum ForwardError {
    #[error("cannot connect to the proxy: {0}")]
    Connect(#[source] io::Error),
    #[error("through the proxy: {0}")]
    Exchange(#[from] hyper::Error),
}

impl ForwardProxy {
    pub(super) fn new(proxy: &Uri) -> Self {
        let host = proxy.host().unwrap_or_default();
        let port = proxy.port_u16().unwrap_or(80);
        Self {
            address: format!("{host}:{port}"),
            credentials: credentials(proxy),
        }
    }

    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ForwardError> {
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.map_err(ForwardError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the response, or when nobody waits for that any more.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let host = request.uri().authority().map(|one| one.as_str().to_owned());
        let host = host.and_then(|host| HeaderValue::from_str(&host).ok());
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(credentials) = &self.credentials {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        Ok(sender.send_request(request).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use crate::http_client::{Body, HttpClient, Options};

    #[tokio::test]
    async fn it_gets_the_whole_url_and_its_own_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let heard = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut octet = [0];
                client.read_exact(&mut octet).expect("a head");
                head.push(octet[0]);
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            client.write_all(answer).expect("written");
            String::from_utf8(head).expect("text").to_ascii_lowercase()
        });
        let proxy = format!("http://me:secret@{address}")
            .parse()
            .expect("a URL");
        let client = HttpClient::new(Options {
            proxy: Some(&proxy),
            allow_plain: true,
            only_plain: true,
            ..Options::default()
        });
        let request = http::Request::builder().uri("http://ocsp.example/a?b");
        let request = request.body(Body::default()).expect("a request");
        let answer = client.expect("a client").send(request).await;
        assert_eq!(&answer.expect("an answer").body()[..], b"ok");
        let head = heard.join().expect("heard");
        assert!(
            head.starts_with("get http://ocsp.example/a?b http/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nhost: ocsp.example\r\n"), "{head}");
        assert!(
            head.contains("proxy-authorization: basic bwu6c2vjcmv0\r\n"),
            "{head}"
        );
    }
}
