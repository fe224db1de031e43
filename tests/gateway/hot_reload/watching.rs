//! Every way in which files change is seen.

use std::fs;
use std::time::Duration;

use super::{Volume, body, config, gateway, lines_with, presents, site, turn, wait_for_body};
use crate::support::{Ca, Gateway, Pair, TlsClient, wait_for, within};

#[test]
fn every_way_of_changing_the_file_is_seen() {
    let (mut gateway, _) = gateway();
    let text = |body: &str| {
        let text = fs::read_to_string(&gateway.config).expect("readable");
        let (head, _) = text.split_once("certificates:").expect("certificates");
        format!("{head}{}", config(body))
    };
    // In place.
    fs::write(&gateway.config, text("in place")).expect("written");
    wait_for_body(&gateway, "a.example", "in place");
    // By links: to a file, to another, to one in another directory, and that one in place.
    let other = gateway.dir().join("other");
    fs::create_dir(&other).expect("made");
    for name in ["v1", "v2"] {
        fs::write(gateway.dir().join(name), text(name)).expect("written");
    }
    // A relative path in it is relative to where the link stands.
    fs::write(other.join("v3"), text("v3")).expect("written");
    for (target, wanted) in [("v1", "v1"), ("v2", "v2"), ("other/v3", "v3")] {
        turn(&gateway.config, target);
        wait_for_body(&gateway, "a.example", wanted);
    }
    fs::write(other.join("v3"), text("v4")).expect("written");
    wait_for_body(&gateway, "a.example", "v4");
    // By a rename over it, as editors do.
    gateway.replace_config(config("renamed"));
    wait_for_body(&gateway, "a.example", "renamed");
    // Away and back.
    fs::remove_file(&gateway.config).expect("removed");
    gateway.wait_for_log("configuration refused");
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("renamed"));
    gateway.replace_config(config("back"));
    wait_for_body(&gateway, "a.example", "back");
}

#[test]
fn volumes_of_kubernetes_are_followed() {
    let builder = Gateway::builder();
    let ca = Ca::new("Volume Root");
    let (sites, by_directory, by_files) = (
        builder.dir().join("sites"),
        builder.dir().join("secret-a"),
        builder.dir().join("secret-b"),
    );
    let host = ["a.example", "b.example"];
    let publish = |version: u32| {
        let secrets = [&by_directory, &by_files].into_iter().zip(host);
        let pairs: Vec<Pair> = secrets
            .map(|(volume, host)| {
                let pair = ca.leaf(&[host]).serial(version).make();
                Volume(volume).publish(
                    &version.to_string(),
                    &[("tls.crt", &pair.chain), ("tls.key", &pair.key)],
                );
                pair
            })
            .collect();
        let text = format!(
            "sites:\n{}{}",
            site("a.example", &version.to_string()),
            site("b.example", &version.to_string())
        );
        Volume(&sites).publish(&version.to_string(), &[("sites.yaml", &text)]);
        pairs
    };
    publish(1);
    let config = "include: [\"sites/*.yaml\"]\ncertificates:\n  - directory: secret-a\n  \
                  - files: { cert: secret-b/tls.crt, key: secret-b/tls.key }\n";
    let gateway = builder.config(config).start();
    for version in 2..5 {
        let pairs = publish(version);
        for (host, pair) in host.iter().zip(&pairs) {
            wait_for_body(&gateway, host, &version.to_string());
            within(Duration::from_secs(15), "the new certificate", || {
                presents(&gateway, host, pair).then_some(())
            });
        }
    }
    assert_eq!(lines_with(&gateway, &["ERROR"]), Vec::<String>::new());
}

#[test]
fn links_in_a_certificate_directory_are_followed_to_the_end() {
    // As certbot has it: what is in the directory leads to `live`, that to `archive`.
    let (gateway, ca) = gateway();
    let at = |path: &str| gateway.dir().join(path);
    for directory in ["archive", "live"] {
        fs::create_dir(at(directory)).expect("made");
    }
    let write = |version: &str| {
        let pair = ca.leaf(&["a.example"]).make();
        pair.write(&at("archive"), version);
        pair
    };
    let lead = |version: &str| {
        for kind in ["pem", "key"] {
            turn(
                &at(&format!("live/a.{kind}")),
                &format!("../archive/{version}.{kind}"),
            );
        }
    };
    let first = write("a1");
    lead("a1");
    for kind in ["pem", "key"] {
        turn(
            &at(&format!("certs/a.{kind}")),
            &format!("../live/a.{kind}"),
        );
    }
    for kind in ["pem", "key"] {
        fs::remove_file(at(&format!("certs/a.example.{kind}"))).expect("removed");
    }
    wait_for("the first", || {
        presents(&gateway, "a.example", &first).then_some(())
    });
    // The inner link turns, as at a renewal.
    let second = write("a2");
    lead("a2");
    wait_for("the second", || {
        presents(&gateway, "a.example", &second).then_some(())
    });
    // And the file at the end is written anew.
    let third = write("a2");
    wait_for("the third", || {
        presents(&gateway, "a.example", &third).then_some(())
    });
}

#[test]
fn new_files_of_an_include_pattern_are_taken() {
    let builder = Gateway::builder();
    let ca = Ca::new("Include Root");
    let hosts = ["a.example", "b.example", "c.example"];
    let certs = builder.dir().join("certs");
    ca.leaf(&hosts).make().write(&certs, "all");
    let config = format!(
        "include: [\"sites.d/*.yaml\"]\ncertificates: [{{ directory: certs }}]\nsites:\n{}",
        site("a.example", "one")
    );
    let gateway = builder.config(config).start();
    let sites = gateway.dir().join("sites.d");
    // Not even the directory is there at first.
    fs::create_dir(&sites).expect("made");
    let add = |name: &str, host: &str, body: &str| {
        fs::write(sites.join(name), format!("sites:\n{}", site(host, body))).expect("written");
    };
    add("b.yaml", "b.example", "two");
    wait_for_body(&gateway, "b.example", "two");
    add("c.yaml", "c.example", "three");
    wait_for_body(&gateway, "c.example", "three");
    add("b.yaml", "b.example", "four");
    wait_for_body(&gateway, "b.example", "four");
    // A file with a mistake keeps all of them as they are, until it goes.
    fs::write(sites.join("d.yaml"), "sites: [\n").expect("written");
    gateway.wait_for_log("sites.d/d.yaml:1:");
    add("c.yaml", "c.example", "five");
    assert_eq!(gateway.reload().0, 400);
    assert_eq!(body(&gateway, "c.example").as_deref(), Ok("three"));
    fs::remove_file(sites.join("d.yaml")).expect("removed");
    wait_for_body(&gateway, "c.example", "five");
    fs::remove_file(sites.join("b.yaml")).expect("removed");
    wait_for("the site to go", || {
        let mut stream = TlsClient::named("b.example").connect(gateway.https);
        (stream.get("b.example", "/").status == 421).then_some(())
    });
}
