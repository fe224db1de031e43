//! What choosing a certificate costs a handshake: ours, by SNI among 10,000 names, against a plain
//! OpenSSL context that has one certificate and no callback.
//!
//! Client and server are in one process and talk over memory, so that nothing but the handshake is
//! measured; both sides' work is in each figure. The client's is the same in all of them.

#![allow(clippy::expect_used, reason = "a benchmark may fail loudly")]

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, Ssl, SslAcceptor, SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVerifyMode, select_next_proto,
};
use openssl::x509::X509;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::tls::server::{handshake, handshake_with_callback};
use rcgen::{CertificateParams, KeyPair};
use snigate::certificate::sni::{CertificateSet, SniMap};
use snigate::certificate::{Loader, Source};
use snigate::challenge::Challenges;
use snigate::config::model::{SessionTickets, Tls, TlsVersion, UnknownSni};
use snigate::host::Pattern;
use snigate::metrics::Metrics;
use snigate::tls::{GlobalCertificate, Snapshot};
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;

/// The name that clients ask for.
const NAME: &str = "site5000.example";

const SITES: usize = 10_000;

struct Leaf {
    certificate: String,
    key: String,
}

fn leaf() -> Leaf {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
    Leaf {
        certificate: params.self_signed(&key).expect("a certificate").pem(),
        key: key.serialize_pem(),
    }
}

/// What a server does that has one certificate: the same settings as ours, no callback but ALPN.
fn plain(leaf: &Leaf) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a context");
    let certificate = X509::from_pem(leaf.certificate.as_bytes()).expect("a certificate");
    let key = PKey::private_key_from_pem(leaf.key.as_bytes()).expect("a key");
    builder.set_certificate(&certificate).expect("set");
    builder.set_private_key(&key).expect("set");
    builder
        .set_groups_list("X25519MLKEM768 / X25519:P-256")
        .expect("set");
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_read_ahead(true);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::ALERT_FATAL)
    });
    builder.build()
}

/// Ours, with [`SITES`] names of which one is asked for.
fn ours(leaf: &Leaf) -> (SslAcceptor, GlobalCertificate) {
    let pem = format!("{}{}", leaf.certificate, leaf.key);
    let loaded = Loader::new()
        .expect("OpenSSL")
        .load(pem.as_bytes(), Source::Program)
        .expect("a certificate");
    let set = Arc::new(CertificateSet::single(Arc::new(loaded.certificate)));
    let names = (0..SITES).map(|number| {
        let name: Pattern = format!("site{number}.example").parse().expect("a name");
        (name, Some(Arc::clone(&set)))
    });
    let server = GlobalCertificate::new(Metrics::new().expect("metrics"), Challenges::default())
        .expect("OpenSSL");
    server.publish(Snapshot {
        certificates: Arc::new(SniMap::default().with_changes(names)),
        unknown_sni: UnknownSni::Default,
        attachment: None,
        policies: Arc::default(),
    });
    let settings = Tls {
        versions: TlsVersion::ALL,
        ciphers: None,
        protocols: None,
        groups: ["X25519MLKEM768", "X25519", "P-256"]
            .map(str::to_owned)
            .to_vec(),
        default_certificate: None,
        unknown_sni: UnknownSni::Default,
        session_tickets: SessionTickets::Rotate(Duration::from_secs(43_200)),
        policy: None,
        key_log: None,
    };
    (server.acceptor(&settings, None).expect("OpenSSL"), server)
}

/// A client that knows these groups.
fn client(groups: &str) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_client()).expect("a context");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_groups_list(groups).expect("set");
    builder.set_alpn_protos(b"\x02h2\x08http/1.1").expect("set");
    builder.build()
}

async fn connect(context: &SslContext, io: DuplexStream) -> SslStream<DuplexStream> {
    let mut ssl = Ssl::new(context).expect("a client");
    ssl.set_hostname(NAME).expect("set");
    let mut stream = SslStream::new(ssl, io).expect("a stream");
    Pin::new(&mut stream).connect().await.expect("a handshake");
    stream
}

fn handshakes(criterion: &mut Criterion) {
    let leaf = leaf();
    let plain = plain(&leaf);
    let (acceptor, certificates) = ours(&leaf);
    let runtime = Runtime::new().expect("a runtime");
    for groups in ["X25519", "X25519MLKEM768"] {
        let client = client(groups);
        let mut group = criterion.benchmark_group(format!("handshake/{groups}"));
        group
            .measurement_time(Duration::from_secs(10))
            .sample_size(60);
        group.bench_function("plain context", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let (near, far) = tokio::io::duplex(64 * 1024);
                    let server = handshake(&plain, far);
                    black_box(tokio::join!(connect(&client, near), server))
                })
            });
        });
        group.bench_function("by SNI among 10,000", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let (near, far) = tokio::io::duplex(64 * 1024);
                    let server = handshake_with_callback(&acceptor, far, &certificates);
                    black_box(tokio::join!(connect(&client, near), server))
                })
            });
        });
        group.finish();
    }
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
