//! Makes certificates from PEM, fully checked.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslMethod};
use openssl::x509::{X509, X509KeyUsage, X509Ref};

use arc_swap::ArcSwapOption;

use super::chain::{self, Chain, ChainRef, Given, Intermediates};
use super::der::Der;
use super::error::{CertificateError, CertificateWarning};
use super::material::{AtRest, Material};
use super::pem::{self, Contents, Key};
use super::roots::Roots;
use super::status::{CertStatus, SourcesPool, StatusSources};
use super::{Fingerprint, Flaws, Source, TlsCertificate, parse};
use crate::clock::{Clock, SystemClock, UnixTime};

/// Makes [`TlsCertificate`]s; those of one loader share their intermediates.
pub struct Loader {
    pub(super) intermediates: Intermediates,
    /// What certificates say of their status.
    pub(super) sources: SourcesPool,
    /// For checking whether OpenSSL accepts a certificate.
    trial: SslContext,
    /// Decides which of several issuers are valid.
    clock: Arc<dyn Clock>,
}

/// A certificate that can be served, with its warnings.
#[derive(Debug)]
pub struct Loaded {
    pub certificate: TlsCertificate,
    pub warnings: Vec<CertificateWarning>,
}

impl Loader {
    /// A loader with the bundled intermediates and the machine's clock.
    ///
    /// # Errors
    /// If OpenSSL cannot create a context, for lack of memory.
    pub fn new() -> Result<Self, ErrorStack> {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// The same with another clock.
    ///
    /// # Errors
    /// If OpenSSL cannot create a context, for lack of memory.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Result<Self, ErrorStack> {
        Ok(Self {
            intermediates: Intermediates::bundled()?,
            sources: SourcesPool::default(),
            trial: SslContext::builder(SslMethod::tls_server())?.build(),
            clock,
        })
    }

    /// Makes a certificate from one PEM file that holds chain and key, in any order.
    ///
    /// # Errors
    /// If it cannot be served as it is.
    pub fn load(&self, pem: &[u8], source: Source) -> Result<Loaded, CertificateError> {
        self.build(self.read(pem)?, source)
    }

    /// Makes a certificate from the PEM of its chain, in any order, and of its key.
    ///
    /// # Errors
    /// If they cannot be served as they are, with the file that is at fault.
    pub fn load_pair(
        &self,
        chain: &[u8],
        key: &[u8],
        source: Source,
    ) -> Result<Loaded, (File, CertificateError)> {
        let mut contents = self.read(chain).map_err(|error| (File::Chain, error))?;
        let key_file = self.read(key).map_err(|error| (File::Key, error))?;
        if contents.certificates.is_empty() {
            let found = if contents.keys.is_empty() {
                contents.other
            } else {
                Some(private_key())
            };
            return Err((File::Chain, CertificateError::NoCertificate { found }));
        }
        if key_file.keys.is_empty() {
            let found = if key_file.certificates.is_empty() {
                key_file.other
            } else {
                Some("certificate".to_owned())
            };
            return Err((File::Key, CertificateError::NoKey { found }));
        }
        contents.keys.extend(key_file.keys);
        self.build(contents, source).map_err(|error| {
            let file = match error {
                CertificateError::KeyMismatch { .. }
                | CertificateError::SeveralKeys(_)
                | CertificateError::UnsupportedKey { .. } => File::Key,
                _ => File::Chain,
            };
            (file, error)
        })
    }

    /// Makes a certificate from one that is signed with its own `key`. It is not checked and has no
    /// chain: whoever made it in this process knows that the two belong together.
    ///
    /// # Errors
    /// If its names or dates cannot be read.
    pub fn self_signed(
        leaf: X509,
        key: PKey<Private>,
        source: Source,
    ) -> Result<TlsCertificate, CertificateError> {
        let names = parse::names(&leaf, &mut Vec::new())?;
        Ok(TlsCertificate {
            kind: parse::key_kind(&key)?,
            not_before: parse::unix_time(leaf.not_before()).map_err(refused)?,
            not_after: parse::unix_time(leaf.not_after()).map_err(refused)?,
            fingerprint: parse::fingerprint(&leaf).map_err(refused)?,
            at_rest: AtRest::Memory(Der::encode(&leaf, &key).map_err(refused)?),
            parsed: ArcSwapOption::empty(),
            chain: ChainRef::default(),
            flaws: Flaws::default(),
            names,
            source,
            status: None,
        })
    }

    /// Adds the certificates of a PEM file without a key as known intermediates.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else.
    pub fn add_intermediate(&self, pem: &[u8]) -> Result<(), CertificateError> {
        let contents = Contents::read(pem)?;
        if contents.certificates.is_empty() {
            return Err(CertificateError::NoCertificate {
                found: contents.other,
            });
        }
        contents
            .certificates
            .into_iter()
            .try_for_each(|certificate| self.intermediates.add(certificate).map_err(refused))
    }

    /// Returns true if `pem` holds certificates of CAs and no key.
    pub fn is_bundle(pem: &[u8]) -> bool {
        // Of a great many files almost all have one, and searching is much cheaper than parsing.
        if pem::has_key(pem) {
            return false;
        }
        Contents::read(pem).is_ok_and(|contents| {
            contents.keys.is_empty()
                && !contents.certificates.is_empty()
                && contents.certificates.iter().all(is_issuing)
        })
    }

    /// Grows when a new intermediate becomes known.
    pub fn generation(&self) -> u64 {
        self.intermediates.generation()
    }

    /// `certificate` with a better chain, if one has become known: its own is incomplete, or has an
    /// expired certificate.
    pub fn complete_chain(&self, certificate: &TlsCertificate) -> Option<TlsCertificate> {
        let now = self.clock.now();
        let before = certificate.chain.not_after();
        let has_ended = before.is_some_and(|end| end < now);
        if !certificate.flaws.is_incomplete() && !has_ended {
            return None;
        }
        let material = certificate.material().ok()?;
        let given = certificate.chain.iter().map(|one| X509::clone(one));
        let given = Given::InFile(given.collect());
        let chain = self.build_chain(material.leaf(), given, now).ok()?;
        let flaws = judge(material.leaf(), &chain, false);
        drop(ErrorStack::get());
        if flaws.is_incomplete() || has_ended && chain.certificates.not_after() <= before {
            return None;
        }
        Some(TlsCertificate {
            at_rest: certificate.at_rest.clone(),
            parsed: ArcSwapOption::empty(),
            chain: chain.certificates,
            flaws,
            names: certificate.names.clone(),
            source: certificate.source.clone(),
            status: certificate.status.clone(),
            ..*certificate
        })
    }

    /// Reads PEM; known intermediates are not parsed again.
    fn read(&self, pem: &[u8]) -> Result<Contents, CertificateError> {
        Contents::read_with(pem, &|der| self.intermediates.parse(der))
    }

    fn build(&self, contents: Contents, source: Source) -> Result<Loaded, CertificateError> {
        let Key { key, der: key_der } = only_key(
            contents.keys,
            contents.certificates.is_empty(),
            &contents.other,
        )?;
        if contents.certificates.is_empty() {
            return Err(CertificateError::NoCertificate {
                found: Some(private_key()),
            });
        }
        let kind = parse::key_kind(&key)?;
        let (leaf, others) = chain::split_leaf(contents.certificates, |certificate| {
            certificate
                .public_key()
                .is_ok_and(|public| public.public_eq(&key))
        })?;
        let mut warnings = Vec::new();
        let names = parse::names(&leaf, &mut warnings)?;
        let is_of_ca = matches!(source, Source::Issuer(_));
        let given = match is_of_ca {
            true => Given::ByCa(others),
            false => Given::InFile(others),
        };
        let chain = self.build_chain(&leaf, given, self.clock.now());
        let chain = chain.map_err(refused)?;
        let subject = |one: &X509| parse::name_text(one.subject_name());
        warnings.extend(chain.superseded.iter().map(|one| {
            let end = parse::unix_time(one.not_after()).unwrap_or_default();
            CertificateWarning::Superseded {
                subject: subject(one),
                end: end.to_string(),
            }
        }));
        let unrelated = chain.unrelated.iter().map(subject);
        warnings.extend(unrelated.map(|subject| CertificateWarning::Unrelated { subject }));
        let flaws = judge(&leaf, &chain, is_of_ca);
        warnings.extend(flaws.warnings(&leaf, &chain.certificates));
        let leaf_der = leaf.to_der().map_err(refused)?;
        let status = StatusSources::of(&leaf).map(|sources| self.sources.share(sources));
        if status.as_ref().is_some_and(|said| said.cannot_be_stapled()) {
            warnings.push(CertificateWarning::NoResponder);
        }
        let certificate = TlsCertificate {
            not_before: parse::unix_time(leaf.not_before()).map_err(refused)?,
            not_after: parse::unix_time(leaf.not_after()).map_err(refused)?,
            fingerprint: Fingerprint(openssl::sha::sha256(&leaf_der)),
            at_rest: AtRest::Memory(Der::new(&leaf_der, &key_der)),
            parsed: ArcSwapOption::empty(),
            chain: chain.certificates,
            flaws,
            names,
            kind,
            source,
            status: status.map(CertStatus::new),
        };
        let chain = ChainRef::clone(&certificate.chain);
        self.check_with_openssl(&Material::new(leaf, key, chain, 0))
            .map_err(refused)?;
        for intermediate in certificate.chain.iter() {
            self.intermediates.remember_issuer(intermediate);
        }
        // A handshake on this thread, which may be issuing on demand, would take the errors of
        // failed checks as its own failure.
        drop(ErrorStack::get());
        Ok(Loaded {
            certificate,
            warnings,
        })
    }

    /// The best chain of `leaf`. A root of this machine that has issued it itself is known too.
    fn build_chain(
        &self,
        leaf: &X509Ref,
        given: Given,
        now: UnixTime,
    ) -> Result<Chain, ErrorStack> {
        let mut chain = self.intermediates.build(leaf, given, now)?;
        if chain.incomplete
            && let Some(root) = Roots::of_machine().issuer_of(leaf)
        {
            chain.certificates = self.intermediates.share_root(root)?;
        }
        Ok(chain)
    }

    fn check_with_openssl(&self, material: &Material) -> Result<(), ErrorStack> {
        let mut ssl = Ssl::new(&self.trial)?;
        material.apply(&mut ssl)
    }
}

/// Which of the two files of a pair is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Chain,
    Key,
}

/// The only key among `keys`, which may contain it several times.
fn only_key(
    mut keys: Vec<Key>,
    no_certificates: bool,
    other: &Option<String>,
) -> Result<Key, CertificateError> {
    let Some(key) = keys.pop() else {
        let found = if no_certificates {
            other.clone()
        } else {
            Some("certificate".to_owned())
        };
        return Err(CertificateError::NoKey { found });
    };
    let is_other = |other: &&Key| !other.key.public_eq(&key.key);
    let others = keys.iter().filter(is_other).count();
    if others > 0 {
        return Err(CertificateError::SeveralKeys(others + 1));
    }
    Ok(key)
}

fn is_issuing(certificate: &X509) -> bool {
    certificate
        .key_usage()
        .is_some_and(|usage| usage.contains(X509KeyUsage::KEY_CERT_SIGN))
}

/// What is wrong with `leaf` and the chain that is sent with it.
fn judge(leaf: &X509Ref, chain: &Chain, is_of_ca: bool) -> Flaws {
    let roots = Roots::of_machine();
    Flaws::of(
        leaf,
        &chain.certificates,
        !chain.incomplete,
        is_of_ca,
        roots,
    )
}

fn private_key() -> String {
    "private key".to_owned()
}

/// OpenSSL's own reason, which is short: `ca md too weak`.
fn refused(error: ErrorStack) -> CertificateError {
    let reason = error
        .errors()
        .first()
        .and_then(|error| error.reason())
        .unwrap_or("unknown");
    CertificateError::Refused(reason.to_owned())
}
