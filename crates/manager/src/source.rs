//! Where a connection comes from: its peer, or whom a proxy that the operator trusts says it speaks for.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The header in which proxies name those they speak for, the nearest last.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Other headers by which a proxy shows that it is one. They are not read: one form is enough to be wrong about.
const OTHERS: [HeaderName; 2] = [HeaderName::from_static("forwarded"), HeaderName::from_static("x-real-ip")];
/// Hops that are looked at, from the nearest on; no chain of proxies that somebody meant is longer.
const HOPS_MAX: usize = 16;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address that counts, for limits, records and logs.
    pub address: IpAddr,
    /// The peer of the connection itself.
    pub peer: SocketAddr,
    /// Whether a proxy that is not trusted says that it speaks for somebody: then nobody knows who that is.
    pub unlisted_proxy: bool,
}

impl Source {
    /// Reads it from a request. Of those that the header names, the last one that is no trusted proxy counts: whatever
    /// stands before it was written by somebody who is not trusted. From a peer that is not trusted the header says nothing.
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let trusts = |address: &IpAddr| trusted.iter().any(|range| range.contains(address));
        let own = peer.ip().to_canonical();
        let is_proxy = headers.contains_key(&FORWARDED_FOR) || OTHERS.iter().any(|name| headers.contains_key(name));
        if !trusts(&own) {
            return Self { address: own, peer, unlisted_proxy: is_proxy };
        }
        let mut address = own;
        for hop in hops(headers) {
            // What is no address names nobody: then the proxy before it is all that is known.
            let Some(hop) = hop else { break };
            address = hop;
            if !trusts(&hop) {
                break;
            }
        }
        Self { address, peer, unlisted_proxy: false }
    }
}

/// What the header names, the nearest first.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: Vec<&str> =
        headers.get_all(&FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS_MAX).map(|hop| parse(hop.trim()))
}

/// An address, with a port or without, in brackets or without.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|with| with.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, headers: &[(&'static str, &'static str)], trusted: &[&str]) -> (String, bool) {
        let trusted: Vec<IpNet> = trusted.iter().map(|range| range.parse().expect("a range")).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header"));
        }
        let source = Source::of(peer.parse().expect("a peer"), &map, &trusted);
        (source.address.to_string(), source.unlisted_proxy)
    }

    const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

    #[test]
    fn the_last_that_is_no_trusted_proxy_counts() {
        for (header, address) in [
            ("203.0.113.7", "203.0.113.7"),
            ("1.2.3.4, 203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("1.2.3.4,203.0.113.7 ,10.0.0.2,10.0.0.3", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1"),
            (",", "10.0.0.1"),
        ] {
            let told = source("10.0.0.1:1", &[("x-forwarded-for", header)], &PROXIES);
            assert_eq!(told, (address.to_owned(), false), "{header}");
        }
        let twice = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")];
        assert_eq!(source("10.0.0.1:1", &twice, &PROXIES).0, "203.0.113.7", "lines are one list");
        assert_eq!(source("[::ffff:10.0.0.1]:1", &[("x-forwarded-for", "203.0.113.7")], &PROXIES).0, "203.0.113.7");
        assert_eq!(source("10.0.0.1:1", &[("forwarded", "for=203.0.113.7")], &PROXIES).0, "10.0.0.1", "not read");
    }

    #[test]
    fn from_anybody_else_the_header_says_nothing() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            let told = source("192.0.2.9:1", &[(name, "10.0.0.1")], &PROXIES);
            assert_eq!(told, ("192.0.2.9".to_owned(), true), "{name}");
        }
        assert_eq!(source("192.0.2.9:1", &[], &PROXIES), ("192.0.2.9".to_owned(), false));
        assert_eq!(source("10.0.0.1:1", &[("x-forwarded-for", "203.0.113.7")], &[]), ("10.0.0.1".to_owned(), true));
    }

    #[test]
    fn a_chain_that_never_ends_is_not_followed() {
        let mut headers = HeaderMap::new();
        let chain = vec!["10.0.0.2"; 10_000].join(",");
        headers.append("x-forwarded-for", format!("203.0.113.7,{chain}").parse().expect("a header"));
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a range")];
        let source = Source::of("10.0.0.1:1".parse().expect("a peer"), &headers, &trusted);
        assert_eq!(source.address.to_string(), "10.0.0.2");
        assert_eq!(hops(&headers).count(), HOPS_MAX);
    }
}
