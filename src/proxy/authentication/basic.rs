//! User names and passwords in requests (RFC 7617).

use http::header::AUTHORIZATION;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use zeroize::Zeroizing;

use crate::config::model::PasswordHash;
use crate::proxy::request::Fields;
use crate::secret::Secret;

/// The most octets of name and password in base64. Hashing takes longer the more there are.
const LONGEST: usize = 684;

/// A user's name and password.
pub(super) struct Credentials {
    user: Box<str>,
    password: Secret,
}

impl Credentials {
    /// Those of a request; `None` if there are none, or they are malformed.
    pub(super) fn of(fields: Fields<'_>) -> Option<Self> {
        let value = fields.get(&AUTHORIZATION);
        let (scheme, value) = value.split_at_checked("Basic ".len())?;
        let value = value.trim_ascii();
        if !scheme.eq_ignore_ascii_case(b"Basic ") || value.len() > LONGEST {
            return None;
        }
        let value = str::from_utf8(value).ok()?;
        let octets = Zeroizing::new(openssl::base64::decode_block(value).ok()?);
        let (user, password) = str::from_utf8(&octets).ok()?.split_once(':')?;
        Some(Self {
            user: user.into(),
            password: Secret::new(password.to_owned()),
        })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &Secret {
        &self.password
    }
}

/// Whether a password has this hash. Takes as long as the hash demands.
pub(super) fn is_password_of(password: &Secret, hash: &PasswordHash) -> bool {
    let password = password.expose();
    match hash {
        PasswordHash::Bcrypt(hash) => bcrypt::verify(password, hash.expose()).unwrap_or(false),
        PasswordHash::ShaCrypt(hash) => ShaCrypt::default()
            .verify_password(password.as_bytes(), hash.expose())
            .is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(value: &str) -> Option<(String, String)> {
        let head = format!("GET / HTTP/1.1\r\nauthorization: {value}\r\n\r\n");
        let found = Credentials::of(Fields::Lines(head.as_bytes()))?;
        Some((found.user.into(), found.password.expose().to_owned()))
    }

    #[test]
    fn credentials_are_read() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(credentials("Basic YTpi"), pair("a", "b"));
        assert_eq!(credentials("basic  YTpi "), pair("a", "b"));
        assert_eq!(credentials("Basic w6Q6Yjpj"), pair("ä", "b:c"));
        assert_eq!(credentials("Basic Og=="), pair("", ""));
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic YQ==",
            "Basic %",
            "Bearer YTpi",
            "Basic /zr/",
        ] {
            assert_eq!(credentials(bad), None, "{bad}");
        }
        assert_eq!(credentials(&format!("Basic {}", "YTpi".repeat(172))), None);
    }

    #[test]
    fn passwords_are_compared_with_every_kind_of_hash() {
        let secret = |text: &str| Secret::new(text.to_owned());
        for hash in [
            // Made by htpasswd and openssl passwd.
            PasswordHash::Bcrypt(secret(BCRYPT)),
            PasswordHash::ShaCrypt(secret(SHA256)),
            PasswordHash::ShaCrypt(secret(SHA512)),
            PasswordHash::ShaCrypt(secret(ROUNDS)),
        ] {
            assert!(
                is_password_of(&secret("hunter2"), &hash),
                "{}",
                hash.expose()
            );
            assert!(!is_password_of(&secret("hunter3"), &hash));
            assert!(!is_password_of(&secret(""), &hash));
        }
        let broken = PasswordHash::ShaCrypt(secret("$6$a"));
        assert!(!is_password_of(&secret("hunter2"), &broken));
    }

    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
    const SHA256: &str = "$5$saltsalt$OIdfjX.u4Y3SJ4I2bX8w5BMf1VAUhHABNUirScDzZi3";
    const SHA512: &str = "$6$saltsalt$8iYtNHxjWRl.NF6oNZ5tF.iKFlQREaXBLlSmZKP6dy9l5z3vsooWNW0/\
                          GZ6Nej73/TFug6pIPSqbJoCT6dfnj.";
    const ROUNDS: &str = "$6$rounds=1400$anotherlongsalts$BSfHT/edpI8onOAkOczVvSheRSAUDmhNWTFYNeb1mz\
                          PKsHGbhBZglmaUJUtPZncC4BNNYP4AjXmKR/ArAcOiv.";
}
