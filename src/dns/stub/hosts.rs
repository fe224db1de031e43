//! The names that the system does not ask the DNS about (hosts(5)).

use crate::host::HostName;

const FILE: &str = "/etc/hosts";

/// Whether the system knows a name from its file.
pub(super) async fn is_listed(name: &HostName) -> bool {
    let text = tokio::fs::read_to_string(FILE).await.unwrap_or_default();
    lists(&text, name)
}

fn lists(text: &str, name: &HostName) -> bool {
    text.lines().any(|line| {
        let entry = line.split('#').next().unwrap_or_default();
        let mut names = entry.split_whitespace().skip(1);
        names.any(|one| {
            let one = one.strip_suffix('.').unwrap_or(one);
            one.eq_ignore_ascii_case(name.as_str())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_file() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 old.internal\n\
                    10.0.0.2\tApp.Internal app # db.internal\n2001:db8::1 six.internal.\n";
        let lists = |name: &str| lists(text, &name.parse().expect("a name"));
        for name in ["localhost", "app.internal", "app", "six.internal"] {
            assert!(lists(name), "{name}");
        }
        for name in ["old.internal", "db.internal", "internal", "p.internal"] {
            assert!(!lists(name), "{name}");
        }
    }
}
