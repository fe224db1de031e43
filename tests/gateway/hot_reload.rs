//! Changes while it runs: every way in which files change, and nobody notices who should not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use openssl::x509::X509;

use crate::support::{Ca, Gateway, Pair, TlsClient, snigate, wait_for, within};

/// A site that answers with this.
fn site(host: &str, body: &str) -> String {
    format!("  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{body}\" }} }}] }}\n")
}

/// One site, `a.example`, with a certificate of the directory `certs`.
fn config(body: &str) -> String {
    format!(
        "certificates: [{{ directory: certs }}]\nsites:\n{}",
        site("a.example", body)
    )
}

/// A gateway for `a.example` that answers with `one`, and the root to trust.
fn gateway() -> (Gateway, Ca) {
    let builder = Gateway::builder();
    let ca = Ca::new("Reload Root");
    ca.leaf(&["a.example"])
        .make()
        .write(&builder.dir().join("certs"), "a.example");
    (builder.config(config("one")).start(), ca)
}

/// What `host` answers over a new connection.
fn body(gateway: &Gateway, host: &str) -> Result<String, String> {
    let mut stream = TlsClient::named(host).try_connect(gateway.https)?;
    Ok(stream.get(host, "/").text())
}

#[track_caller]
fn wait_for_body(gateway: &Gateway, host: &str, wanted: &str) {
    within(
        Duration::from_secs(15),
        &format!("{host} to answer {wanted}"),
        || (body(gateway, host).as_deref() == Ok(wanted)).then_some(()),
    );
}

fn fingerprint(certificate: &X509) -> Vec<u8> {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256());
    digest.expect("SHA-256").to_vec()
}

fn presents(gateway: &Gateway, host: &str, pair: &Pair) -> bool {
    let stream = TlsClient::named(host).try_connect(gateway.https);
    stream.is_ok_and(|stream| fingerprint(&stream.certificate()) == fingerprint(&pair.certificate))
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    let name = format!("snigate_config_reloads_total{{result=\"{result}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

fn lines_with(gateway: &Gateway, texts: &[&str]) -> Vec<String> {
    let log = gateway.log();
    let lines = log.lines();
    lines
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .map(str::to_owned)
        .collect()
}

/// What clients saw that connected again and again while something else went on.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    failures: Vec<String>,
    /// The certificate's serial number and the body, in the order of one client.
    pairs: Vec<(String, String)>,
}

/// Runs `work` while two clients make new connections to `host`, one after the other.
fn under_connections(gateway: &Gateway, host: &str, root: &X509, work: impl FnOnce()) -> Seen {
    let done = AtomicBool::new(false);
    let client = || {
        let mut seen = Seen::default();
        while !done.load(Ordering::Relaxed) {
            seen.connections += 1;
            match TlsClient::named(host)
                .trusting(root)
                .try_connect(gateway.https)
            {
                Ok(mut stream) => {
                    let serial = serial(&stream.certificate());
                    let response = stream.get(host, "/");
                    let pair = (serial, response.text());
                    if response.status != 200 {
                        seen.failures.push(format!("{response:?}"));
                    }
                    if seen.pairs.last() != Some(&pair) {
                        seen.pairs.push(pair);
                    }
                }
                Err(error) => seen.failures.push(error),
            }
        }
        seen
    };
    thread::scope(|scope| {
        let clients = [scope.spawn(client), scope.spawn(client)];
        // The clients are let go even where the work fails.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in clients {
            let seen = client.join().expect("a client");
            all.connections += seen.connections;
            all.failures.extend(seen.failures);
            all.pairs.extend(seen.pairs);
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(all.connections > 0);
        assert_eq!(all.failures, Vec::<String>::new());
        all
    })
}

/// Replaces a symbolic link at once.
fn turn(link: &Path, target: &str) {
    let name = link.file_name().expect("a name").to_string_lossy();
    let fresh = link.with_file_name(format!(".turning-{name}"));
    symlink(target, &fresh).expect("linked");
    fs::rename(&fresh, link).expect("turned");
}

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

/// The volume that Kubernetes mounts for a ConfigMap or Secret, and how it changes it.
struct Volume<'a>(&'a Path);

impl Volume<'_> {
    fn publish(&self, version: &str, files: &[(&str, &str)]) {
        let Self(directory) = self;
        let fresh = directory.join(format!("..{version}"));
        fs::create_dir_all(&fresh).expect("made");
        for (name, text) in files {
            fs::write(fresh.join(name), text).expect("written");
        }
        turn(&directory.join("..data"), &format!("..{version}"));
        for (name, _) in files {
            let link = directory.join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).expect("linked");
            }
        }
        for old in fs::read_dir(directory).expect("a directory").flatten() {
            let name = old.file_name().to_string_lossy().into_owned();
            if name.starts_with("..") && name != "..data" && name != format!("..{version}") {
                fs::remove_dir_all(old.path()).expect("removed");
            }
        }
    }
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
fn a_hangup_and_the_command_reload_at_once() {
    let (mut gateway, _) = gateway();
    assert_eq!(reloads(&gateway, "ok"), 0.0);
    gateway.signal(Signal::SIGHUP);
    wait_for("the reload", || {
        (reloads(&gateway, "ok") == 1.0).then_some(())
    });
    let admin = gateway.admin.to_string();
    let reload = || snigate(&["reload", "--admin", &admin]);
    let printed = reload();
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(printed.stdout, "");
    assert!(
        printed.stderr.contains("1 site, 1 certificate"),
        "{printed:?}"
    );

    // What was written before is in force when it returns.
    for round in 0..5 {
        gateway.replace_config(config(&format!("round {round}")));
        assert_eq!(reload().code, Some(0));
        assert_eq!(body(&gateway, "a.example"), Ok(format!("round {round}")));
    }
    gateway.replace_config("sites:\n  - hosts: [a.example]\n    upstraem: app\n");
    let printed = reload();
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(3), ""));
    let place = format!("{}:", gateway.config.display());
    assert!(printed.stderr.starts_with(&place), "{printed:?}");
    assert!(
        printed.stderr.contains("did you mean 'upstream'?"),
        "{printed:?}"
    );
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("round 4"));
    gateway.kill();
    assert_eq!(reload().code, Some(1));
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_told_once() {
    let (mut gateway, ca) = gateway();
    let text = fs::read_to_string(&gateway.config).expect("readable");
    let line = text
        .lines()
        .position(|line| line.starts_with("certificates"))
        .expect("there")
        + 1;
    let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
        gateway_refuses(
            &gateway,
            &text.replace("directory: certs", "directry: certs"),
            line,
        );
    });
    assert!(seen.pairs.iter().all(|(_, body)| body == "one"), "{seen:?}");
    // Certificates go on being looked after while the configuration is bad.
    let renewed = ca.leaf(&["a.example"]).valid(-1, 100).make();
    renewed.write(&gateway.dir().join("certs"), "a.example");
    wait_for("the renewed certificate", || {
        presents(&gateway, "a.example", &renewed).then_some(())
    });
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("one"));
    let told = |gateway: &Gateway| lines_with(gateway, &["ERROR", "refused"]).len();
    assert_eq!(told(&gateway), 1, "{}", gateway.log());
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(0.0)
    );

    gateway.replace_config(config("two"));
    wait_for_body(&gateway, "a.example", "two");
    assert_eq!(
        gateway.metric("snigate_config_last_reload_successful"),
        Some(1.0)
    );
    assert_eq!(
        (reloads(&gateway, "ok"), reloads(&gateway, "refused")),
        (1.0, 1.0)
    );
}

fn gateway_refuses(gateway: &Gateway, text: &str, line: usize) {
    gateway.write("snigate.yaml", text);
    gateway.wait_for_log("did you mean 'directory'?");
    let place = format!("{}:{line}:", gateway.config.display());
    let told = lines_with(gateway, &["ERROR", "did you mean 'directory'?", &place]);
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn sites_and_directories_come_and_go() {
    let (mut gateway, ca) = gateway();
    let more = gateway.dir().join("more");
    let wanted = format!(
        "certificates: [{{ directory: certs }}, {{ directory: more }}]\nsites:\n{}{}",
        site("a.example", "one"),
        site("b.example", "two")
    );
    // The directory is not there yet: the site is taken, and told to lack a certificate.
    gateway.replace_config(&wanted);
    gateway.wait_for_log("cannot be listed");
    wait_for("readiness to go", || {
        let answer = gateway.ask("GET", "/readyz");
        (answer.status == 503 && answer.text().contains("b.example")).then_some(())
    });
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("one"));
    let pair = ca.leaf(&["b.example"]).make();
    pair.write(&more, "b.example");
    wait_for_body(&gateway, "b.example", "two");
    gateway.wait_until_ready();

    // A connection that is open when its site goes is told so, not answered by another.
    let mut open = TlsClient::named("b.example").connect(gateway.https);
    assert_eq!(open.get("b.example", "/").text(), "two");
    gateway.replace_config(config("three"));
    wait_for_body(&gateway, "a.example", "three");
    let refused = body(&gateway, "b.example");
    assert!(refused.is_err_and(|error| error.contains("unrecognized name")));
    assert_eq!(open.get("b.example", "/").status, 421);
    assert_eq!(
        gateway.metric("snigate_certificates{source=\"directory\"}"),
        Some(1.0)
    );

    // A file of a directory, too.
    pair.write(&gateway.dir().join("certs"), "b.example");
    wait_for("the certificate", || {
        presents(&gateway, "b.example", &pair).then_some(())
    });
    fs::remove_file(gateway.dir().join("certs/b.example.pem")).expect("removed");
    wait_for("it to go", || {
        TlsClient::named("b.example")
            .try_connect(gateway.https)
            .err()
    });
}

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

#[test]
fn what_needs_a_restart_is_named() {
    let (mut gateway, _) = gateway();
    let before = fs::read_to_string(&gateway.config).expect("readable");
    let port = crate::support::Port::take();
    let mut text = before.replace(
        &format!("https: [\"{}\"]", gateway.https),
        &format!("https: [\"{}\", \"{}\"]", gateway.https, port.address()),
    );
    text = text.replace("  grace_period", "  threads: 3\n  grace_period");
    text = text.replace("\"one\"", "\"two\"");
    gateway.write("snigate.yaml", &text);
    let printed = snigate(&["reload", "--admin", &gateway.admin.to_string()]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let told = printed.stderr.contains("server.https") && printed.stderr.contains("server.threads");
    assert!(told && printed.stderr.contains("restart"), "{printed:?}");
    // The rest is in force, and so are the old listeners.
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("two"));
    assert!(std::net::TcpStream::connect(port.address()).is_err());
    let (status, summary) = gateway.reload();
    assert_eq!(status, 200);
    let keys = summary["restart_needed"].to_string();
    assert!(
        keys.contains("server.https") && keys.contains("server.threads"),
        "{summary}"
    );
    let log = lines_with(&gateway, &["WARN", "server.https"]);
    assert!(!log.is_empty(), "{}", gateway.log());

    gateway.write("snigate.yaml", &before);
    let (_, summary) = gateway.reload();
    assert_eq!(
        summary["restart_needed"],
        serde_json::json!([]),
        "as it was at the start"
    );
    gateway.write("snigate.yaml", &text);
    drop(port);
    gateway.restart();
    let (_, summary) = gateway.reload();
    assert_eq!(summary["restart_needed"], serde_json::json!([]));
}

#[test]
fn the_log_changes_its_format_while_it_runs() {
    let (gateway, _) = gateway();
    let before = fs::read_to_string(&gateway.config).expect("readable");
    for (format, begins) in [("json", "{\"timestamp\""), ("text", "20")] {
        let told = gateway.log().len();
        let text = format!("{before}log: {{ format: {format}, access: off }}\n");
        gateway.write("snigate.yaml", &text);
        let (status, summary) = gateway.reload();
        assert_eq!(
            (status, &summary["restart_needed"]),
            (200, &serde_json::json!([]))
        );
        let line = wait_for("the reload in the log", || {
            let log = gateway.log().split_off(told);
            // Noticing the change by itself, it may have reloaded before it was asked to.
            let mut lines = log.lines().filter(|line| line.starts_with(begins));
            let line = lines.find(|line| line.contains("configuration reloaded"));
            line.map(str::to_owned)
        });
        if format == "json" {
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(line["message"], "configuration reloaded");
            assert_eq!(
                (&line["level"], &line["sites"]),
                (&"INFO".into(), &1.into())
            );
        }
    }
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

/// The pair of one generation, and the configuration that names it and answers with its number.
fn generation(gateway: &Gateway, ca: &Ca, number: u32) -> String {
    let pair = ca.leaf(&["a.example", "b.example"]).serial(number).make();
    pair.write(&gateway.dir().join("generations"), &number.to_string());
    generation_config(number)
}

fn generation_config(number: u32) -> String {
    let files = format!("generations/{number}");
    format!(
        "certificates: [{{ files: {{ cert: {files}.pem, key: {files}.key }} }}]\nsites:\n{}{}",
        site("a.example", &number.to_string()),
        site("b.example", &number.to_string())
    )
}

/// In decimal digits.
fn serial(certificate: &X509) -> String {
    let serial = certificate.serial_number().to_bn().expect("a number");
    serial.to_dec_str().expect("a number").to_string()
}

/// Many sites beside `a.example`, so that reading them takes its time.
fn long(body: &str, certificate: &str) -> String {
    let mut text = format!(
        "certificates: [{{ files: {{ cert: {certificate}.pem, key: {certificate}.key }} }}]\nsites:\n{}",
        site("a.example", body)
    );
    for number in 0..1000 {
        let host = format!("plain{number}.example");
        text.push_str(&format!(
            "  - {{ hosts: [{host}], tls: off, routes: [{{ respond: {{ body: x }} }}] }}\n"
        ));
    }
    text
}

/// How long after its beginning a reload is met, in parts of a whole one.
const MOMENTS: u32 = 5;

#[test]
fn a_change_during_a_reload_is_not_lost() {
    let builder = Gateway::builder();
    let ca = Ca::new("Lost Root");
    ca.leaf(&["a.example"]).make().write(builder.dir(), "a");
    let mut gateway = builder.config(long("0", "a")).start();
    let start = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    let whole = start.elapsed();
    for moment in 1..=MOMENTS {
        gateway.replace_config(long("before", "a"));
        // The change of the file begins a reload of its own, which is not the one to meet.
        wait_for_body(&gateway, "a.example", "before");
        let config = fs::read_to_string(&gateway.config).expect("readable");
        let wanted = moment.to_string();
        thread::scope(|scope| {
            let reload = scope.spawn(|| gateway.reload());
            thread::sleep(whole * moment / MOMENTS);
            gateway.write("snigate.yaml", &config.replacen("before", &wanted, 1));
            assert_eq!(reload.join().expect("an answer").0, 200);
        });
        wait_for_body(&gateway, "a.example", &wanted);
    }
}

#[test]
fn a_volume_with_configuration_and_certificates_changes_as_one() {
    let builder = Gateway::builder();
    let ca = Ca::new("One Root");
    let volume = builder.dir().join("volume");
    let publish = |number: u32| {
        let pair = ca.leaf(&["a.example"]).serial(number).make();
        Volume(&volume).publish(
            &number.to_string(),
            &[
                ("sites.yaml", &long(&number.to_string(), "tls")),
                ("tls.pem", &pair.chain),
                ("tls.key", &pair.key),
            ],
        );
    };
    publish(1);
    let gateway = builder.config("include: [\"volume/*.yaml\"]\n").start();
    let start = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    let whole = start.elapsed();
    let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
        for moment in 1..=MOMENTS {
            let number = moment + 1;
            thread::scope(|scope| {
                let reload = scope.spawn(|| gateway.reload());
                thread::sleep(whole * moment / MOMENTS);
                publish(number);
                assert_eq!(reload.join().expect("an answer").0, 200);
            });
            wait_for_body(&gateway, "a.example", &number.to_string());
        }
    });
    let mixed: Vec<_> = seen
        .pairs
        .iter()
        .filter(|(serial, body)| serial != body)
        .collect();
    assert_eq!(mixed, Vec::<&(String, String)>::new());
}

const RELOADS: u32 = 200;

#[test]
fn two_hundred_reloads_under_load_lose_nothing_and_mix_nothing() {
    let start = Instant::now();
    let builder = Gateway::builder();
    let ca = Ca::new("Load Root");
    ca.leaf(&["a.example", "b.example"])
        .serial(1)
        .make()
        .write(&builder.dir().join("generations"), "1");
    let root_file = ca.write(builder.dir());
    let mut gateway = builder.config(generation_config(1)).start();
    let done = AtomicBool::new(false);
    let (newest, connections, requests) =
        (AtomicU32::new(1), AtomicUsize::new(0), AtomicUsize::new(0));
    let (https, root, curl) = (
        gateway.https,
        ca.certificate(),
        gateway.curl("a.example", ""),
    );
    drop(curl);
    let goes_on = || !done.load(Ordering::Relaxed);

    // New connections all along: each sees one generation, and no client sees time run back.
    let reconnecting = |host: &'static str| {
        let mut last = 0;
        while goes_on() {
            let client = TlsClient::named(host).trusting(root);
            let mut stream = client.try_connect(https).expect("no handshake fails");
            let of_certificate = serial(&stream.certificate());
            let response = stream.get(host, "/");
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(of_certificate, response.text(), "of one state");
            let of_body: u32 = response.text().parse().expect("a number");
            assert!(of_body >= last, "{last}, then {of_body}");
            last = of_body;
            newest.fetch_max(of_body, Ordering::Relaxed);
            connections.fetch_add(1, Ordering::Relaxed);
        }
    };
    // One connection for all the time.
    let staying = || {
        let mut stream = TlsClient::named("a.example").trusting(root).connect(https);
        let mut last = 0;
        while goes_on() {
            let response = stream.get("a.example", "/");
            assert_eq!(response.status, 200, "{response:?}");
            let number: u32 = response.text().parse().expect("a number");
            assert!(number >= last, "{last}, then {number}");
            last = number;
            requests.fetch_add(1, Ordering::Relaxed);
        }
        assert!(last > RELOADS / 2, "it sees the new routes: {last}");
    };
    // HTTP/2 by curl, many requests on each connection, some at once.
    let by_http2 = || {
        let mut rounds = 0;
        while goes_on() {
            let url = format!("https://b.example:{}/?[1-300]", https.port());
            let output = std::process::Command::new("curl")
                .args([
                    "--disable",
                    "--silent",
                    "--show-error",
                    "--http2",
                    "--max-time",
                    "30",
                ])
                .args(["--parallel", "--parallel-max", "4", "--noproxy", "*"])
                .args([
                    "--write-out",
                    " %{http_code} %{http_version} %{num_connects}\n",
                ])
                .arg("--resolve")
                .arg(format!("b.example:{}:{}", https.port(), https.ip()))
                .arg("--cacert")
                .arg(&root_file)
                .arg(url)
                .output()
                .expect("curl is installed");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {complaint}", output.status);
            let good = said.lines().filter(|line| line.contains(" 200 2 ")).count();
            assert_eq!(good, 300, "{said}");
            requests.fetch_add(good, Ordering::Relaxed);
            rounds += 1;
        }
        assert!(rounds > 0);
    };

    thread::scope(|scope| {
        let clients = [
            scope.spawn(|| reconnecting("a.example")),
            scope.spawn(|| reconnecting("b.example")),
            scope.spawn(staying),
            scope.spawn(by_http2),
        ];
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 2..=RELOADS + 1 {
                let text = generation(&gateway, &ca, number);
                gateway.replace_config(text);
                match number % 3 {
                    0 => assert_eq!(gateway.reload().0, 200),
                    1 => gateway.signal(Signal::SIGHUP),
                    // Twice in a row, and once more for the change of the file.
                    _ => {
                        gateway.signal(Signal::SIGHUP);
                        assert_eq!(gateway.reload().0, 200);
                    }
                }
                wait_for("a client to see it", || {
                    let seen = newest.load(Ordering::Relaxed) >= number;
                    let all_run = clients.iter().all(|client| !client.is_finished());
                    (seen || !all_run).then_some(())
                });
                if number > 3 {
                    let old = gateway.dir().join(format!("generations/{}", number - 3));
                    let _ = fs::remove_file(old.with_extension("pem"));
                    let _ = fs::remove_file(old.with_extension("key"));
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client that saw no failure");
        }
        outcome.expect("every reload is taken");
    });
    assert_eq!(newest.into_inner(), RELOADS + 1);
    let (connections, requests) = (connections.into_inner(), requests.into_inner());
    assert!(
        connections >= 200 && requests >= 500,
        "{connections}, {requests}"
    );
    assert!(reloads(&gateway, "ok") >= f64::from(RELOADS));
    assert_eq!(reloads(&gateway, "refused"), 0.0);
    let failed = "snigate_tls_handshakes_total{group=\"none\",resumed=\"false\",\
                  result=\"failed\",version=\"none\"}";
    assert_eq!(gateway.metric(failed).unwrap_or(0.0), 0.0);
    assert_eq!(lines_with(&gateway, &["ERROR"]), Vec::<String>::new());
    eprintln!(
        "{connections} connections, {requests} requests in {:?}",
        start.elapsed()
    );
}
