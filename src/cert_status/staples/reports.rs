//! Which certificates are reported to have no response.

use std::collections::HashMap;

use crate::certificate::TlsCertificate;
use crate::host::Pattern;

/// How many certificates with the same first name are reported. A report has the name only, so it is
/// over once all of them are.
#[derive(Default)]
pub(super) struct Reports(HashMap<Pattern, usize>);

impl Reports {
    /// Notes that a certificate is reported from now on.
    pub(super) fn begin(&mut self, certificate: &TlsCertificate) {
        if let Some(name) = certificate.names().first() {
            *self.0.entry(name.clone()).or_default() += 1;
        }
    }

    /// Notes that the report of a certificate is over. Whether that is to be reported.
    pub(super) fn end(&mut self, certificate: &TlsCertificate) -> bool {
        let Some(name) = certificate.names().first() else {
            return false;
        };
        match self.0.get_mut(name) {
            Some(several @ 2..) => {
                *several -= 1;
                false
            }
            _ => self.0.remove(name).is_some(),
        }
    }
}
