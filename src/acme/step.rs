//! The requests to a CA on the way to a certificate, and beside it.

use std::fmt;

/// What a CA was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Directory,
    Account,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Poll,
    Download,
    AccountShown,
    KeyChange,
    Contact,
    Deactivation,
    Binding,
    Revocation,
    RenewalInfo,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "did not return its directory",
            Self::Account => "did not accept the account",
            Self::Order => "refused the order",
            Self::Authorization => "did not return the authorizations",
            Self::Challenge => "did not accept the challenge",
            Self::Finalize => "refused the certificate request",
            Self::Poll => "did not return the order's status",
            Self::Download => "did not return the certificate",
            Self::AccountShown => "did not return the account",
            Self::KeyChange => "did not accept the account's new key",
            Self::Contact => "did not accept the account's contacts",
            Self::Deactivation => "did not deactivate the account",
            Self::Binding => "provided no external account binding",
            Self::Revocation => "did not revoke the certificate",
            Self::RenewalInfo => "did not return renewal information",
        })
    }
}
