//! Which addresses lead out to the Internet, and which may lead to something of ours: what a name resolves to is not to be
//! believed. By IANA's registries of special-purpose addresses
//! (iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, read in November 2026), all of them,
//! also the few that can be reached from everywhere; and multicast.

use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

const SPECIAL: [(&str, &str); 37] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "AS112"),
    ("192.52.193.0/24", "AMT"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "AS112"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard-only"),
    ("100:0:0:1::/64", "dummy"),
    ("2001::/23", "protocol"),
    ("2001:db8::/32", "documentation"),
    ("2620:4f:8000::/48", "AS112"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    // Nothing else is given to anybody yet (IANA, IPv6 address space).
    ("::/3", "reserved"),
    ("4000::/2", "reserved"),
    ("8000::/1", "reserved"),
];

/// Read once; a test reads every line.
static RANGES: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| {
    let read = |(range, kind): (&str, &'static str)| Some((range.parse().ok()?, kind));
    SPECIAL.into_iter().filter_map(read).collect()
});

/// What kind of address it is, if it is not simply one of the Internet's. An IPv6 address that stands for one of IPv4 (mapped,
/// NAT64, 6to4) is what that one is.
pub fn special(address: IpAddr) -> Option<&'static str> {
    let address = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    RANGES
        .iter()
        .find(|(range, _)| range.contains(&address))
        .map(|(_, kind)| *kind)
}

/// The IPv4 address for which one of IPv6 stands.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let four = |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(four(12)),
        [0x2002, ..] => Some(four(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_range() {
        assert_eq!(RANGES.len(), SPECIAL.len());
    }

    #[test]
    fn what_is_not_simply_on_the_internet_is_special() {
        for (address, kind) in [
            ("0.0.0.0", Some("this network")),
            ("10.1.2.3", Some("private")),
            ("100.64.0.1", Some("shared")),
            ("100.128.0.1", None),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.255", Some("loopback")),
            ("169.254.169.254", Some("link-local")),
            ("172.15.255.255", None),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.1", None),
            ("192.168.1.1", Some("private")),
            ("198.19.0.1", Some("benchmarking")),
            ("203.0.113.9", Some("documentation")),
            ("224.0.0.1", Some("multicast")),
            ("255.255.255.255", Some("reserved")),
            ("8.8.8.8", None),
            ("1.1.1.1", None),
            ("::1", Some("loopback")),
            ("::", Some("unspecified")),
            ("::127.0.0.1", Some("IPv4-compatible")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::a9fe:a9fe", Some("link-local")),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::1", Some("local NAT64")),
            ("2002:7f00:1::1", Some("loopback")),
            ("2002:a00:1::", Some("private")),
            ("2002:808:808::1", None),
            ("2001::1", Some("protocol")),
            ("2001:db8::1", Some("documentation")),
            ("fd00::1", Some("private")),
            ("fe80::1", Some("link-local")),
            ("ff02::1", Some("multicast")),
            ("4000::1", Some("reserved")),
            ("a000::1", Some("reserved")),
            ("2606:4700:4700::1111", None),
            ("2a00:1450:4001:81b::200e", None),
        ] {
            assert_eq!(special(address.parse().unwrap()), kind, "{address}");
        }
    }
}
