//! The HTTP client for addresses that an admin has written down: it follows no redirect, uses no proxy of the environment, and
//! connects to nothing but the Internet unless that is allowed. The address is checked when it is connected to, not when the
//! name is read: a name may lead somewhere else by then.

use super::addresses::special;
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use url::{Host, Url};

const POOL_IDLE: Duration = Duration::from_secs(4);

/// Why nothing is connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{host}` leads to {address}, which is no address of the Internet ({kind}): set `allow_private = true` for this endpoint if that is meant"
)]
pub struct Refused {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

/// A client whose requests take `timeout` at most, from the name to the end of the answer. What the address itself says is
/// not asked of any resolver: [`check`] it before each request.
pub fn client(timeout: Duration, allow_private: bool) -> Result<Client, reqwest::Error> {
    let builder: ClientBuilder = Client::builder()
        .timeout(timeout)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        // Before most servers drop them, so that a post does not meet a dead one.
        .pool_idle_timeout(POOL_IDLE)
        .no_proxy()
        .user_agent(concat!("Nightbell/", env!("CARGO_PKG_VERSION")));
    if allow_private {
        return builder.build();
    }
    builder.dns_resolver(Public).build()
}

/// Whether an address may be asked for, as far as it can be told from itself.
pub fn check(url: &Url, allow_private: bool) -> Result<(), Refused> {
    let literal = match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
        Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if allow_private {
        return Ok(());
    }
    public(&literal.to_string(), std::iter::once(SocketAddr::new(literal, 0))).map(drop)
}

/// What went wrong, without the address: it may hold a token.
pub fn in_words(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", timeout.as_secs());
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut deepest = None;
    while let Some(found) = cause {
        if let Some(refused) = found.downcast_ref::<Refused>() {
            return refused.to_string();
        }
        if let Some(io) = found.downcast_ref::<io::Error>() {
            deepest = Some(io.to_string());
            // What it was made of may say more.
            cause = io.get_ref().map(|inner| inner as &(dyn Error + 'static));
            continue;
        }
        deepest = Some(found.to_string());
        cause = found.source();
    }
    let detail = deepest.map_or_else(String::new, |text| format!(": {text}"));
    if error.is_connect() {
        format!("it cannot be connected to{detail}")
    } else {
        format!("the connection broke off before an answer{detail}")
    }
}

/// Resolves names as the system does, and keeps what is an address of the Internet.
struct Public;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = Box::new(public(name.as_str(), found)?.into_iter());
            Ok(addresses)
        })
    }
}

/// Those of a name's addresses that are the Internet's; an error if there are others only.
fn public(host: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let mut refused = None;
    let mut kept = Vec::new();
    for address in found {
        match special(address.ip()) {
            None => kept.push(address),
            Some(kind) => refused = Some((address.ip(), kind)),
        }
    }
    match refused {
        Some((address, kind)) if kept.is_empty() => Err(Refused {
            host: host.to_owned(),
            address,
            kind,
        }),
        _ => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn a_name_that_leads_to_the_metadata_of_a_cloud_or_to_this_machine_is_refused() {
        for (ip, kind) in [
            ("169.254.169.254", "link-local"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
        ] {
            let refused = public("hooks.example.com", addresses(&[ip]).into_iter()).unwrap_err();

            assert_eq!(refused.kind, kind);
            let text = refused.to_string();
            assert!(
                text.contains("hooks.example.com") && text.contains("allow_private"),
                "{text}"
            );
        }
    }

    #[test]
    fn of_several_addresses_the_public_ones_are_used() {
        let both = addresses(&["10.0.0.1", "8.8.8.8", "::ffff:127.0.0.1"]);

        assert_eq!(public("both", both.into_iter()).unwrap(), addresses(&["8.8.8.8"]));
    }

    #[test]
    fn an_address_that_is_no_name_is_checked_however_it_is_written() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[::1]:80/",
            "http://[::ffff:169.254.169.254]/",
            "http://169.254.169.254/latest/meta-data/",
        ] {
            let url = Url::parse(url).unwrap();
            assert!(check(&url, false).is_err(), "{url}");
            assert!(check(&url, true).is_ok(), "{url}");
        }
        assert!(check(&Url::parse("https://8.8.8.8/").unwrap(), false).is_ok());
    }

    #[tokio::test]
    async fn the_resolver_itself_refuses_this_machine() {
        let Err(error) = Public.resolve(Name::from_str("localhost").unwrap()).await else {
            panic!("localhost was resolved");
        };

        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
    }
}
