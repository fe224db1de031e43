//! The examples of the documentation.

use std::collections::HashSet;
use std::mem::discriminant;

use super::*;

#[test]
fn every_provider_has_an_example_that_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/dns.md")).expect("the document");
    let mut shown = HashSet::new();
    for part in text.split("```yaml\n").skip(1) {
        let yaml = part.split("```").next().expect("an end");
        if !yaml.starts_with("dns:") {
            continue;
        }
        let whole = format!(
            "{yaml}\nissuers: {{ a: {{ local_ca: }} }}\n\
             sites: [{{ hosts: [a.example], routes: [{{ respond: {{}} }}] }}]\n"
        );
        // Files and variables that are not on every machine.
        let whole = whole.replace("ca_file: corp-root.pem", "ttl: 60");
        let loaded = crate::config::Loader::new()
            .with_environment(&|_| Ok("c2VjcmV0".to_owned()))
            .load_str(&whole, Path::new("/"));
        let loaded = loaded.unwrap_or_else(|errors| panic!("{whole}\n{errors}"));
        for (name, dns) in &loaded.config.dns {
            let mut dns = Dns::clone(dns);
            shown.insert(discriminant(&dns.provider));
            if !matches!(dns.provider, DnsService::Exec(_) | DnsService::Rfc2136(_)) {
                dns.ca_file = Some(ROOTS.path().to_owned());
            }
            let opened = open_provider(name, &dns).map(|provider| provider.name().to_owned());
            assert_eq!(opened.as_deref(), Ok(&**name), "{yaml}");
        }
    }
    assert_eq!(shown.len(), 8, "providers with an example");
}
