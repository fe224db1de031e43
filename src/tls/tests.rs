//! Whole handshakes in memory, against OpenSSL's own client.

use std::time::Duration;

use std::pin::Pin;
use std::sync::Mutex as StdMutex;

use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslSession, SslSessionCacheMode, SslVersion,
};
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::tls::server::handshake_with_callback;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::certificate::testing::{NOW, TestCa};
use crate::certificate::{Loader, Source, TlsCertificate};
use crate::challenge::Challenges;
use crate::config::model::{SessionTickets, TlsPolicy, TlsVersion};
use crate::host::HostName;

const ALERT_UNRECOGNIZED_NAME: &str = "unrecognized name";

fn settings() -> Tls {
    Tls {
        versions: TlsVersion::ALL,
        ciphers: None,
        protocols: None,
        groups: vec![
            "X25519MLKEM768".to_owned(),
            "X25519".to_owned(),
            "P-256".to_owned(),
        ],
        default_certificate: None,
        unknown_sni: UnknownSni::Default,
        session_tickets: SessionTickets::Rotate(Duration::from_secs(3600)),
        policy: None,
        key_log: None,
    }
}

/// A certificate for some names.
fn certificate(names: &[&str]) -> Arc<TlsCertificate> {
    let leaf = TestCa::new("tls").leaf(names);
    let pem = format!("{}{}", leaf.certificate, leaf.key);
    let loader = Loader::new().expect("a loader");
    let loaded = loader
        .load(pem.as_bytes(), Source::File("test".into()))
        .expect("a certificate");
    Arc::new(loaded.certificate)
}

/// A server for `sites`, the first of which is the default where `default` says so.
fn server(sites: &[&[&str]], default: bool, unknown_sni: UnknownSni) -> GlobalCertificate {
    let certificates: Vec<_> = sites.iter().map(|names| certificate(names)).collect();
    let mut map = SniMap::of(&certificates, NOW);
    if default {
        let first = Arc::clone(&certificates[0]);
        map = map.with_default(Some(Arc::new(CertificateSet::single(first))));
    }
    let server = GlobalCertificate::new(Metrics::new().expect("metrics"), Challenges::default())
        .expect("a server");
    server.publish(Snapshot {
        certificates: Arc::new(map),
        unknown_sni,
        attachment: Some(Arc::new("first state")),
        policies: Arc::default(),
    });
    server
}

/// What a client saw, and what the server knows of it.
struct Connected {
    names: Vec<String>,
    version: String,
    group: String,
    cipher: String,
    resumed: bool,
    alpn: Option<Vec<u8>>,
    /// The last of those that the server gave.
    session: Option<SslSession>,
    sessions: usize,
    info: Arc<TlsInfo>,
}

struct Client {
    context: SslContextBuilder,
    server_name: Option<&'static str>,
    resume: Option<SslSession>,
}

impl Client {
    fn new(server_name: Option<&'static str>) -> Self {
        let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
        context
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        Self {
            context,
            server_name,
            resume: None,
        }
    }

    fn only(mut self, version: SslVersion) -> Self {
        self.context
            .set_min_proto_version(Some(version))
            .expect("set");
        self.context
            .set_max_proto_version(Some(version))
            .expect("set");
        self
    }

    fn offering(mut self, protocols: &[u8]) -> Self {
        self.context.set_alpn_protos(protocols).expect("set");
        self
    }

    fn resuming(mut self, session: &Connected) -> Self {
        self.resume = session.session.clone();
        assert!(self.resume.is_some(), "the server gave a ticket");
        self
    }

    async fn connect(self, server: &GlobalCertificate) -> Result<Connected, String> {
        self.connect_with(server, &settings()).await
    }

    async fn connect_with(
        self,
        server: &GlobalCertificate,
        settings: &Tls,
    ) -> Result<Connected, String> {
        let acceptor = server.acceptor(settings, None).expect("an acceptor");
        self.connect_through(server, &acceptor).await
    }

    /// The client's end, and the tickets that it gets.
    fn into_ssl(mut self) -> (Ssl, Arc<StdMutex<Vec<SslSession>>>) {
        let tickets = Arc::new(StdMutex::new(Vec::new()));
        self.context.set_new_session_callback({
            let tickets = Arc::clone(&tickets);
            move |_, session| tickets.lock().expect("not poisoned").push(session)
        });
        let context = self.context.build();
        let mut ssl = Ssl::new(&context).expect("a client");
        if let Some(name) = self.server_name {
            ssl.set_hostname(name).expect("set");
        }
        if let Some(session) = &self.resume {
            // SAFETY: the session comes from a context of the same kind.
            unsafe { ssl.set_session(session) }.expect("set");
        }
        (ssl, tickets)
    }

    async fn connect_through(
        self,
        server: &GlobalCertificate,
        acceptor: &SslAcceptor,
    ) -> Result<Connected, String> {
        let (ssl, tickets) = self.into_ssl();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (client, served) = tokio::join!(talk(ssl, near), serve(acceptor, far, server));
        let stream = client?;
        let info = served?;
        let ssl = stream.ssl();
        let names = ssl
            .peer_certificate()
            .and_then(|leaf| leaf.subject_alt_names())
            .map(|names| {
                names
                    .iter()
                    .filter_map(|name| name.dnsname().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        let mut tickets = tickets.lock().expect("not poisoned");
        Ok(Connected {
            names,
            version: ssl.version_str().to_owned(),
            group: ffi::group_name(ssl).to_owned(),
            cipher: ssl.current_cipher().expect("a cipher").name().to_owned(),
            resumed: ssl.session_reused(),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
            sessions: tickets.len(),
            session: tickets.pop(),
            info,
        })
    }
}

/// The client's side: handshake, then one octet, before which all tickets come.
async fn talk(ssl: Ssl, io: DuplexStream) -> Result<SslStream<DuplexStream>, String> {
    let mut stream = SslStream::new(ssl, io).expect("a stream");
    Pin::new(&mut stream)
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let mut octet = [0];
    stream
        .read_exact(&mut octet)
        .await
        .map_err(|error| error.to_string())?;
    // OpenSSL resumes no TLS 1.2 session whose connection was not closed in order. The server may
    // have gone by now.
    let _ = stream.shutdown().await;
    Ok(stream)
}

async fn serve(
    acceptor: &SslAcceptor,
    io: DuplexStream,
    server: &GlobalCertificate,
) -> Result<Arc<TlsInfo>, String> {
    let mut stream = handshake_with_callback(acceptor, io, server)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(b"!")
        .await
        .map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let digest = stream.ssl_digest().expect("a digest");
    let info = digest
        .extension
        .get::<TlsInfo>()
        .expect("the handshake's info");
    let name = info.server_name.clone();
    Ok(Arc::new(TlsInfo {
        attachment: Mutex::new(info.take_attachment().as_ref().map(Arc::downgrade)),
        since: info.since,
        ..TlsInfo::new(name, info.certificates.clone(), info.fell_back)
    }))
}

/// What the first request would get, which may still come.
fn attachment_of(info: &TlsInfo) -> Option<Arc<dyn Any + Send + Sync>> {
    let again = TlsInfo {
        attachment: Mutex::new(info.attachment.lock_unpoisoned().clone()),
        ..TlsInfo::new(None, None, false)
    };
    let since = info.since;
    TlsInfo { since, ..again }.take_attachment()
}

const SITES: &[&[&str]] = &[&["a.test"], &["b.test"], &["*.wild.test"]];

#[tokio::test]
async fn the_certificate_follows_the_name() {
    let server = server(SITES, false, UnknownSni::Default);
    for (asked, presented) in [
        ("a.test", "a.test"),
        ("B.TEST", "b.test"),
        ("x.wild.test", "*.wild.test"),
    ] {
        let seen = Client::new(Some(asked))
            .connect(&server)
            .await
            .expect(asked);
        assert_eq!(seen.names, [presented], "{asked}");
        let info = seen.info;
        assert_eq!(
            info.server_name.as_ref().map(HostName::as_str),
            Some(&*asked.to_lowercase())
        );
        assert!(!info.fell_back);
    }
}

/// As `TlsSettings::with_callbacks` has it.
#[tokio::test]
async fn settings_of_another_program_present_certificates_and_resume_nothing() {
    let server = server(SITES, false, UnknownSni::Reject);
    let acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a context");
    let acceptor = acceptor.build();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let client = Client::new(Some("b.test")).only(version);
        let seen = client.connect_through(&server, &acceptor).await;
        let seen = seen.expect("a certificate");
        assert_eq!((seen.names, seen.sessions), (vec!["b.test".to_owned()], 0));
        let name = seen.info.server_name.as_ref().map(HostName::as_str);
        assert_eq!(name, Some("b.test"));
        let unknown = Client::new(Some("unknown.test")).only(version);
        assert!(unknown.connect_through(&server, &acceptor).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_a_program_drives_itself_get_certificates() {
    let server = server(SITES, false, UnknownSni::Reject);
    let runtime = tokio::runtime::Handle::current();
    let acceptor = server.blocking_acceptor(&settings(), &["http/1.1"], runtime);
    let acceptor = acceptor.expect("an acceptor");
    let connect = async |client: Client| {
        let (ssl, tickets) = client.into_ssl();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let served = Ssl::new(acceptor.context()).expect("a server");
        let mut served = SslStream::new(served, far).expect("a stream");
        let serving = async {
            Pin::new(&mut served)
                .accept()
                .await
                .map_err(|error| error.to_string())?;
            served.write_all(b"!").await.expect("the client reads");
            served.flush().await.expect("the client reads");
            Ok::<_, String>(())
        };
        let (client, served) = tokio::join!(talk(ssl, near), serving);
        let ssl = client.and_then(|stream| served.map(|()| stream))?;
        let ssl = ssl.ssl();
        let names = ssl
            .peer_certificate()
            .and_then(|leaf| leaf.subject_alt_names());
        let name = names.and_then(|names| names[0].dnsname().map(str::to_owned));
        let alpn = ssl.selected_alpn_protocol().map(<[u8]>::to_vec);
        let session = tickets.lock().expect("not poisoned").pop();
        Ok::<_, String>((name, alpn, ssl.session_reused(), session))
    };
    let offer = || Client::new(Some("a.test")).offering(b"\x02h2\x08http/1.1");
    let (name, alpn, resumed, session) = connect(offer()).await.expect("a certificate");
    assert_eq!(name.as_deref(), Some("a.test"));
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert!(!resumed);
    let again = Client {
        resume: session,
        ..offer()
    };
    assert!(
        connect(again).await.expect("a certificate").2,
        "it is resumed"
    );
    // The server asks for another key share first: the ClientHello comes twice.
    let mut retried = offer();
    retried.context.set_groups_list("P-384:P-256").expect("set");
    let (name, ..) = connect(retried).await.expect("a certificate");
    assert_eq!(name.as_deref(), Some("a.test"));
    let only_h2 = Client::new(Some("a.test")).offering(b"\x02h2");
    assert!(connect(only_h2).await.is_err(), "it speaks something else");
    let unknown = connect(Client::new(Some("unknown.test"))).await;
    let refused = unknown.err().expect("no certificate");
    assert!(refused.contains(ALERT_UNRECOGNIZED_NAME), "{refused}");
}

#[tokio::test]
async fn unknown_names_are_refused_or_fall_back() {
    let none = server(SITES, false, UnknownSni::Default);
    let falls_back = server(SITES, true, UnknownSni::Default);
    let rejects = server(SITES, true, UnknownSni::Reject);
    let invalid = "a..test";
    for asked in ["unknown.test", "wild.test", "x.y.wild.test", invalid] {
        let client = || Client::new(Some(asked));
        for refusing in [&none, &rejects] {
            let error = client().connect(refusing).await.err().expect("refused");
            assert!(error.contains(ALERT_UNRECOGNIZED_NAME), "{asked}: {error}");
        }
        let seen = client().connect(&falls_back).await.expect("the default");
        assert_eq!(seen.names, ["a.test"], "{asked}");
        assert!(seen.info.fell_back);
    }
}

#[tokio::test]
async fn no_name_gets_the_default_even_where_unknown_names_are_refused() {
    let rejects = server(SITES, true, UnknownSni::Reject);
    for asked in [None, Some("127.0.0.1")] {
        let seen = Client::new(asked)
            .connect(&rejects)
            .await
            .expect("the default");
        assert_eq!(seen.names, ["a.test"]);
        assert!(!seen.info.fell_back);
        assert!(seen.info.server_name.is_none());
    }
    let none = server(SITES, false, UnknownSni::Default);
    let error = Client::new(None)
        .connect(&none)
        .await
        .err()
        .expect("refused");
    assert!(error.contains(ALERT_UNRECOGNIZED_NAME), "{error}");
}

#[tokio::test]
async fn sessions_resume_under_their_own_name_alone() {
    let server = server(SITES, true, UnknownSni::Default);
    let used = || {
        let used = server.snapshot().certificates.take_used();
        used.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let connect = |name| Client::new(name).only(version);
        used();
        let first = connect(Some("a.test"))
            .connect(&server)
            .await
            .expect("full");
        assert!(!first.resumed);
        assert_eq!(used(), ["a.test"]);
        let again = connect(Some("a.test"))
            .resuming(&first)
            .connect(&server)
            .await;
        let again = again.expect("resumed");
        assert!(again.resumed, "{version:?}");
        if version == SslVersion::TLS1_3 {
            assert_eq!(
                (first.sessions, again.sessions),
                (1, 1),
                "a ticket used up has a successor"
            );
        }
        assert_eq!(used(), ["a.test"], "{version:?}");
        assert!(used().is_empty());
        let info = &again.info;
        assert!(
            info.certificates
                .as_ref()
                .is_some_and(|set| set.covers("a.test"))
        );

        for other in [Some("b.test"), Some("unknown.test"), None] {
            let seen = connect(other).resuming(&first).connect(&server).await;
            let seen = seen.expect("a full handshake");
            assert!(!seen.resumed, "{version:?} {other:?}");
            assert_eq!(seen.info.server_name.as_ref().map(HostName::as_str), other);
        }
    }
}

#[tokio::test]
async fn no_ticket_outlives_the_certificate_of_its_name() {
    let server = server(SITES, false, UnknownSni::Default);
    let first = Client::new(Some("a.test"))
        .connect(&server)
        .await
        .expect("full");
    server.publish(Snapshot {
        certificates: Arc::new(SniMap::of(&[certificate(&["b.test"])], NOW)),
        unknown_sni: UnknownSni::Default,
        attachment: None,
        policies: Arc::default(),
    });
    let refused = Client::new(Some("a.test"))
        .resuming(&first)
        .connect(&server)
        .await;
    assert!(
        refused
            .err()
            .expect("gone")
            .contains(ALERT_UNRECOGNIZED_NAME)
    );
}

#[tokio::test]
async fn a_connection_carries_the_state_of_its_handshake_to_its_first_request() {
    let server = server(SITES, false, UnknownSni::Default);
    let seen = Client::new(Some("a.test"))
        .connect(&server)
        .await
        .expect("full");
    let attachment = seen.info.take_attachment().expect("for the first request");
    assert_eq!(attachment.downcast_ref(), Some(&"first state"));
    assert!(seen.info.take_attachment().is_none(), "and for it alone");
}

#[tokio::test]
async fn a_long_connection_keeps_no_replaced_state() {
    let server = server(SITES, false, UnknownSni::Default);
    let state = Arc::downgrade(&server.snapshot());
    let acceptor = server.acceptor(&settings(), None).expect("an acceptor");
    let context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    let mut ssl = Ssl::new(&context.build()).expect("a client");
    ssl.set_hostname("a.test").expect("set");
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut client = SslStream::new(ssl, near).expect("a stream");
    let (connected, accepted) = tokio::join!(
        async { Pin::new(&mut client).connect().await },
        handshake_with_callback(&acceptor, far, &server)
    );
    connected.expect("a handshake");
    let _open = accepted.expect("a handshake");
    server.publish(Snapshot {
        certificates: Arc::default(),
        unknown_sni: UnknownSni::Default,
        attachment: None,
        policies: Arc::default(),
    });
    assert!(state.upgrade().is_none());
}

#[tokio::test]
async fn a_connection_without_a_request_holds_no_replaced_attachment() {
    let server = server(SITES, false, UnknownSni::Default);
    let snapshot = server.snapshot();
    let attachment = Arc::downgrade(snapshot.attachment.as_ref().expect("one"));
    drop(snapshot);
    let seen = Client::new(Some("a.test"))
        .connect(&server)
        .await
        .expect("full");
    server.publish(Snapshot {
        certificates: Arc::default(),
        unknown_sni: UnknownSni::Default,
        attachment: None,
        policies: Arc::default(),
    });
    assert!(
        attachment_of(&seen.info).is_some(),
        "its first request may come"
    );
    tokio::time::pause();
    tokio::time::sleep(info::FIRST_REQUEST * 2).await;
    tokio::time::resume();
    for _ in 0..500 {
        if attachment.strong_count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(attachment.strong_count(), 0);
    assert!(attachment_of(&seen.info).is_none());
}

#[tokio::test]
async fn only_current_versions_and_protocols_are_spoken() {
    let server = server(SITES, false, UnknownSni::Default);
    let name = Some("a.test");
    let seen = Client::new(name).connect(&server).await.expect("TLS 1.3");
    assert_eq!(
        (&*seen.version, &*seen.group),
        ("TLSv1.3", "X25519MLKEM768")
    );
    assert_eq!(seen.alpn, None);

    for (offered, chosen) in [
        (&b"\x08http/1.1\x02h2"[..], &b"h2"[..]),
        (b"\x08http/1.1", b"http/1.1"),
    ] {
        let seen = Client::new(name).offering(offered).connect(&server).await;
        assert_eq!(seen.expect("common").alpn.as_deref(), Some(chosen));
    }
    for offered in [&b"\x03foo"[..], b"\x0aacme-tls/1"] {
        let refused = Client::new(name).offering(offered).connect(&server).await;
        let error = refused.err().expect("nothing in common");
        assert!(error.contains("no application protocol"), "{error}");
    }

    let modern = Tls {
        versions: TlsVersion::Tls13..=TlsVersion::Tls13,
        ..settings()
    };
    let old = Client::new(name).only(SslVersion::TLS1_2);
    assert!(old.connect_with(&server, &modern).await.is_err());
}

#[tokio::test]
async fn aes_128_is_chosen_unless_the_client_has_no_instructions_for_aes() {
    const AES: &str = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
    const CHACHA: &str = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
    let server = server(SITES, false, UnknownSni::Default);
    for (offered, chosen) in [
        (AES, "TLS_AES_128_GCM_SHA256"),
        (CHACHA, "TLS_CHACHA20_POLY1305_SHA256"),
        ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    ] {
        let mut client = Client::new(Some("a.test"));
        client.context.set_ciphersuites(offered).expect("known");
        let seen = client.connect(&server).await.expect("a common one");
        assert_eq!(seen.cipher, chosen);
    }
}

#[tokio::test]
async fn without_tickets_nothing_is_resumed() {
    let server = server(SITES, false, UnknownSni::Default);
    let off = Tls {
        session_tickets: SessionTickets::Off,
        ..settings()
    };
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let client = Client::new(Some("a.test")).only(version);
        let seen = client.connect_with(&server, &off).await.expect("full");
        let Some(session) = seen.session else {
            continue;
        };
        let client = Client {
            resume: Some(session),
            ..Client::new(Some("a.test")).only(version)
        };
        let again = client.connect_with(&server, &off).await.expect("full");
        assert!(!again.resumed, "{version:?}");
    }
}

#[test]
fn sessions_are_bound_to_name_and_policy() {
    let a: HostName = "a.test".parse().expect("valid");
    let b: HostName = "b.test".parse().expect("valid");
    let of = |policy: &[u8], name| session_context(policy, None, (name, None), Purpose::Serve);
    assert_eq!(of(b"1", Some(&a)), of(b"1", Some(&a)));
    assert_ne!(of(b"1", Some(&a)), of(b"1", Some(&b)));
    assert_ne!(of(b"1", Some(&a)), of(b"1", None));
    assert_ne!(of(b"1", Some(&a)), of(b"2", Some(&a)));
    for other in [Purpose::FallBack, Purpose::Validate] {
        assert_ne!(
            session_context(b"1", None, (Some(&a), None), other),
            of(b"1", Some(&a))
        );
    }
    let at = |mark, name| session_context(b"1", None, (name, Some(mark)), Purpose::Serve);
    assert_eq!(at("127.0.0.1:1", Some(&a)), at("127.0.0.1:1", Some(&a)));
    assert_ne!(at("127.0.0.1:1", Some(&a)), at("127.0.0.1:2", Some(&a)));
    assert_ne!(at("127.0.0.1:1", Some(&a)), of(b"1", Some(&a)));
    assert_ne!(at("127.0.0.1:1", None), of(b"1", None));
    let own = |version| TlsPolicy::new(None, Some(version..=version), None, None);
    let name = (Some(&a), None);
    let of = |own: Option<TlsPolicy>| session_context(b"1", own.as_ref(), name, Purpose::Serve);
    let (old, new) = (own(TlsVersion::Tls12), own(TlsVersion::Tls13));
    assert_eq!(of(new.clone()), of(new.clone()));
    assert_ne!(of(new.clone()), of(old));
    assert_ne!(of(new), of(None));
}
