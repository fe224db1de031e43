//! What CAs are known to refuse: invalid names, and too many names.

use super::acme::{configured, odd};
use super::*;

#[test]
fn names_that_no_ca_takes_are_told_at_their_place() {
    for name in [
        "-a.example.com",
        "a-.example.com",
        "xn--a.example.com",
        "ab--c.example.com",
    ] {
        for directory in ["letsencrypt", "https://ca.example.com/dir"] {
            let text = configured(&format!("directory: \"{directory}\""));
            let text = text.replace("www.example.com", name);
            assert_eq!(odd(&text), ["sites[0].hosts[0]"], "{name} {directory}");
            let certificate = format!("certificates: [{{ names: [\"*.{name}\"], dns: d }}]\n");
            let dns = "dns: { d: { exec: { command: [/bin/x] } } }\n";
            let site = text.replace(name, "other.example.com");
            let odd = odd(&format!("{dns}{certificate}{site}"));
            assert!(
                odd.contains(&"certificates[0].names[0]".to_owned()),
                "{odd:?}"
            );
        }
        // A certificate from a local CA may be for anything.
        let own = "issuers: { a: { local_ca: } }\n\
                   sites: [{ hosts: [NAME], tls: a, routes: [{ respond: {} }] }]\n";
        assert_eq!(accept(&own.replace("NAME", name)).warnings, [], "{name}");
    }
    assert_eq!(
        odd(&configured("").replace("www", "xn--bcher-kva")),
        [""; 0]
    );
}

#[test]
fn more_names_than_a_ca_takes_are_told_at_their_place() {
    let with = |directory: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("n{n}.example.com")).collect();
        format!(
            "certificates: [{{ names: [{}] }}]\n{}",
            names.join(", "),
            configured(&format!("directory: \"{directory}\""))
        )
    };
    let private = "https://ca.example.com/dir";
    for directory in ["letsencrypt", private] {
        assert_eq!(odd(&with(directory, 100)), [""; 0]);
    }
    assert_eq!(odd(&with(private, 101)), ["certificates[0].names"]);
    let refused = refuse(&with("letsencrypt", 101));
    let refused = refused.errors().next().expect("an error");
    assert_eq!(refused.path, "certificates[0].names");
    assert!(refused.message.contains("101 names"), "{refused}");
}
