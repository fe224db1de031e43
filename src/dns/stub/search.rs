//! The names that the system tries for one that is not complete (resolv.conf(5)).

use crate::dns::lookup::resolvers;
use crate::host::HostName;

/// From so many dots on, the system tries a name as it is first.
const DEFAULT_DOTS: usize = 1;

/// The most that the system accepts.
const MOST_DOTS: usize = 15;

/// The domains that names may be in, and which names are tried in them first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SearchList {
    domains: Vec<String>,
    dots: usize,
}

impl SearchList {
    /// As it is configured now: a machine may move to another network.
    pub(super) async fn of_the_system() -> Self {
        // That it cannot be read is reported when its resolvers are asked.
        Self::parse(&resolvers::read_file().await.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut list = Self {
            domains: Vec::new(),
            dots: DEFAULT_DOTS,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // The last one counts.
                Some("search" | "domain") => list.domains = words.map(str::to_owned).collect(),
                Some("options") => {
                    let mut dots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    list.dots = dots.next_back().unwrap_or(list.dots).min(MOST_DOTS);
                }
                _ => {}
            }
        }
        list
    }

    /// The names to ask for in turn.
    pub(super) fn candidates(&self, name: &HostName) -> Vec<HostName> {
        let dots = name.as_str().matches('.').count();
        let in_domain = |domain: &String| {
            let domain = domain.trim_end_matches('.');
            let is_root = domain.is_empty();
            (!is_root).then(|| format!("{name}.{domain}").parse().ok())?
        };
        let mut candidates: Vec<HostName> = self.domains.iter().filter_map(in_domain).collect();
        match dots >= self.dots {
            true => candidates.insert(0, name.clone()),
            false => candidates.push(name.clone()),
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(text: &str, name: &str) -> Vec<String> {
        let list = SearchList::parse(text);
        let names = list.candidates(&name.parse().expect("a name"));
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_is_tried_as_it_is_and_in_each_domain() {
        assert_eq!(candidates("", "app.internal"), ["app.internal"]);
        assert_eq!(
            candidates("search a.test b.test", "app.internal"),
            ["app.internal", "app.internal.a.test", "app.internal.b.test"]
        );
        let cluster = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local\n\
                       options edns0 ndots:5\n";
        assert_eq!(
            candidates(cluster, "app.ns"),
            [
                "app.ns.ns.svc.cluster.local",
                "app.ns.svc.cluster.local",
                "app.ns"
            ]
        );
        assert_eq!(
            candidates(cluster, "a.b.c.d.e.test")[0],
            "a.b.c.d.e.test",
            "it has enough dots"
        );
    }

    #[test]
    fn the_last_list_counts() {
        assert_eq!(
            candidates("search a.test\ndomain b.test\n", "app.internal")[1..],
            ["app.internal.b.test"]
        );
        assert_eq!(
            candidates("options ndots:99 ndots:x\nsearch .\n", "app.internal"),
            ["app.internal"]
        );
    }
}
