//! A storage that cannot be read, or takes nothing more.

use std::fs;

use nix::fcntl::AT_FDCWD;

use super::support::{Gateway, TlsClient, within};
use super::{
    RETRY, config, pebble_for, pebble_issuer, presented, root, serial, stored_at, wait_until_served,
};

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

#[test]
fn an_unusable_storage_at_the_start_stops_nothing() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let data = builder.dir().join("data");
    fs::write(&data, "a file where the directory should be").expect("ours");
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let served = wait_until_served(&gateway, "a.test", &root);
    let failed = gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    assert_eq!(failed.severity, "critical", "{failed:?}");
    assert!(failed.message.contains("data"), "{failed:?}");

    fs::remove_file(&data).expect("ours");
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    let file = stored_at(&data, &pebble.directory(), "a.test");
    within(RETRY, "it to be stored", || {
        let stored = openssl::x509::X509::from_pem(&fs::read(&file).ok()?).ok()?;
        (serial(&stored) == serial(&served)).then_some(())
    });
    let orders = super::orders(&pebble);
    gateway.restart();
    assert_eq!(serial(&presented(&gateway, "a.test")), serial(&served));
    assert_eq!(super::orders(&pebble), orders);
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
    fs::rename(&data, &away).expect("ours");
    fs::write(&data, "").expect("ours");
    // Something new comes meanwhile.
    gateway.replace_config(config(&issuer, &["a.test", "b.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "b.test", &root);
    assert_eq!(serial(&presented(&gateway, "a.test")), first);
    gateway.wait_for_event("storage", |event| event.kind == "storage_failed");
    // In one go: the gateway makes the directory where it is not there.
    let change = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
    nix::fcntl::renameat2(AT_FDCWD, &away, AT_FDCWD, &data, change).expect("ours");
    gateway.wait_for_event("recovered", |event| event.kind == "storage_recovered");
    let file = stored_at(&data, &pebble.directory(), "b.test");
    within(RETRY, "it to be stored", || file.exists().then_some(()));
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
    let orders = super::orders(&pebble);
    gateway.restart();
    gateway.wait_until_ready();
    let first = serial(&wait_until_served(&gateway, "a.test", &root));
    assert_eq!(super::orders(&pebble), orders);

    // What was asked for is at hand, the other one is where it was left.
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
