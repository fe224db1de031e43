//! A target for fuzzing: the ClientHello that a connection begins with.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use openssl::ssl::{ClientHelloResponse, Ssl, SslAcceptor, SslMethod};

use super::super::ffi;
use super::{ClientHello, ClientHelloEnd, ClientHelloReader, LONGEST_HELLO};
use crate::lock::MutexExt as _;

/// What a hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Incomplete,
    Name(Option<Vec<u8>>),
    Malformed,
}

impl Said {
    fn of(hello: ClientHello<'_>) -> Self {
        match hello {
            ClientHello::Incomplete => Self::Incomplete,
            ClientHello::Name(name) => Self::Name(Some(name.to_vec())),
            ClientHello::Nameless => Self::Name(None),
            ClientHello::Malformed => Self::Malformed,
        }
    }
}

/// The first octets of a TLS connection.
///
/// # Panics
/// If the name or the end depends on how the octets arrive, or if OpenSSL finds another name.
pub(crate) fn client_hello(octets: &[u8]) {
    let octets = octets.get(..LONGEST_HELLO - 1).unwrap_or(octets);
    let whole = Said::of(ClientHelloReader::default().read(octets));
    let is_awaited = ClientHelloEnd::default().is_awaited(octets);
    assert_eq!(is_awaited, whole == Said::Incomplete);
    let (mut reader, mut hello_end) = (ClientHelloReader::default(), ClientHelloEnd::default());
    for end in 0..octets.len() {
        let arrived = octets.get(..end).unwrap_or_default();
        let said = Said::of(reader.read(arrived));
        let is_awaited = hello_end.is_awaited(arrived);
        assert_eq!(is_awaited, said == Said::Incomplete, "after {end} octets");
        if said != Said::Incomplete {
            assert_eq!(said, whole, "after {end} octets");
            break;
        }
    }
    let Said::Name(name) = &whole else {
        return;
    };
    if let Some(found) = name_for_openssl(octets) {
        assert_eq!(found, *name);
    }
}

/// The name that OpenSSL finds; `None` if it refuses the hello.
fn name_for_openssl(octets: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).ok()?;
    let found = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&found);
    builder.set_client_hello_callback(move |ssl, _| {
        let name = ffi::client_hello_server_name(ssl);
        *seen.lock_unpoisoned() = Some(name.map(<[u8]>::to_vec));
        Ok(ClientHelloResponse::SUCCESS)
    });
    let acceptor = builder.build();
    let ssl = Ssl::new(acceptor.context()).ok()?;
    let stream = Octets(octets);
    // It fails for want of a certificate, if not before.
    _ = ssl.accept(stream);
    found.lock_unpoisoned().take()
}

/// A client that sends some octets and hears nothing.
#[derive(Debug)]
struct Octets<'a>(&'a [u8]);

impl Read for Octets<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Octets<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
