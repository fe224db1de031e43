//! A hash that is the same in every process, so that gateways that share upstreams agree.

use std::net::IpAddr;

/// FNV-1a with the final steps of MurmurHash3, since FNV alone spreads short texts badly.
pub(super) fn of(octets: &[u8]) -> u64 {
    of_parts(0, octets)
}

/// The hash of a client's address.
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => of(&address.octets()),
        IpAddr::V6(address) => of(&address.octets()),
    }
}

/// The hash of `octets`, different for each `seed`.
pub(super) fn of_parts(seed: u64, octets: &[u8]) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for octet in octets {
        hash = (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        // Gateways of two versions may share upstreams.
        assert_eq!(of(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(of(b"10.0.0.1:80"), 0x5ed8_f827_5e47_a14a);
    }
}
