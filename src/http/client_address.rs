//! Who is at the other end: the peer's address, or what a trusted proxy says it is (`TRUSTED_PROXIES`).
//!
//! `X-Forwarded-For` is read from the right: each trusted proxy appended what it saw, so the first address that is not a
//! trusted proxy's is the client's. What stands further left anybody may have written. A peer that is no trusted proxy is
//! the client itself, whatever it sends.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The client's address, as an extension of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Finds the client's address behind the trusted proxies.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> ClientAddress {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return ClientAddress(peer);
    }
    let mut nearest = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.to_str().unwrap_or_default().rsplit(',') {
            let Some(address) = parse(entry.trim()) else {
                return ClientAddress(nearest);
            };
            nearest = address;
            if !is_trusted(&address) {
                return ClientAddress(address);
            }
        }
    }
    ClientAddress(nearest)
}

/// An address as proxies write it: plain, with a port, or bracketed.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|socket| socket.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted)
            .0
            .to_string()
    }

    #[test]
    fn a_stranger_cannot_choose_an_address() {
        assert_eq!(found("203.0.113.9", &["10.1.1.1"], &[]), "203.0.113.9");
        assert_eq!(
            found("203.0.113.9", &["10.1.1.1"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            found("10.0.0.2", &["1.1.1.1, 203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            found("10.0.0.2", &["1.1.1.1", "203.0.113.9, 10.0.0.3"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        assert_eq!(
            found("10.0.0.2", &["1.1.1.1, unknown"], &["10.0.0.0/8"]),
            "10.0.0.2"
        );
        assert_eq!(found("10.0.0.2", &[], &["10.0.0.0/8"]), "10.0.0.2");
        assert_eq!(found("10.0.0.2", &["10.0.0.9"], &["10.0.0.0/8"]), "10.0.0.9");
    }

    #[test]
    fn addresses_come_in_several_forms() {
        for (text, expected) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(
                found("::ffff:10.0.0.2", &[text], &["10.0.0.0/8"]),
                expected,
                "{text}"
            );
        }
    }
}
