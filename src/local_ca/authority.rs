//! A CA certificate with its key.

use std::sync::Arc;

use openssl::x509::{X509, X509KeyUsage};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use zeroize::Zeroizing;

use super::LocalCaError;
use crate::certificate::parse::{name_text, unix_time};
use crate::certificate::pem::Contents;
use crate::clock::UnixTime;

/// The last second that X.509 can express, 31 December 9999.
const END_OF_TIME: UnixTime = UnixTime::from_secs(253_402_300_799);

/// How many CAs may be below a root: the intermediate.
const BELOW_ROOT: u8 = 1;

/// A CA that can sign. A handle; clones share the key.
#[derive(Clone)]
pub(super) struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    pem: Arc<str>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Authority {
    /// Makes a root.
    pub(super) fn root(
        name: &str,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Result<Self, LocalCaError> {
        let (key, params) = (
            generate_key()?,
            params(name, BELOW_ROOT, not_before, not_after),
        );
        let pem = params.self_signed(&key)?.pem().into();
        let issuer = Arc::new(Issuer::new(params, key));
        Ok(Self {
            issuer,
            pem,
            not_before,
            not_after,
        })
    }

    /// Makes an intermediate below this root.
    pub(super) fn sign(
        &self,
        name: &str,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Result<Self, LocalCaError> {
        let (key, params) = (generate_key()?, params(name, 0, not_before, not_after));
        let pem = params.signed_by(&key, &self.issuer)?.pem().into();
        let issuer = Arc::new(Issuer::new(params, key));
        Ok(Self {
            issuer,
            pem,
            not_before,
            not_after,
        })
    }

    /// Parses what [`Self::secret_pem`] wrote. The error says how it is damaged.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let contents = Contents::read(pem).map_err(|error| error.to_string())?;
        let ([certificate], [key]) = (&*contents.certificates, &*contents.keys) else {
            return Err(format!(
                "it contains {} certificates and {} keys instead of one of each",
                contents.certificates.len(),
                contents.keys.len()
            ));
        };
        if !certificate
            .public_key()
            .is_ok_and(|public| public.public_eq(&key.key))
        {
            return Err("its key does not belong to its certificate".to_owned());
        }
        let usage = certificate.key_usage();
        if !usage.is_some_and(|usage| usage.contains(X509KeyUsage::KEY_CERT_SIGN)) {
            return Err(format!(
                "{} is not a CA",
                name_text(certificate.subject_name())
            ));
        }
        let unreadable = |error: &dyn std::fmt::Display| error.to_string();
        let key = key.key.private_key_to_pem_pkcs8().map(Zeroizing::new);
        let key = key.map_err(|error| unreadable(&error))?;
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&key));
        let key = key.map_err(|error| unreadable(&error))?;
        let der = certificate.to_der().map_err(|error| unreadable(&error))?;
        let issuer = Issuer::from_ca_cert_der(&der.into(), key);
        Ok(Self {
            issuer: Arc::new(issuer.map_err(|error| unreadable(&error))?),
            pem: pem_of(certificate)?.into(),
            not_before: unix_time(certificate.not_before()).map_err(|error| unreadable(&error))?,
            not_after: unix_time(certificate.not_after()).map_err(|error| unreadable(&error))?,
        })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The certificate in PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Key and certificate in PEM.
    pub(super) fn secret_pem(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        Zeroizing::new(format!("{}{}", *key, self.pem))
    }

    pub(super) fn not_before(&self) -> UnixTime {
        self.not_before
    }

    pub(super) fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

/// A new key.
pub(super) fn generate_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// The PEM of a certificate.
fn pem_of(certificate: &X509) -> Result<String, String> {
    let pem = certificate.to_pem().map_err(|error| error.to_string())?;
    String::from_utf8(pem).map_err(|error| error.to_string())
}

fn params(name: &str, below: u8, not_before: UnixTime, not_after: UnixTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, not_before, not_after);
    params
}

/// Sets the period of validity, within what X.509 can express.
pub(super) fn set_validity(
    params: &mut CertificateParams,
    not_before: UnixTime,
    not_after: UnixTime,
) {
    let at = |time: UnixTime| {
        let epoch = UnixTime::default();
        date_time_ymd(1970, 1, 1) + time.min(END_OF_TIME).since(epoch)
    };
    params.not_before = at(not_before);
    params.not_after = at(not_after);
}
