//! A storage that cannot be read, or takes nothing more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::AT_FDCWD;

use super::{
    RETRY, SECOND, accounts_made, command, config, only_file, orders, pebble_for, pebble_issuer,
    presented, root, serial, stored_at, wait_until_served,
};
use crate::support::{Gateway, Pebble, TlsClient, within};

#[test]
fn a_full_disk_stops_nothing() {
    let builder = Gateway::builder().disk();
    let pebble = pebble_for(&builder).validity(20).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let first = serial(&wait_until_served(&gateway, "a.test", &root));
    gateway.wait_until_ready();
    let file = stored_at(&gateway.dir().join("data"), &pebble.directory(), "a.test");
    let stored = fs::read(&file).expect("stored");

    gateway.fill_disk(true);
    let second = within(RETRY, "a renewal", || {
        let now = serial(&presented(&gateway, "a.test"));
        (now != first).then_some(now)
    });
    let failed = gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    assert_eq!(failed.severity, "critical", "{failed:?}");
    assert_eq!(
        fs::read(&file).expect("stored"),
        stored,
        "the old one is whole"
    );
    wait_until_served(&gateway, "a.test", &root);

    gateway.fill_disk(false);
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    within(RETRY, "the new one to be stored", || {
        let now = fs::read(&file).expect("stored");
        (now != stored).then_some(())
    });
    let third = openssl::x509::X509::from_pem(&fs::read(&file).expect("stored"));
    let third = serial(&third.expect("a certificate"));
    assert_ne!(third, first);
    eprintln!("memory {second}, stored {third}");
    // A restart finds it.
    gateway.restart();
    wait_until_served(&gateway, "a.test", &root);
}

/// Makes a file or a directory such that nobody can read it, root neither.
fn hide(path: &Path) {
    fs::rename(path, path.with_extension("hidden")).expect("ours");
    symlink(path, path).expect("a link to itself");
}

fn show(path: &Path) {
    fs::remove_file(path).expect("ours");
    fs::rename(path.with_extension("hidden"), path).expect("ours");
}

/// How many orders and accounts the CA has made.
fn made(pebble: &Pebble) -> (usize, usize) {
    (orders(pebble), accounts_made(pebble))
}

#[test]
fn an_unusable_storage_at_the_start_keeps_orders_waiting() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let data = builder.dir().join("data");
    fs::write(&data, "a file where the directory should be").expect("ours");
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let failed = gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    assert_eq!(failed.severity, "critical", "{failed:?}");
    assert!(failed.message.contains("data"), "{failed:?}");
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(reason.contains("cannot be read"), "{reason}");
    assert_eq!(made(&pebble), (0, 0));

    fs::remove_file(&data).expect("ours");
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    let root = root(&pebble);
    let served = wait_until_served(&gateway, "a.test", &root);
    let file = stored_at(&data, &pebble.directory(), "a.test");
    within(RETRY, "it to be stored", || {
        let stored = openssl::x509::X509::from_pem(&fs::read(&file).ok()?).ok()?;
        (serial(&stored) == serial(&served)).then_some(())
    });
    gateway.restart();
    assert_eq!(serial(&presented(&gateway, "a.test")), serial(&served));
    assert_eq!(made(&pebble), (1, 1));
}

#[test]
fn a_storage_that_cannot_be_read_at_the_start_is_not_taken_for_an_empty_one() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let hosts = ["a.test", "b.test"];
    let mut gateway = builder.config(config(&issuer, &hosts)).start();
    let first = hosts.map(|host| serial(&presented(&gateway, host)));
    assert_eq!(made(&pebble), (2, 1));
    assert!(gateway.stop().success());

    let data = gateway.dir().join("data");
    hide(&data);
    for _ in 0..3 {
        gateway.restart_unready();
        for host in hosts {
            let reason = gateway.wait_until_waiting_for(host);
            assert!(reason.contains("cannot be read"), "{reason}");
            assert!(reason.contains("data/"), "{reason}");
        }
    }
    // It is read again and again, and says so once.
    let begun = Instant::now();
    within(RETRY, "some more looks", || {
        (begun.elapsed() > 12 * SECOND).then_some(())
    });
    assert_eq!(made(&pebble), (2, 1));
    show(&data);
    let begun = Instant::now();
    gateway.wait_until_ready();
    assert!(begun.elapsed() < 15 * SECOND, "{:?}", begun.elapsed());
    for (host, first) in hosts.into_iter().zip(first) {
        assert_eq!(serial(&presented(&gateway, host)), first);
    }
    assert_eq!(made(&pebble), (2, 1));
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    let told = gateway.log().matches("storage_failed").count();
    assert_eq!(told, 3, "once for each start");
}

#[test]
fn what_cannot_be_read_holds_up_nothing_else() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let hosts = ["a.test", "b.test", "c.test"];
    let mut gateway = builder.config(config(&issuer, &hosts)).start();
    let first = serial(&presented(&gateway, "a.test"));
    assert_eq!(made(&pebble), (3, 1));
    assert!(gateway.stop().success());

    let data = gateway.dir().join("data");
    let certificate = stored_at(&data, &pebble.directory(), "a.test");
    let accounts = data.join("accounts");
    hide(&certificate);
    hide(&accounts);
    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test", "d.test"]));
    gateway.restart_unready();
    let root = root(&pebble);
    for host in ["b.test", "c.test"] {
        wait_until_served(&gateway, host, &root);
    }
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(reason.contains("cannot be read"), "{reason}");
    // What failed, and where, is shown to whoever looks.
    let place = certificate.file_name().expect("a name").to_string_lossy();
    let shown = command(&gateway, &["certs", "show", "a.test"]).stdout;
    assert!(shown.contains("it may hold this certificate"), "{shown}");
    assert!(shown.contains(&*place), "{shown}");
    let listed = command(&gateway, &["certs", "list"]).stdout;
    let of = |host: &str| {
        let line = listed.lines().find(|line| line.starts_with(host));
        line.unwrap_or_else(|| panic!("{listed}")).to_owned()
    };
    let is_unread = |host: &str| of(host).contains("(storage cannot be read)");
    assert!(is_unread("a.test") && !is_unread("b.test"), "{listed}");
    // A new name needs an account, and one may be there.
    let failed = gateway.wait_for_event("d", |event| event.is("certificate_failed", "d.test"));
    assert!(failed.message.contains("accounts"), "{failed:?}");
    assert_eq!(made(&pebble), (3, 1));

    show(&accounts);
    wait_until_served(&gateway, "d.test", &root);
    assert_eq!(made(&pebble), (4, 1));
    show(&certificate);
    assert_eq!(serial(&wait_until_served(&gateway, "a.test", &root)), first);
    let shown = command(&gateway, &["certs", "show", "a.test"]).stdout;
    assert!(!shown.contains("it may hold this certificate"), "{shown}");
    assert_eq!(made(&pebble), (4, 1));
}

#[test]
fn a_storage_that_goes_away_while_it_runs() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let first = serial(&wait_until_served(&gateway, "a.test", &root));
    gateway.wait_until_ready();
    let data = gateway.dir().join("data");
    let away = gateway.dir().join("away");
    // As where it is unmounted: an empty directory is left.
    fs::rename(&data, &away).expect("ours");
    fs::create_dir(&data).expect("ours");
    // Something new comes meanwhile: another instance may have it.
    gateway.replace_config(config(&issuer, &["a.test", "b.test"]));
    assert_eq!(gateway.reload().0, 200);
    let reason = gateway.wait_until_waiting_for("b.test");
    assert!(reason.contains("is gone or empty"), "{reason}");
    assert_eq!(serial(&presented(&gateway, "a.test")), first);
    gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    assert_eq!(made(&pebble), (1, 1));
    let left = fs::read_dir(&data).expect("ours").count();
    assert_eq!(left, 0, "nothing is made below the mount point");
    let change = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
    nix::fcntl::renameat2(AT_FDCWD, &away, AT_FDCWD, &data, change).expect("ours");
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    wait_until_served(&gateway, "b.test", &root);
    let file = stored_at(&data, &pebble.directory(), "b.test");
    within(RETRY, "it to be stored", || file.exists().then_some(()));
    assert_eq!(made(&pebble), (2, 1));
}

#[test]
fn what_waits_for_the_storage_is_stored_at_a_stop() {
    let builder = Gateway::builder().disk();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let plain = "  - { hosts: [plain.test], tls: off, routes: [{ respond: { body: x } }] }\n";
    let with = |hosts: &[&str]| format!("{}{plain}", config(&issuer, hosts));
    let mut gateway = builder.config(with(&[])).start();
    gateway.fill_disk(true);
    gateway.replace_config(with(&["a.test"]));
    assert_eq!(gateway.reload().0, 200);
    let root = root(&pebble);
    let served = serial(&wait_until_served(&gateway, "a.test", &root));
    gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    let data = gateway.dir().join("data");
    let file = stored_at(&data, &pebble.directory(), "a.test");
    assert!(!file.exists());

    gateway.fill_disk(false);
    assert!(gateway.stop().success());
    let stored = openssl::x509::X509::from_pem(&fs::read(&file).expect("stored"));
    assert_eq!(serial(&stored.expect("a certificate")), served);
    only_file(&gateway, "accounts");
    gateway.restart();
    assert_eq!(serial(&presented(&gateway, "a.test")), served);
    gateway.replace_config(with(&["a.test", "b.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "b.test", &root);
    assert_eq!(made(&pebble), (2, 1), "no account and no order twice");
}

#[test]
fn damaged_files_are_set_aside_and_told() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).start();
    assert!(gateway.stop().success());
    let data = gateway.dir().join("data");
    let account = only_file(&gateway, "accounts");
    let aside = |path: &Path, number: u32| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".damaged-{number}"));
        fs::read_to_string(aside).expect("set aside")
    };

    // Cut off where its key is whole, as by a disk that was full at a crash.
    let whole = fs::read_to_string(&account).expect("there");
    let torn = whole.split("\"contacts\"").next().expect("a beginning");
    fs::write(&account, torn).expect("ours");
    let others = [
        data.join("retry/b.test.json"),
        data.join(format!("limits/{}.json", ca_of(&account))),
    ];
    for path in &others {
        fs::create_dir_all(path.parent().expect("a directory")).expect("ours");
        fs::write(path, "{").expect("ours");
    }
    gateway.replace_config(config(&issuer, &["a.test", "b.test"]));
    gateway.restart();
    assert_eq!(made(&pebble), (2, 1), "the account is used on");
    assert_eq!(aside(&account, 1), torn);
    for path in &others {
        assert_eq!(aside(path, 1), "{");
        gateway.wait_for_log(&path.display().to_string());
    }
    let path = account.display().to_string();
    let told = gateway.wait_for_event("the account", |event| event.message.contains(&path));
    assert_eq!((&*told.kind, &*told.severity), ("storage_failed", "error"));

    // Nothing is left of it.
    assert!(gateway.stop().success());
    fs::write(&account, "").expect("ours");
    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test"]));
    gateway.restart();
    assert_eq!(made(&pebble), (3, 2));
    assert_eq!(aside(&account, 2), "");
    assert_eq!(aside(&account, 1), torn, "and what was before stays");
    assert!(
        fs::read_to_string(&account)
            .expect("stored")
            .contains("key_pkcs8")
    );
}

/// The CA of a file in the storage.
fn ca_of(path: &Path) -> String {
    let ca = path
        .parent()
        .and_then(Path::file_name)
        .expect("a directory");
    ca.to_string_lossy().into_owned()
}

#[test]
fn certificates_may_stay_in_the_storage_until_somebody_asks() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let hosts = ["a.test", "b.test"];
    let text = format!("certificates_in_memory: cache\n{}", config(&issuer, &hosts));
    let mut gateway = builder.config(text).spawn();
    let root = root(&pebble);
    for host in hosts {
        wait_until_served(&gateway, host, &root);
    }
    gateway.wait_until_ready();
    let before = orders(&pebble);
    gateway.restart();
    gateway.wait_until_ready();
    let first = serial(&wait_until_served(&gateway, "a.test", &root));
    assert_eq!(orders(&pebble), before);

    // What was asked for is there, the other one is where it was left.
    for host in hosts {
        let file = stored_at(&gateway.dir().join("data"), &pebble.directory(), host);
        fs::rename(&file, file.with_extension("away")).expect("ours");
    }
    assert_eq!(serial(&presented(&gateway, "a.test")), first);
    let error = TlsClient::named("b.test").try_connect(gateway.https);
    assert!(error.is_err(), "it cannot be had");
    gateway.wait_for_log("no longer in the storage");
    let file = stored_at(&gateway.dir().join("data"), &pebble.directory(), "b.test");
    fs::rename(file.with_extension("away"), &file).expect("ours");
    wait_until_served(&gateway, "b.test", &root);
}
