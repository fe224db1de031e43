//! Mail, from the event to the mail server.

use std::time::Instant;

use super::*;
use crate::support::{Act, Builder, CaReply, FakeCa, MailServer, OnMail, PATIENCE, ROOT, within};

const PASSWORD: &str = "hunter2-hunter2";

/// A gateway to be, with the root of the mail server in its directory.
fn builder() -> Builder {
    let builder = Gateway::builder();
    std::fs::write(builder.dir().join("root.pem"), ROOT.pem()).expect("a file");
    builder
}

fn server(on_mail: OnMail) -> MailServer {
    MailServer::start(&ROOT.leaf(&["localhost"]).make(), on_mail)
}

/// An entry that sends mail over this server, with more keys of the entry and of its recipient.
fn mail(server: &MailServer, on: &str, more: &str, more_of_mail: &str) -> String {
    let place = server.place();
    format!(
        "- {{ on: [{on}], {more}, mail: {{ server: \"{place}\", from: \"Gateway <gw@example.com>\", \
         to: [ops@example.com], user: snigate, password: {PASSWORD}, ca_file: root.pem\
         {more_of_mail} }} }}\n"
    )
}

/// The value of a field of a mail's head, unfolded.
fn field(mail: &str, name: &str) -> String {
    let (head, _) = mail.split_once("\n\n").expect("a head and a text");
    let head = head.replace("\n ", " ");
    let mut lines = head.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("{name}: {mail}")).to_owned()
}

#[test]
fn a_trouble_and_its_end_are_mailed_over_starttls() {
    let server = server(OnMail::Take);
    let events = mail(&server, "config_rejected", "digest: 0s", "");
    let mut gateway = builder().config(config(&events)).start();
    gateway.replace_config(format!("{WRONG}events:\n{events}"));
    wait_for("a refusal", || (gateway.reload().0 == 400).then_some(()));
    let first = server.wait_for_mails(1).remove(0);
    assert_eq!(field(&first, "From"), "Gateway <gw@example.com>");
    assert_eq!(field(&first, "To"), "ops@example.com");
    assert!(field(&first, "Subject").ends_with("error: config rejected"));
    assert!(first.contains("did you mean 'upstream'?"), "{first}");
    gateway.replace_config(config(&events));
    wait_for("a reload", || (gateway.reload().0 == 200).then_some(()));
    let second = server.wait_for_mails(2).remove(1);
    let subject = field(&second, "Subject");
    assert!(subject.contains("recovered: config reloaded"), "{subject}");
    assert_eq!(field(&second, "References"), field(&first, "References"));
    assert_ne!(field(&second, "Message-ID"), field(&first, "Message-ID"));
    wait_for_deliveries(&gateway, "mail", 2.0);
    for word in server.heard_in_clear() {
        assert!(["EHLO", "STARTTLS"].contains(&&*word), "{word}");
    }
    assert!(!gateway.log().contains(PASSWORD));
}

#[test]
fn a_mail_server_that_hangs_with_the_mail_delays_nobody_and_gets_no_copies() {
    let server = server(OnMail::Hang);
    let other = Origin::start(|_| vec![Act::respond(200, "")]);
    let events = mail(&server, "config_reloaded", "digest: 0s", ", timeout: 1s");
    let events = events + &hook(&other, "config_reloaded", "");
    let mut gateway = builder().config(config(&events)).start();
    gateway.reload();
    gateway.reload();
    wait_for_deliveries(&gateway, "webhook", 2.0);
    gateway.wait_for_log("but may arrive");
    assert_eq!(server.mails().len(), 1);
    assert_eq!(waiting(&gateway, "mail"), 2.0);
    // It is not waited for at a stop either.
    gateway.reload();
    let start = Instant::now();
    assert!(gateway.stop().success());
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[test]
fn an_address_that_is_put_off_keeps_no_other_from_what_is_new() {
    let server = server(OnMail::PutOff);
    let events = mail(&server, "config_rejected", "digest: 0s", "");
    let events = events.replace("[ops@", "[later@example.com, ops@");
    let mut gateway = builder().config(config(&events)).start();
    gateway.replace_config(format!("{WRONG}events:\n{events}"));
    wait_for("a refusal", || (gateway.reload().0 == 400).then_some(()));
    let first = server.wait_for_mails(1).remove(0);
    assert_eq!(field(&first, "To"), "ops@example.com");
    gateway.wait_for_log("later@example.com: transient error (450): the mailbox is full");
    gateway.replace_config(config(&events));
    wait_for("a reload", || (gateway.reload().0 == 200).then_some(()));
    let second = server.wait_for_mails(2).remove(1);
    assert_eq!(field(&second, "To"), "ops@example.com");
    assert!(field(&second, "Subject").contains("recovered"), "{second}");
    assert!(waiting(&gateway, "mail") >= 1.0);
    // It gets all of it, in order and once, also after a restart.
    gateway.restart();
    server.take_all();
    let later = server.wait_for_mails(4).split_off(2);
    for (mail, words) in later.iter().zip(["error: config rejected", "recovered"]) {
        assert_eq!(field(mail, "To"), "later@example.com");
        assert!(field(mail, "Subject").contains(words), "{mail}");
    }
    wait_for("an empty queue", || {
        (waiting(&gateway, "mail") == 0.0).then_some(())
    });
    assert_eq!(server.mails().len(), 4);
}

#[test]
fn a_thousand_orders_that_fail_are_one_mail() {
    let fake = FakeCa::start(|ask| {
        let refusal = CaReply::problem(403, "rejectedIdentifier", "not for these");
        (ask.kind == "order").then_some(refusal)
    });
    let server = server(OnMail::Take);
    let events = mail(&server, "certificate_failed", "digest: 30s", "");
    let names: Vec<String> = (0..1000).map(|number| format!("s{number}.test")).collect();
    let sites = names
        .iter()
        .map(|name| format!("- {{ hosts: [{name}], routes: [{{ respond: {{ body: ok }} }}] }}\n"));
    let yaml = format!(
        "issuers: {{ fake: {{ acme: {{ directory: {:?}, ca_file: {:?}, limit: {{ orders: 10000, per: \
         1s }} }} }} }}\nlog: {{ level: warn, access: off }}\nsites:\n{}events:\n{events}",
        fake.directory(),
        fake.ca_file(),
        sites.collect::<String>()
    );
    let gateway = builder().config(yaml).spawn();
    let failed = || {
        let name = "snigate_certificate_renewals_total{issuer=\"fake\",result=\"failed\"}";
        std::net::TcpStream::connect(gateway.admin).ok()?;
        gateway.metric(name)
    };
    let start = Instant::now();
    within(PATIENCE * 4, "a thousand failures", || {
        failed().filter(|count| *count >= 1000.0)
    });
    eprintln!("a thousand orders have failed after {:?}", start.elapsed());
    let mail = within(PATIENCE * 3, "a mail", || server.mails().pop());
    assert!(mail.len() < 100_000, "{}", mail.len());
    let text = mail.replace("=\n", "");
    assert!(text.contains("1000 certificate failed"), "{text}");
    assert!(text.contains("more reports are not shown"), "{text}");
    wait_for_deliveries(&gateway, "mail", 1.0);
    wait_for("an empty queue", || {
        (waiting(&gateway, "mail") == 0.0).then_some(())
    });
    assert_eq!(server.mails().len(), 1);
}
