//! Targets for fuzzing. Each reads what a stranger has sent, and panics where a property does not
//! hold.
//!
//! Parsers are private, so a target lies beside what it calls, in a module `fuzzing`. libFuzzer
//! calls them from `fuzz/`. The tests replay what is collected there in `corpus`.

#![allow(clippy::panic, reason = "a target fails by a panic")]

use std::env::VarError;
use std::net::IpAddr;
use std::path::Path;

use crate::certificate::pem::{Contents, find_der, has_key};
use crate::certificate::{Loader, Source, Validity};
use crate::config::{self, Diagnostic};
use crate::host::{HostName, MAX_HOST_NAME, NameBuffer, Pattern};
use crate::proxy::Authority;

/// A target.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: [(&str, Target); 11] = [
    ("certificate", certificate),
    ("chunked_body", crate::proxy::fuzzing::chunked_body),
    (
        "client_hello",
        crate::tls::client_hello::fuzzing::client_hello,
    ),
    ("configuration", configuration),
    ("file_request", crate::proxy::fuzzing::file_request),
    ("forwarded", crate::proxy::fuzzing::forwarded),
    ("host", host),
    ("proxy_protocol", crate::edge::fuzzing::proxy_protocol),
    ("request_head", crate::edge::fuzzing::request_head),
    ("request_path", crate::proxy::fuzzing::request_path),
    ("response_head", crate::proxy::fuzzing::response_head),
];

/// Calls the target of this name.
///
/// # Panics
/// If a property does not hold, or if there is no such target.
pub fn run(name: &str, octets: &[u8]) {
    let target = TARGETS.iter().find(|(other, _)| *other == name);
    let Some((_, target)) = target else {
        panic!("there is no target {name}");
    };
    target(octets);
}

/// What no message may show.
const SECRET: &str = "hunter2-of-the-environment";

/// A configuration in YAML.
fn configuration(octets: &[u8]) {
    let Ok(text) = str::from_utf8(octets) else {
        return;
    };
    // These would be read, and some of them never end.
    if ["/dev", "/proc", "/sys"]
        .iter()
        .any(|path| text.contains(path))
    {
        return;
    }
    let environment = |name: &str| match name {
        "SECRET" => Ok(SECRET.to_owned()),
        _ => Err(VarError::NotPresent),
    };
    let loader = config::Loader::new().with_environment(&environment);
    let ends = text.matches(['\n', '\r']).count();
    let check = |diagnostic: &Diagnostic| {
        let shown = diagnostic.render(false);
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1, "{shown}");
        let line = usize::try_from(diagnostic.line).unwrap_or(usize::MAX);
        assert!(line <= ends + 2, "line {line} after {ends} ends: {shown}");
        assert!(!diagnostic.message.is_empty());
        assert!(!diagnostic.to_string().contains('\n'), "{shown}");
        assert!(!shown.contains("report this as a bug"), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    };
    match loader.load_str(text, Path::new("/nowhere/at/all")) {
        Ok(loaded) => loaded.warnings.iter().chain(&loaded.faults).for_each(check),
        Err(refused) => {
            assert!(!refused.list.is_empty(), "refused without a reason");
            refused.list.iter().for_each(check);
        }
    }
}

/// Certificates and keys in PEM.
fn certificate(octets: &[u8]) {
    let Ok(contents) = Contents::read(octets) else {
        return;
    };
    assert!(contents.keys.is_empty() || has_key(octets));
    // The same in a simple form is the same.
    let mut simple = Vec::new();
    for certificate in &contents.certificates {
        simple.extend(certificate.to_pem().unwrap_or_default());
    }
    for key in &contents.keys {
        simple.extend(key.key.private_key_to_pem_pkcs8().unwrap_or_default());
    }
    if !simple.is_empty() {
        let Ok(again) = Contents::read(&simple) else {
            panic!("its own PEM is refused");
        };
        let der = |contents: &Contents| -> Vec<_> {
            let all = contents.certificates.iter();
            all.map(|one| one.to_der().unwrap_or_default()).collect()
        };
        assert_eq!(der(&again), der(&contents));
        assert_eq!(again.keys.len(), contents.keys.len());
        let mut keys = again.keys.iter().zip(&contents.keys);
        assert!(keys.all(|(one, other)| one.key.public_eq(&other.key)));
    }
    let Ok(loader) = Loader::new() else {
        return;
    };
    let Ok(loaded) = loader.load(octets, Source::Program) else {
        return;
    };
    let certificate = loaded.certificate;
    assert!(!certificate.names().is_empty());
    assert!(!certificate.names().contains(&Pattern::Any));
    let (begin, end) = (certificate.not_before(), certificate.not_after());
    // One that ends before it begins is never valid.
    let is_valid = |now| certificate.validity(now) == Validity::Valid;
    assert!(begin <= end || ![begin, end].into_iter().any(is_valid));
    _ = certificate.lifetime();
    _ = find_der(octets, certificate.fingerprint());
}

/// A host: its name, a pattern, or an authority.
fn host(octets: &[u8]) {
    let mut buffer = NameBuffer::new();
    let from_wire = buffer.normalize(octets).map(str::to_owned);
    if let Some(name) = &from_wire {
        let parsed = name.parse::<HostName>();
        assert_eq!(parsed.as_ref().map(HostName::as_str), Ok(&**name));
        check_name(name);
    }
    let mut other = NameBuffer::new();
    if let Some(authority) = Authority::parse(octets, &mut other) {
        let text = authority.to_string();
        let mut again = NameBuffer::new();
        assert_eq!(
            Authority::parse(text.as_bytes(), &mut again),
            Some(authority)
        );
    }
    let Ok(text) = str::from_utf8(octets) else {
        return;
    };
    if let Ok(name) = text.parse::<HostName>() {
        check_name(name.as_str());
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
        if text.is_ascii() && !text.to_ascii_lowercase().contains("xn--") {
            assert_eq!(from_wire.as_deref(), Some(name.as_str()), "{text:?}");
        }
    }
    let Ok(pattern) = text.parse::<Pattern>() else {
        return;
    };
    let shown = pattern.to_string();
    assert_eq!(shown.parse(), Ok(pattern.clone()), "{shown}");
    if let Pattern::Wildcard(of) = &pattern {
        assert!(pattern.covers(&format!("a.{of}")));
        assert!(!pattern.covers(&format!("a.b.{of}")));
        assert!(!pattern.covers(of.as_str()));
    }
}

/// Checks that a name is in the one form in which names are compared.
fn check_name(name: &str) {
    assert!((1..=MAX_HOST_NAME).contains(&name.len()), "{name}");
    let is_good = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    for label in name.split('.') {
        assert!((1..=63).contains(&label.len()), "{name}");
        assert!(label.bytes().all(is_good), "{name}");
    }
    assert!(name.parse::<IpAddr>().is_err(), "{name}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn names_in(folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(folder_of(folder)).expect("a folder");
        let stem = |path: PathBuf| {
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        };
        entries
            .filter_map(|entry| stem(entry.expect("an entry").path()))
            .collect()
    }

    fn folder_of(folder: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(folder)
    }

    #[test]
    fn every_target_can_be_fuzzed_and_has_a_corpus() {
        let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names_in("fuzz_targets"), names);
        assert_eq!(names_in("corpus"), names);
        let manifest = fs::read_to_string(folder_of("Cargo.toml")).expect("the manifest");
        for name in names {
            assert!(
                manifest.contains(&format!("\nname = \"{name}\"\n")),
                "{name}"
            );
        }
    }

    #[test]
    fn the_corpus_holds() {
        for (name, target) in TARGETS {
            let folder = folder_of("corpus").join(name);
            let mut files = 0;
            for entry in fs::read_dir(folder).expect("a corpus") {
                let path = entry.expect("an entry").path();
                let octets = fs::read(&path).expect("a file");
                let outcome = std::panic::catch_unwind(|| target(&octets));
                assert!(outcome.is_ok(), "{}", path.display());
                files += 1;
            }
            assert!(files > 0, "{name} has no corpus");
        }
    }
}
