//! What trusts the system's roots, for upstreams that name no roots of their own.
//!
//! The file of the roots is read when a server first needs it, and again once it has changed. If it
//! cannot be read, the roots that are known stay in use; if none are, the next connection tries
//! again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslContext, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use pingora_core::{Error, ErrorType, Result};

use crate::printable::Printable as _;
use crate::stamp::Stamp;
use crate::throttle::Throttle;

/// The system's roots. Clones share them.
#[derive(Clone, Default)]
pub(super) struct SystemRoots(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: ArcSwapOption<Known>,
    failures: Throttle,
}

/// Roots that have been read.
struct Known {
    path: PathBuf,
    /// That of the file before it was read.
    stamp: Option<Stamp>,
    context: SslContext,
}

impl SystemRoots {
    /// What trusts the roots.
    ///
    /// # Errors
    /// If they cannot be read and have never been.
    pub(super) fn context(&self) -> Result<SslContext> {
        match &*self.0.known.load() {
            Some(known) => self.context_of(&known.path),
            None => self.context_of(&find_file()),
        }
    }

    fn context_of(&self, path: &Path) -> Result<SslContext> {
        let stamp = Stamp::of(path);
        let known = self.0.known.load_full();
        if let Some(known) = &known
            && known.stamp == stamp
        {
            return Ok(known.context.clone());
        }
        let error = match read(path) {
            Ok(context) => {
                let path = path.to_owned();
                self.0.known.store(Some(Arc::new(Known {
                    path,
                    stamp,
                    context: context.clone(),
                })));
                return Ok(context);
            }
            Err(error) => error,
        };
        if let Some(suppressed) = self.0.failures.admit() {
            tracing::error!(
                file = %path.printable(),
                %error,
                suppressed,
                keeps_known = known.is_some(),
                "the system's roots cannot be read: without them, no server with TLS is trusted \
                 unless its upstream has a 'ca_file'; install the package ca-certificates",
            );
        }
        match known {
            Some(known) => Ok(known.context.clone()),
            None => {
                let why = "the system's roots cannot be read";
                Err(Error::because(ErrorType::InvalidCert, why, error))
            }
        }
    }
}

/// The file of the system's roots.
fn find_file() -> PathBuf {
    let found = openssl_probe::probe().cert_file;
    // The usual place, for the message that it is missing.
    found.unwrap_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"))
}

fn read(path: &Path) -> io::Result<SslContext> {
    let roots = X509::stack_from_pem(&fs::read(path)?)?;
    if roots.is_empty() {
        let why = "the file has no certificates";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(context(Some(store(roots)?))?)
}

/// TLS 1.2 or newer, with these roots.
pub(super) fn context(roots: Option<X509Store>) -> Result<SslContext, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(roots) = roots {
        builder.set_cert_store(roots);
    }
    Ok(builder.build().into_context())
}

pub(super) fn store(roots: Vec<X509>) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for root in roots {
        store.add_cert(root)?;
    }
    Ok(store.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many certificates, in PEM.
    fn certificates(count: usize) -> String {
        let made = (0..count).map(|number| {
            let name = format!("{number}.test");
            let made = rcgen::generate_simple_self_signed(vec![name]);
            made.expect("a certificate").cert.pem()
        });
        made.collect()
    }

    fn count_roots(context: &SslContext) -> usize {
        context.cert_store().all_certificates().len()
    }

    #[test]
    fn roots_that_could_not_be_read_are_read_as_soon_as_they_can_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("roots.pem");
        let roots = SystemRoots::default();
        let error = roots.context_of(&path).expect_err("no file");
        let cause = error.root_cause().downcast_ref::<io::Error>();
        let kind = cause.map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::NotFound));
        fs::write(&path, "no certificates").expect("written");
        assert!(roots.context_of(&path).is_err());
        fs::write(&path, certificates(2)).expect("written");
        let context = roots.context_of(&path).expect("roots");
        assert_eq!(count_roots(&context), 2);
    }

    #[test]
    fn roots_are_read_again_when_their_file_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("roots.pem");
        let roots = SystemRoots::default();
        let count = || count_roots(&roots.context_of(&path).expect("roots"));
        fs::write(&path, certificates(1)).expect("written");
        assert_eq!(count(), 1);
        fs::write(&path, certificates(3)).expect("written");
        assert_eq!(count(), 3);
        for damage in ["", "no certificates"] {
            fs::write(&path, damage).expect("written");
            assert_eq!(count(), 3, "{damage:?}");
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(count(), 3);
        fs::write(&path, certificates(2)).expect("written");
        assert_eq!(count(), 2);
    }
}
