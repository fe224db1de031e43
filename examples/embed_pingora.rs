//! A Pingora proxy of one's own with certificates from a CA with ACME.
//!
//! ```sh
//! cargo run --example embed_pingora -- 0.0.0.0:443 0.0.0.0:80 127.0.0.1:3000 \
//!     www.example.com letsencrypt-staging
//! ```
//!
//! passes requests to the server at port 3000. The CA validates on one of the two listeners. A sixth
//! argument names a file with the roots to trust for the CA's own HTTPS.

use std::env::args;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use snigate::storage::FileStorage;
use snigate::{AcmeIssuer, Engine, Http01Responder};
use tokio::runtime::Runtime;

/// Passes every request to one server.
struct Proxy {
    upstream: String,
    http01: Http01Responder,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    /// Answers the CA. Everything else goes to the server.
    async fn request_filter(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<bool> {
        let request = session.req_header();
        let host = request
            .headers
            .get("host")
            .and_then(|host| host.to_str().ok());
        let answer = self
            .http01
            .find(host.unwrap_or_default(), request.uri.path())
            .await;
        let Some(answer) = answer else {
            return Ok(false);
        };
        let mut head = ResponseHeader::build(200, None)?;
        head.insert_header("content-length", answer.len().to_string())?;
        session.write_response_header(Box::new(head), false).await?;
        session
            .write_response_body(Some(Bytes::from(answer)), true)
            .await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            &*self.upstream,
            false,
            String::new(),
        )))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [https, http, upstream, name, directory, roots @ ..] = &*arguments else {
        return Err("usage: embed_pingora HTTPS HTTP UPSTREAM NAME DIRECTORY [ROOTS]".into());
    };
    let mut ca = AcmeIssuer::builder().directory(directory);
    if let Some(roots) = roots.first() {
        ca = ca.root_certificates(roots);
    }
    // Pingora's runtimes live in its services. The engine has its own, until the end.
    let runtime = Runtime::new()?;
    let engine = Engine::builder()
        .storage(FileStorage::new("certs"))
        .issuer("ca", ca)
        .manage([name])
        .start();
    let engine = runtime.block_on(engine)?;

    let mut server = Server::new_with_opt_and_conf(None, ServerConf::default());
    let proxy = Proxy {
        upstream: upstream.clone(),
        http01: engine.http01(),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(http);
    service.add_tls_with_settings(https, None, engine.tls_settings()?);
    server.add_service(service);
    server.run(RunArgs::default());
    runtime.block_on(engine.stop());
    Ok(())
}
