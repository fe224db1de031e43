//! Certificate files that are removed, broken or half written: the old certificate stays in service.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{config, gateway, lines_with, presents, under_connections};
use crate::support::{Ca, Gateway, Pair, TlsClient, wait_for};

#[test]
fn a_file_that_is_removed_and_written_again_is_served_all_the_while() {
    let builder = Gateway::builder();
    let ca = Ca::new("Moment Root");
    let certs = builder.dir().join("certs");
    let (old, new) = (
        ca.leaf(&["a.example"]).make(),
        ca.leaf(&["a.example"]).make(),
    );
    old.write(&certs, "a.example");
    let gateway = builder
        .config("certificates: [{ directory: certs }]\ntls: { unknown_sni: reject }\n")
        .start();
    let removed = Instant::now();
    for kind in ["pem", "key"] {
        fs::remove_file(certs.join(format!("a.example.{kind}"))).expect("removed");
    }
    while removed.elapsed() < Duration::from_millis(1500) {
        assert!(
            presents(&gateway, "a.example", &old),
            "{:?}",
            removed.elapsed()
        );
    }
    new.write(&certs, "a.example");
    wait_for("the new one", || {
        presents(&gateway, "a.example", &new).then_some(())
    });
    for kind in ["pem", "key"] {
        fs::remove_file(certs.join(format!("a.example.{kind}"))).expect("removed");
    }
    wait_for("it to go", || {
        TlsClient::named("a.example")
            .try_connect(gateway.https)
            .err()
    });
}

#[test]
fn a_certificate_that_breaks_keeps_the_old_one() {
    let builder = Gateway::builder();
    let ca = Ca::new("Break Root");
    let good = ca.leaf(&["a.example"]).make();
    let (chain, key) = good.write(builder.dir(), "a");
    let trusted = ca.certificate().clone();
    let mut gateway = builder
        .config(config("one").replace(
            "{ directory: certs }",
            "{ files: { cert: a.pem, key: a.key } }",
        ))
        .start();
    let expired = ca.leaf(&["a.example"]).expired().make();
    let early = ca.leaf(&["a.example"]).not_yet_valid().make();
    let seen = under_connections(&gateway, "a.example", &trusted, || {
        let broken = |what: &str, words: &str, change: &dyn Fn()| {
            let before = lines_with(&gateway, &["ERROR", words]).len();
            change();
            wait_for(what, || {
                (lines_with(&gateway, &["ERROR", words]).len() > before).then_some(())
            });
            let told = lines_with(&gateway, &["ERROR", words]);
            let last = told.last().expect("a line");
            assert!(last.contains("certificates[0]"), "{last}");
            assert!(last.contains("still served"), "{last}");
            assert!(presents(&gateway, "a.example", &good), "{what}");
            assert_eq!(gateway.ask("GET", "/readyz").status, 200, "{what}");
            // A reload and the time that passes do not change it.
            assert_eq!(gateway.reload().0, 200);
            assert!(presents(&gateway, "a.example", &good), "{what}");
        };
        let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
        broken("half a chain", "half written", &|| {
            write(&chain, &good.chain[..200])
        });
        broken("no chain", "a.pem: cannot be read", &|| {
            fs::remove_file(&chain).expect("removed");
        });
        write(&chain, &good.chain);
        broken("another key", "does not belong", &|| {
            write(&key, &expired.key)
        });
        broken("garbage", "a.key: is not PEM", &|| write(&key, "garbage"));
        broken("an expired pair", "expired on", &|| {
            write(&key, &expired.key);
            write(&chain, &expired.chain);
        });
        broken("a pair of tomorrow", "not valid before", &|| {
            write(&key, &early.key);
            write(&chain, &early.chain);
        });
        broken("a directory", "not a regular file", &|| {
            fs::remove_file(&chain).expect("removed");
            fs::create_dir(&chain).expect("made");
        });
        fs::remove_dir(&chain).expect("removed");
        let renewed = ca.leaf(&["a.example"]).make();
        write(&key, &renewed.key);
        write(&chain, &renewed.chain);
        wait_for("the renewed pair", || {
            presents(&gateway, "a.example", &renewed).then_some(())
        });
    });
    assert!(seen.connections > 10, "{seen:?}");
    // With nothing to fall back on, better an expired certificate than none.
    fs::write(&key, &expired.key).expect("written");
    fs::write(&chain, &expired.chain).expect("written");
    gateway.restart();
    assert!(presents(&gateway, "a.example", &expired));
}

#[test]
fn a_pair_that_is_written_file_by_file_is_never_served_mixed() {
    for key_first in [true, false] {
        let (gateway, ca) = gateway();
        let certs = gateway.dir().join("certs");
        let pairs: Vec<Pair> = (0..6).map(|_| ca.leaf(&["a.example"]).make()).collect();
        let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
            for (index, pair) in pairs.iter().enumerate() {
                let key = || fs::write(certs.join("a.example.key"), &pair.key).expect("written");
                let chain =
                    || fs::write(certs.join("a.example.pem"), &pair.chain).expect("written");
                let errors = lines_with(&gateway, &["ERROR", "does not belong"]).len();
                let between = || {
                    // Now and then slow enough to be looked at between the two.
                    if index % 3 == 2 {
                        wait_for("the look between", || {
                            let now = lines_with(&gateway, &["ERROR", "does not belong"]).len();
                            (now > errors).then_some(())
                        });
                    }
                };
                if key_first {
                    key();
                    between();
                    chain();
                } else {
                    chain();
                    between();
                    key();
                }
                wait_for("the new pair", || {
                    presents(&gateway, "a.example", pair).then_some(())
                });
            }
        });
        assert!(seen.connections > 20);
    }
}
