//! What concerns the process as a whole: file descriptors and core dumps.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Descriptors that connections may not use: for listeners, logs, reloads, the admin interface
/// and connections to CAs. A gateway that is full must still be able to renew and to be controlled.
const RESERVE: u64 = 64;

/// The ports that connections are made from, in the file where Linux has their range.
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Of the ports, connections to upstreams may use three in four. The others are for those that
/// servers have closed, which the system holds for a minute, and for connections to CAs.
const fn share_of(ports: u64) -> u64 {
    ports / 4 * 3
}

/// What the limit on open files allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections of clients.
    pub(super) clients: usize,
    /// Connections to upstreams that requests use.
    pub(super) upstreams: usize,
    /// Files that are sent.
    pub(super) files: usize,
    /// Connections to upstreams that wait to be used again.
    pub(super) kept: usize,
}

impl Descriptors {
    /// Raises the limit on open files as far as it goes, and divides what it allows.
    pub(super) fn claim() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
                .map(|()| hard)
                .or(Ok(soft))
        });
        let limit = limit.unwrap_or_else(|error| {
            tracing::warn!(%error, "the limit on open files is unknown, assuming 1024");
            1024
        });
        Self::within(limit, local_ports())
    }

    /// Two fifths for clients, as much for the upstreams they are passed to, and a tenth each for
    /// files and for connections to keep.
    fn within(limit: u64, ports: u64) -> Self {
        let tenth = limit.saturating_sub(RESERVE) / 10;
        let count = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        Self {
            clients: count(tenth * 4).max(8),
            upstreams: count((tenth * 4).min(share_of(ports))).max(8),
            files: count(tenth).max(8),
            kept: count(tenth),
        }
    }
}

/// Keeps this process from leaving its memory, private keys among it, in a core dump, and other
/// processes of its user from reading it. Whoever needs one sets `SNIGATE_CORE_DUMPS=1`.
///
/// To be called again when the process has become another user: the system then forgets it.
pub(super) fn restrict_core_dumps() {
    let may_dump = std::env::var_os("SNIGATE_CORE_DUMPS").is_some_and(|value| value == "1");
    let behavior = match may_dump {
        true => DumpableBehavior::Dumpable,
        false => DumpableBehavior::NotDumpable,
    };
    // The limit alone does not keep a program from getting the dump that the system pipes it into.
    if let Err(error) = set_dumpable_behavior(behavior) {
        tracing::warn!(%error, "cannot say whether this process may be dumped");
    }
    if may_dump {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "cannot disable core dumps: one would contain private keys");
    }
}

/// Keeps the descriptors that this process was started with from the programs that it starts. Its own
/// are opened that way.
pub fn withhold_descriptors() {
    const FIRST: libc::c_uint = 3;
    let Ok(flags) = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC) else {
        return;
    };
    // SAFETY: it sets a flag of descriptors and closes none of them.
    let result = unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "programs that are started inherit the descriptors of the gateway's starter");
    }
}

/// How many ports there are for connections that are made from here, as far as the system says.
fn local_ports() -> u64 {
    let range = std::fs::read_to_string(PORTS).unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().map(str::parse::<u64>);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => last.saturating_sub(first) + 1,
        // As Linux sets it.
        _ => 28_232,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_of_descriptors_is_kept() {
        let within = |limit| {
            let share = Descriptors::within(limit, 28_232);
            (share.clients, share.upstreams, share.files, share.kept)
        };
        assert_eq!(within(256), (76, 76, 19, 19));
        assert_eq!(within(10), (8, 8, 8, 0));
        assert_eq!(
            within(65_536),
            (26_188, 21_174, 6_547, 6_547),
            "as the ports allow"
        );
    }
}
