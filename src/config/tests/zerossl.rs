//! Issuers with ZeroSSL: the resulting models.

use super::acme::acme;
use super::*;
use crate::config::model::{KeyType, ZeroSslLogin};

#[test]
fn zerossl_is_a_ca_that_knows_an_account() {
    let zerossl = |keys: &str| {
        let text = format!(
            "issuers: {{ z: {{ zerossl: {{ {keys} }} }} }}\n\
             sites: [{{ hosts: [www.my-host.com], routes: [{{ respond: {{ body: a }} }}] }}]"
        );
        let loaded = accept(&text);
        assert_eq!(loaded.warnings, []);
        assert!(!format!("{loaded:?}").contains("secret-key"));
        acme(&loaded.config)
    };
    let acme = zerossl("api_key: secret-key, key_type: p384");
    assert!(acme.check_caa && acme.resolvers.is_empty());
    assert_eq!(acme.directory, "https://acme.zerossl.com/v2/DV90");
    assert_eq!((acme.key_type, &acme.email), (KeyType::P384, &None));
    let known = acme.zerossl.as_ref().unwrap();
    assert_eq!(known.endpoint, "https://api.zerossl.com");
    let key = crate::secret::Secret::new("secret-key".to_owned());
    assert_eq!(known.login, ZeroSslLogin::ApiKey(key.clone()));

    let acme = zerossl(
        "email: a@my-host.com, endpoint: \"https://api.corp:8443\", check_caa: false, \
         resolvers: [\"10.0.0.53:53\"]",
    );
    assert!(!acme.check_caa);
    assert_eq!(acme.resolvers, ["10.0.0.53:53".parse().unwrap()]);
    let known = acme.zerossl.as_ref().unwrap();
    assert_eq!(known.login, ZeroSslLogin::Email("a@my-host.com".to_owned()));
    assert_eq!(acme.email.as_deref(), Some("a@my-host.com"));
    assert_eq!(known.endpoint, "https://api.corp:8443");

    let acme = zerossl("email: a@my-host.com, api_key: secret-key");
    assert_eq!(
        acme.zerossl.as_ref().unwrap().login,
        ZeroSslLogin::ApiKey(key)
    );
    assert_eq!(acme.email.as_deref(), Some("a@my-host.com"));
}
