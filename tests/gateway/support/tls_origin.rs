//! An upstream with TLS, by OpenSSL, that tells its clients apart.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::nid::Nid;
use openssl::ssl::{
    NameType, Ssl, SslAcceptor, SslContext, SslMethod, SslRef, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::certs::{Ca, Pair};
use super::http1::read_head;

/// Runs until dropped. Answers every request with the common name of the client's certificate, or
/// `nobody`.
pub struct TlsOrigin {
    address: SocketAddr,
    names: Arc<Mutex<Vec<Option<String>>>>,
    stop: Arc<AtomicBool>,
}

impl TlsOrigin {
    /// One with this certificate.
    pub fn start(pair: &Pair) -> Self {
        Self::listen(pair, None, SslVersion::TLS1_3)
    }

    /// One that requires certificates of this CA from its clients, over this version of TLS.
    pub fn demanding(pair: &Pair, clients: &Ca, version: SslVersion) -> Self {
        Self::listen(pair, Some(clients), version)
    }

    fn listen(pair: &Pair, clients: Option<&Ca>, version: SslVersion) -> Self {
        let context = Arc::new(context(pair, clients, version));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (names, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (asked, stopped) = (Arc::clone(&names), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (context, asked) = (Arc::clone(&context), Arc::clone(&asked));
                thread::spawn(move || serve(stream, &context, &asked));
            }
        });
        Self {
            address,
            names,
            stop,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name in the ClientHello of each connection that was accepted.
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().expect("not poisoned").clone()
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn context(pair: &Pair, clients: Option<&Ca>, version: SslVersion) -> SslContext {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let mut chain = X509::stack_from_pem(pair.chain.as_bytes())
        .unwrap()
        .into_iter();
    builder.set_certificate(&chain.next().unwrap()).unwrap();
    for certificate in chain {
        builder.add_extra_chain_cert(certificate).unwrap();
    }
    let key = openssl::pkey::PKey::private_key_from_pem(pair.key.as_bytes()).unwrap();
    builder.set_private_key(&key).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    if let Some(ca) = clients {
        let mut roots = X509StoreBuilder::new().unwrap();
        roots.add_cert(ca.certificate().clone()).unwrap();
        builder.set_cert_store(roots.build());
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.build().into_context()
}

fn serve(stream: TcpStream, context: &SslContext, names: &Mutex<Vec<Option<String>>>) {
    let ssl = Ssl::new(context).unwrap();
    let Ok(mut stream) = ssl.accept(stream) else {
        return;
    };
    let name = stream.ssl().servername(NameType::HOST_NAME);
    names
        .lock()
        .expect("not poisoned")
        .push(name.map(str::to_owned));
    let body = client_name(stream.ssl());
    while read_head(&mut stream).is_ok() {
        let length = body.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        if stream.write_all(response.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.shutdown();
    let _ = stream.get_mut().read(&mut [0; 1]);
}

fn client_name(ssl: &SslRef) -> String {
    let certificate = ssl.peer_certificate();
    let name = certificate.as_ref().and_then(|certificate| {
        let mut entries = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
        let name = entries.next()?.data().as_slice().to_vec();
        String::from_utf8(name).ok()
    });
    name.unwrap_or_else(|| "nobody".to_owned())
}
