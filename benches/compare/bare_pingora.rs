//! A proxy of Pingora alone, for `benches/compare/run`: Pingora's listener, its TLS, its HTTP, its
//! pool of connections, and one server that all requests are passed on to. Nothing of Snigate is in
//! it, so that beside Snigate it shows which part of a request's cost is Pingora's.

use async_trait::async_trait;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// The same as Snigate's, so that no difference is the allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the comparison gives all servers.
const GROUPS: &str = "X25519:P-256";
const KEPT_CONNECTIONS: usize = 256;

struct Proxy {
    upstream: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.upstream.clone()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, pem] = &*arguments else {
        return Err("usage: bare-pingora LISTEN UPSTREAM PEM".into());
    };
    let mut tls = TlsSettings::intermediate(pem, pem)?;
    tls.set_groups_list(GROUPS)?;
    tls.enable_h2();

    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads: 1,
            // One thread has none to steal from; this costs less.
            work_stealing: false,
            upstream_keepalive_pool_size: KEPT_CONNECTIONS,
            ..ServerConf::default()
        },
    );
    let proxy = Proxy {
        upstream: HttpPeer::new(&**upstream, false, String::new()),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tls_with_settings(listen, None, tls);
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
