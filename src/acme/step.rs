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
            Self::Directory => "did not show its directory",
            Self::Account => "did not take the account",
            Self::Order => "refused the order",
            Self::Authorization => "did not show the authorizations",
            Self::Challenge => "did not take the challenge",
            Self::Finalize => "refused the certificate request",
            Self::Poll => "did not tell how the order stands",
            Self::Download => "did not give the certificate",
            Self::AccountShown => "did not show the account",
            Self::KeyChange => "did not take the new key of the account",
            Self::Contact => "did not take the contacts of the account",
            Self::Deactivation => "did not deactivate the account",
            Self::Binding => "gave no external account binding",
            Self::Revocation => "did not revoke the certificate",
            Self::RenewalInfo => "did not tell when to renew",
        })
    }
}
