//! Directories as other programs lay them out, and those that yield nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::certificate::finding::findings;
use crate::certificate::{Reason, RenewalFacts};
use crate::schedule::WarnFrom;

impl Fixture {
    fn make(&self, names: &[&str]) {
        for name in names {
            fs::create_dir_all(self.path(name)).expect("made");
        }
    }

    /// Writes a chain and its key for `host` by these names.
    fn write_as(&self, chain: &str, key: &str, host: &str) -> TestLeaf {
        let leaf = self.ca.leaf(&[host]);
        for name in [chain, key] {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        }
        self.write(key, &leaf.key);
        self.write(chain, &self.ca.chain(&leaf));
        leaf
    }

    fn apply_at(&mut self, name: &str) -> Report {
        let source = CertificateSource::Directory {
            path: self.path(name),
            origin: origin("certificates[0]"),
        };
        self.manager.apply(&config(vec![source], Vec::new()))
    }
}

/// As certbot leaves `live/NAME`: links into `archive/NAME`, and what else it has there.
fn certbot(fixture: &Fixture, name: &str, version: u32) {
    fixture.make(&[&format!("live/{name}"), &format!("archive/{name}")]);
    let leaf = fixture.ca.leaf(&[name]);
    let chain = fixture.ca.chain(&leaf);
    let parts = [
        ("cert", &leaf.certificate),
        ("chain", &fixture.ca.intermediate.pem()),
        ("fullchain", &chain),
        ("privkey", &leaf.key),
    ];
    fixture.write(&format!("live/{name}/README"), "about these files");
    for (part, content) in parts {
        fixture.write(&format!("archive/{name}/{part}{version}.pem"), content);
        let link = fixture.path(&format!("live/{name}/{part}.pem"));
        let new = fixture.path("new-link");
        let target = format!("../../archive/{name}/{part}{version}.pem");
        symlink(target, &new).expect("linked");
        fs::rename(new, link).expect("turned");
    }
}

#[test]
fn certbots_directories_work_as_they_are_and_are_followed() {
    for (from, given) in [(0, "live"), (1, "."), (2, "live/a.example")] {
        let mut fixture = Fixture::new();
        certbot(&fixture, "a.example", 1);
        fixture.write("live/README", "about these directories");
        fixture.make(&["accounts/ca/1", "renewal"]);
        fixture.write("renewal/a.example.conf", "x");
        let report = fixture.apply_at(given);
        assert_clean(&report);
        assert_eq!(report.certificates, 1, "{given}");
        let live = fixture.path("live/a.example");
        // `a/./b` is what was configured, and the same to the system.
        let watches = |wanted: &Path| {
            let real = |path: &PathBuf| fs::canonicalize(path).ok();
            report
                .watch
                .iter()
                .filter_map(real)
                .any(|path| path == wanted)
        };
        assert!(watches(&fs::canonicalize(live).expect("there")), "{given}");
        if from == 1 {
            continue;
        }

        let before = fixture.serial("a.example").expect("served");
        certbot(&fixture, "a.example", 2);
        let paths = ["cert", "chain", "fullchain", "privkey"]
            .map(|part| fixture.path(&format!("live/a.example/{part}.pem")));
        let report = fixture.manager.refresh_paths(&paths);
        assert_clean(&report);
        assert_eq!(report.changed.len(), 1, "{given}");
        let after = fixture.serial("a.example").expect("served");
        assert_ne!(before, after);

        if from == 0 {
            certbot(&fixture, "b.example", 1);
            let report = fixture
                .manager
                .refresh_paths(&[fixture.path("live/b.example")]);
            assert_clean(&report);
            assert_eq!(report.added.len(), 1);
            assert!(report.watch.contains(&fixture.path("live/b.example")));
            fs::remove_dir_all(fixture.path("live/a.example")).expect("removed");
            let report = fixture
                .manager
                .refresh_paths(&[fixture.path("live/a.example")]);
            assert!(report.is_unchanged(), "it is served for a moment longer");
            fixture.clock.advance(5);
            assert_eq!(fixture.manager.tick().removed.len(), 1);
            assert_eq!(fixture.serial("a.example"), None);
        }
    }
}

#[test]
fn folders_of_other_programs_work_as_they_are() {
    let mut fixture = Fixture::new();
    // acme.sh
    for (folder, name) in [("a.example_ecc", "a.example"), ("b.example", "b.example")] {
        let chain = format!("{folder}/fullchain.cer");
        let leaf = fixture.write_as(&chain, &format!("{folder}/{name}.key"), name);
        fixture.write(&format!("{folder}/{name}.cer"), &leaf.certificate);
        fixture.write(&format!("{folder}/ca.cer"), &fixture.ca.intermediate.pem());
        fixture.write(&format!("{folder}/{name}.conf"), "Le_Domain");
    }
    fixture.make(&["ca/acme.example/directory", "dnsapi"]);
    fixture.write("ca/acme.example/directory/account.key", "x");
    fixture.write("account.conf", "x");
    // Caddy
    let caddy = "acme-v02.example-directory";
    for (folder, host) in [
        ("c.example", "c.example"),
        ("wildcard_.d.example", "*.d.example"),
    ] {
        let stem = format!("{caddy}/{folder}/{folder}");
        fixture.write_as(&format!("{stem}.crt"), &format!("{stem}.key"), host);
        fixture.write(&format!("{stem}.json"), "{}");
    }
    // lego
    let leaf = fixture.write_as("e.example.crt", "e.example.key", "e.example");
    fixture.write("e.example.issuer.crt", &fixture.ca.intermediate.pem());
    fixture.write("e.example.json", "{}");
    // Windows
    fixture.write_as("SITE.CRT", "SITE.KEY", "f.example");
    fixture.write_as("G.EXAMPLE.Cer", "G.EXAMPLE.Key", "g.example");
    // Kubernetes, a secret for each folder
    fixture.write_as("secret/tls.crt", "secret/tls.key", "h.example");
    // In nobody's letters
    let odd = fixture
        .directory
        .path()
        .join(OsStr::from_bytes(b"\xff\xfe.pem"));
    let leaf_odd = fixture.ca.leaf(&["i.example"]);
    fs::write(odd, fixture.ca.chain(&leaf_odd) + &leaf_odd.key).expect("written");

    let report = fixture.apply_at(".");
    assert_clean(&report);
    let hosts = ["a", "b", "c", "x.d", "e", "f", "g", "h", "i"];
    for host in hosts {
        let host = format!("{host}.example");
        assert!(fixture.serial(&host).is_some(), "{host}");
    }
    assert_eq!(report.certificates, hosts.len());
    drop(leaf);

    // Renewed in place, and one file after the other.
    let before = fixture.serial("a.example");
    let leaf = fixture.ca.leaf(&["a.example"]);
    fixture.write("a.example_ecc/a.example.key", &leaf.key);
    fixture.write("a.example_ecc/fullchain.cer", &fixture.ca.chain(&leaf));
    let changed = fixture.path("./a.example_ecc/fullchain.cer");
    let report = fixture.manager.refresh_paths(&[changed]);
    assert_clean(&report);
    assert_eq!(report.changed.len(), 1);
    assert_ne!(fixture.serial("a.example"), before);
    assert!(fixture.manager.refresh().is_unchanged());
}

#[test]
fn a_chain_that_comes_later_takes_the_place_of_the_certificate_alone() {
    let mut fixture = Fixture::new();
    let leaf = fixture.write_as(
        "certs/a.example/a.example.cer",
        "certs/a.example/a.example.key",
        "a.example",
    );
    let report = fixture.apply_at("certs");
    assert_eq!(report.certificates, 1);
    fixture.write("certs/a.example/fullchain.cer", &fixture.ca.chain(&leaf));
    let path = fixture.path("certs/a.example/fullchain.cer");
    let report = fixture.manager.refresh_paths(std::slice::from_ref(&path));
    assert_clean(&report);
    assert_eq!(report.certificates, 1, "not both");
    assert!(fixture.serial("a.example").is_some());
    fs::remove_file(&path).expect("there");
    fixture.manager.refresh_paths(&[path]);
    fixture.clock.advance(5);
    let report = fixture.manager.tick();
    assert_eq!(report.certificates, 1, "the other again");
    assert!(fixture.serial("a.example").is_some());
}

#[test]
fn a_directory_that_yields_nothing_says_so() {
    let mut fixture = Fixture::new();
    fixture.make(&["empty", "certs/archive/many", "certs/other"]);
    let told = |report: &Report| {
        assert_eq!(messages(&report.problems), [""; 0]);
        messages(&report.warnings)
    };
    let report = fixture.apply_at("empty");
    let said = told(&report);
    assert!(
        said.len() == 1 && said[0].contains("it is empty"),
        "{said:?}"
    );

    fixture.write("certs/README", "x");
    fixture.write("certs/.hidden.pem", "x");
    let leaf = fixture.write_as(
        "certs/archive/many/a1.pem",
        "certs/archive/many/a1.key",
        "a.example",
    );
    let report = fixture.apply_at("certs");
    let said = told(&report);
    let place = fixture.path("certs/archive/many");
    assert_eq!(said.len(), 1, "{said:?}");
    for part in [
        "certificates[0]: ",
        "3 entries were skipped",
        &place.display().to_string(),
        "NAME.cer",
        "fullchain.pem and privkey.pem",
    ] {
        assert!(said[0].contains(part), "{part}: {said:?}");
    }
    assert!(!said[0].contains("certs/other"), "{said:?}");

    fixture.write("certs/a.pem", &(fixture.ca.chain(&leaf) + &leaf.key));
    let report = fixture
        .manager
        .refresh_paths(&[fixture.path("certs/a.pem")]);
    assert_clean(&report);
    assert_eq!(report.certificates, 1);

    fixture.write("certs/lone.KEY", &leaf.key);
    let report = fixture.manager.refresh();
    let said = told(&report);
    assert!(
        said.len() == 1 && said[0].contains("lone.PEM, lone.CRT, lone.CER"),
        "{said:?}"
    );
}

#[test]
fn a_directory_that_becomes_the_folder_of_one_certificate_is_read_as_such() {
    let mut fixture = Fixture::new();
    let leaf = fixture.ca.leaf(&["a.example"]);
    fixture.make(&["live"]);
    fixture.write("live/fullchain.pem", &fixture.ca.chain(&leaf));
    let report = fixture.apply_at("live");
    assert!(messages(&report.problems)[0].contains("no private key"));
    fixture.write("live/privkey.pem", &leaf.key);
    let report = fixture
        .manager
        .refresh_paths(&[fixture.path("live/privkey.pem")]);
    assert_clean(&report);
    assert_eq!(report.certificates, 1);
}

#[test]
fn a_chain_that_ends_before_its_certificate_is_told_and_watched() {
    let mut fixture = Fixture::new();
    let leaf = fixture.ca.leaf(&["a.example"]);
    let key = fixture.ca.intermediate.key();
    let name = "manager intermediate";
    let above = |days: i64| {
        crate::certificate::testing::intermediate_of(name, key, &fixture.ca.root, NOW + days * DAY)
    };
    let (short, long) = (above(40), above(400));
    fixture.write("a.pem", &(leaf.certificate.clone() + &short + &leaf.key));
    let watched = |fixture: &Fixture| {
        let (map, now) = (fixture.manager.published().load(), fixture.clock.now());
        let all = map.iter().flat_map(|(_, set)| &set.by_kind);
        let noted = all.filter(|one| {
            let found = findings(one, &RenewalFacts::BY_HAND, WarnFrom::default(), now);
            found
                .iter()
                .any(|finding| finding.reason == Reason::Validity)
        });
        noted.map(|one| one.served_until()).collect::<Vec<_>>()
    };
    let report = fixture
        .manager
        .apply(&config(vec![fixture.directory()], Vec::new()));
    assert_clean(&report);
    assert_eq!(watched(&fixture), []);
    fixture.clock.advance(27 * DAY);
    assert_clean(&fixture.manager.tick());
    assert_eq!(watched(&fixture), [NOW + 40 * DAY], "it ends soon");
    fixture.clock.advance(14 * DAY);
    let report = fixture.manager.tick();
    let said = messages(&report.warnings);
    assert!(
        said.len() == 1 && said[0].contains("in its chain (CN=manager intermediate)"),
        "{said:?}"
    );
    assert!(fixture.serial("a.example").is_some(), "served all the same");

    // Another file brings one that is valid: the chain is mended.
    fixture.write("bundle.pem", &long);
    let report = fixture.manager.refresh();
    assert_clean(&report);
    let map = fixture.manager.published().load();
    let served = &map.lookup("a.example").expect("served").by_kind[0];
    assert_eq!(served.served_until(), served.not_after());
}
