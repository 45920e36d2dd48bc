//! How many connections may be open, and by what they are counted.

use std::net::{IpAddr, Ipv6Addr};

/// Nobody needs more; each takes memory.
const MAX_CONNECTIONS: usize = 8192;
/// The usual limit of open files where a process cannot find out its own.
const USUAL_OPEN_FILES: usize = 1024;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    pub in_all: usize,
    pub per_address: usize,
}

impl Caps {
    /// Half of the files that this process may open; the other half is for the database, the provider and mail. Half of
    /// those for one address: many people may share it.
    pub fn of_this_process() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::new((read_open_files(&limits).unwrap_or(USUAL_OPEN_FILES) / 2).clamp(16, MAX_CONNECTIONS))
    }

    fn new(in_all: usize) -> Self {
        Self {
            in_all,
            per_address: in_all.div_ceil(2),
        }
    }

    /// Splits them between the public listener and the one for admins, who keep an eighth.
    pub fn split(self) -> (Self, Self) {
        let admins = (self.in_all / 8).max(2);
        (Self::new(self.in_all - admins), Self::new(admins))
    }
}

/// The soft limit of open files in the text of `/proc/self/limits`; `None` if it is not there.
fn read_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// What a client is counted by: its IPv4 address, or the IPv6 network that one host usually has.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_counted_by_network_and_mapped_ipv4_as_ipv4() {
        for (given, wanted) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(counted(given.parse().unwrap()).to_string(), wanted);
        }
    }

    #[test]
    fn the_limit_of_open_files_is_read() {
        let line =
            |limit: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {limit}  4096  files\n");

        assert_eq!(read_open_files(&line("1024")), Some(1024));
        assert_eq!(read_open_files(&line("unlimited")), Some(usize::MAX));
        assert_eq!(read_open_files(""), None);
        let (public, admins) = Caps::new(512).split();
        assert_eq!((public.in_all, admins.in_all), (448, 64));
    }
}
