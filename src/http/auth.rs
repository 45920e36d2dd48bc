//! Bearer tokens, compared in constant time, and limits on requests that have none. Absent: signatures of providers (see
//! `twilio`).

use super::{
    connections::counted,
    error::{Kind, Problem},
    quota::QuotaFields,
};
use axum::http::{HeaderMap, header};
use governor::{DefaultKeyedRateLimiter as Keyed, Quota, middleware::StateInformationMiddleware};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
};
use subtle::ConstantTimeEq;

/// How many requests without a good token or signature one address may make at once, and then each second.
const UNAUTHENTICATED_BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
const UNAUTHENTICATED_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Addresses remembered before those that behaved are forgotten.
const MAX_UNAUTHENTICATED: usize = 10_000;

/// A token and the sources that it may speak for.
struct Token {
    digest: [u8; 32],
    /// `None` for any source.
    source: Option<String>,
}

/// What a good token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Which token it is, for the limit of each.
    digest: [u8; 32],
    /// `None` for any source.
    pub source: Option<String>,
    /// What the token has left; `None` if tokens are not limited.
    pub quota: Option<QuotaFields>,
}

/// A set of tokens for one purpose.
#[derive(Default)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Adds tokens that may speak for `source`, or for any.
    pub fn add(&mut self, tokens: &[SecretString], source: Option<&str>) {
        // Digests have one length, so comparing them says nothing about the length of a token.
        self.0.extend(tokens.iter().map(|token| Token {
            digest: Sha256::digest(token.expose_secret()).into(),
            source: source.map(str::to_owned),
        }));
    }

    /// Whether the request carries one of these tokens, where nothing depends on it but what is shown.
    pub fn has(&self, headers: &HeaderMap) -> bool {
        self.find(headers).is_some()
    }

    /// Finds the token of `Authorization: Bearer …`. Always compares with every token.
    fn find(&self, headers: &HeaderMap) -> Option<Allowed> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = given.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.find_token(token.trim())
    }

    /// The digest of this token, if it is one of these.
    pub fn digest_of(&self, token: &str) -> Option<[u8; 32]> {
        self.find_token(token).map(|allowed| allowed.digest)
    }

    /// Whether the digest of any of these passes `test`, which is asked about all of them.
    pub fn any_digest(&self, test: impl Fn(&[u8; 32]) -> bool) -> bool {
        self.0.iter().fold(false, |found, token| test(&token.digest) | found)
    }

    fn find_token(&self, token: &str) -> Option<Allowed> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(Allowed {
                    digest,
                    source: known.source.clone(),
                    quota: None,
                });
            }
        }
        found
    }
}

/// Limits the requests without a good token or signature, and those of each good token if so configured.
pub struct RateLimiter {
    unauthenticated: Keyed<IpAddr>,
    tokens: Option<Keyed<[u8; 32], StateInformationMiddleware>>,
    trusted_proxies: Vec<IpNet>,
}

impl RateLimiter {
    pub fn new(per_second: u32, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            unauthenticated: Keyed::keyed(
                Quota::per_second(UNAUTHENTICATED_PER_SECOND).allow_burst(UNAUTHENTICATED_BURST),
            ),
            tokens: NonZeroU32::new(per_second).map(|rate| Keyed::keyed(Quota::per_second(rate)).with_middleware()),
            trusted_proxies,
        }
    }

    /// Finds what a good token allows; 401 without one, and 429 where there are too many requests.
    pub fn admit(&self, tokens: &Tokens, headers: &HeaderMap, peer: IpAddr) -> Result<Allowed, Problem> {
        let Some(allowed) = tokens.find(headers) else {
            return Err(self.refuse(
                headers,
                peer,
                Problem::new(
                    Kind::Unauthorized,
                    "send `Authorization: Bearer <token>` with a token that is valid for this address",
                ),
            ));
        };
        let Some(limiter) = &self.tokens else {
            return Ok(allowed);
        };
        match limiter.check_key(&allowed.digest) {
            Ok(state) => Ok(Allowed {
                quota: Some(QuotaFields::new(state.quota(), state.remaining_burst_capacity())),
                ..allowed
            }),
            Err(refused) => Err(Problem::new(
                Kind::TooManyRequests,
                "this token sends more than `http.per_second` allows; send it again",
            )
            .quota(QuotaFields::new(refused.quota(), 0))
            .retry_after(1)),
        }
    }

    /// Refuses an unauthenticated request with `problem`, or with 429 if its address sends too many. The connection ends:
    /// its body, which may be of any size, is not read.
    pub fn refuse(&self, headers: &HeaderMap, peer: IpAddr, problem: Problem) -> Problem {
        if self.unauthenticated.len() > MAX_UNAUTHENTICATED {
            self.unauthenticated.retain_recent();
        }
        let address = counted(self.client_address(headers, peer));
        match self.unauthenticated.check_key(&address) {
            Ok(()) => problem,
            Err(_) => Problem::new(
                Kind::TooManyRequests,
                "too many requests without a good token or signature",
            )
            .retry_after(1),
        }
        .and_close()
    }

    /// Whether this address is one of our own proxies, which speak for many clients.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// The address that a request came from: of trusted proxies the nearest one that is none of them. What stands before
    /// a hop that cannot be read was said by nobody that we trust, so there the last known address counts.
    fn client_address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        // Several headers are one list (RFC 9110, 5.3).
        let hops: Vec<&[u8]> = headers
            .get_all("x-forwarded-for")
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .collect();
        let mut nearest = peer.to_canonical();
        for hop in hops.into_iter().rev() {
            if !self.is_proxy(nearest) {
                break;
            }
            let Some(address) = read_hop(hop) else { break };
            nearest = address;
        }
        nearest
    }
}

/// An address as proxies write it: bare, with a port, or of IPv6 in brackets.
fn read_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| in_brackets().map(IpAddr::from))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        http::StatusCode,
        response::{IntoResponse, Response},
    };

    fn bearer(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_good_token_says_what_it_speaks_for() {
        let mut tokens = Tokens::default();
        tokens.add(&["one".into()], None);
        tokens.add(&["two".into()], Some("acme"));

        assert_eq!(
            tokens.find(&bearer("Bearer one")),
            Some(Allowed {
                digest: Sha256::digest("one").into(),
                source: None,
                quota: None
            })
        );
        assert_eq!(
            tokens.find(&bearer("bearer two")),
            Some(Allowed {
                digest: Sha256::digest("two").into(),
                source: Some("acme".into()),
                quota: None
            })
        );
        for bad in ["Bearer three", "Bearer", "one", "Basic one", "Bearer ", "Bearer onetwo"] {
            assert_eq!(tokens.find(&bearer(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_flood_of_unauthenticated_requests_is_limited_and_a_good_token_is_not() {
        let rate_limiter = RateLimiter::new(0, Vec::new());
        let mut tokens = Tokens::default();
        tokens.add(&["good".into()], None);

        let ask = |token| rate_limiter.admit(&tokens, &bearer(token), "203.0.113.7".parse().unwrap());

        let answers: Vec<StatusCode> = (0..300).map(|_| ask("Bearer bad").unwrap_err().status()).collect();

        assert_eq!(answers[0], StatusCode::UNAUTHORIZED);
        assert_eq!(answers[299], StatusCode::TOO_MANY_REQUESTS);
        assert!((0..300).all(|_| ask("Bearer good").is_ok()));
    }

    #[test]
    fn a_token_learns_what_is_left_of_its_quota() {
        let rate_limiter = RateLimiter::new(3, Vec::new());
        let mut tokens = Tokens::default();
        tokens.add(&["good".into()], None);
        let ask = || rate_limiter.admit(&tokens, &bearer("Bearer good"), "203.0.113.7".parse().unwrap());
        let fields = |response: Response| {
            let field = |name| {
                response
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            (
                field("ratelimit-policy").unwrap(),
                field("ratelimit").unwrap(),
                field("retry-after"),
            )
        };
        let policy = "\"token\";q=3;w=1".to_owned();

        for left in [2, 1, 0] {
            let answer = (ask().unwrap().quota, ()).into_response();
            assert_eq!(
                fields(answer),
                (policy.clone(), format!("\"token\";r={left};t=1"), None)
            );
        }
        let refused = ask().unwrap_err().into_response();

        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            fields(refused),
            (policy, "\"token\";r=0;t=1".to_owned(), Some("1".to_owned()))
        );
    }

    /// Who counts when a request comes from this peer with these `X-Forwarded-For` headers.
    fn counts(peer: &str, forwarded: &[&str]) -> String {
        let rate_limiter = RateLimiter::new(0, vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        rate_limiter.client_address(&headers, peer.parse().unwrap()).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_say_who_came() {
        let forwarded = ["198.51.100.9, 203.0.113.7, 10.1.1.1"];

        assert_eq!(counts("10.2.2.2", &forwarded), "203.0.113.7");
        assert_eq!(counts("::ffff:10.2.2.2", &forwarded), "203.0.113.7");
        assert_eq!(counts("192.0.2.1", &forwarded), "192.0.2.1");
    }

    #[test]
    fn a_hop_may_have_a_port_and_brackets_and_none_before_an_unreadable_one_is_believed() {
        for (forwarded, client) in [
            ("198.51.100.9:4711", "198.51.100.9"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:198.51.100.9", "198.51.100.9"),
            ("[::ffff:198.51.100.9]:80", "198.51.100.9"),
            (" 198.51.100.9:4711 , 10.1.1.1:80 ", "198.51.100.9"),
            ("198.51.100.9, [fd00::1]:80", "198.51.100.9"),
            ("198.51.100.9, ::ffff:10.1.1.1", "198.51.100.9"),
            ("198.51.100.9, unknown", "10.2.2.2"),
            ("unknown", "10.2.2.2"),
            ("198.51.100.9,", "10.2.2.2"),
            ("", "10.2.2.2"),
            ("198.51.100.9, 300.1.1.1", "10.2.2.2"),
            ("198.51.100.9, unknown, 10.1.1.1", "10.1.1.1"),
            ("unknown, 198.51.100.9, 10.1.1.1", "198.51.100.9"),
        ] {
            assert_eq!(counts("10.2.2.2", &[forwarded]), client, "{forwarded}");
            let headers: Vec<&str> = forwarded.split(',').collect();
            assert_eq!(counts("10.2.2.2", &headers), client, "{headers:?} are one list");
        }
    }

    #[test]
    fn unauthenticated_ipv6_clients_are_limited_by_network() {
        let rate_limiter = RateLimiter::new(0, Vec::new());
        let refuse = |peer: String| {
            let problem = Problem::new(Kind::InvalidSignature, "no");
            rate_limiter
                .refuse(&HeaderMap::new(), peer.parse().unwrap(), problem)
                .status()
        };

        let answers: Vec<StatusCode> = (0..300).map(|host| refuse(format!("2001:db8:0:1::{host:x}"))).collect();

        assert_eq!(answers[299], StatusCode::TOO_MANY_REQUESTS, "one network");
        assert_eq!(refuse("2001:db8:0:2::1".into()), StatusCode::FORBIDDEN, "another");
    }
}
