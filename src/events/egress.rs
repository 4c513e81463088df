//! Where deliveries may go: nowhere that only we can reach (SECURITY D31).
//!
//! Guarantees that a name is resolved once for each connection, that every address it has is public, and that the
//! connection goes to one of the addresses that were looked at: the check is the resolver, so there is no second lookup
//! to be rebound. Literal addresses, in whatever form the URL standard reads as one, are looked at before. Redirects are
//! not followed by the client at all. Does not protect a public address that forwards into a private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Longest address of an endpoint.
const LONGEST_URL: usize = 2048;

/// Why an endpoint's address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointUrlError {
    /// Not a URL, or too long.
    #[error("is not an absolute URL of at most 2048 characters")]
    NotAUrl,
    /// Neither https nor, where that is allowed, http.
    #[error("has to begin with https://")]
    Scheme,
    /// It carries a user name, a password or a fragment.
    #[error("has a user name, a password or a fragment, which are not sent")]
    Userinfo,
    /// It is not reachable from everywhere.
    #[error(
        "is not a public address; private, local and special ones are refused unless EVENT_ENDPOINTS_ALLOW_PRIVATE is true"
    )]
    NotPublic,
}

/// Which addresses deliveries may go to: `EVENT_ENDPOINTS_ALLOW_PRIVATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Also http, and addresses that are not public.
    pub allow_private: bool,
}

impl EgressPolicy {
    /// Checks the address of an endpoint as far as that goes without asking for its name.
    pub fn check(self, text: &str) -> Result<Url, EndpointUrlError> {
        if text.len() > LONGEST_URL {
            return Err(EndpointUrlError::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| EndpointUrlError::NotAUrl)?;
        let scheme = match url.scheme() {
            "https" => true,
            "http" => self.allow_private,
            _ => false,
        };
        if !scheme {
            return Err(EndpointUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(EndpointUrlError::Userinfo);
        }
        // The parser has turned decimal, octal, hexadecimal and shortened forms into an address by now.
        let public = self.allow_private
            || match url.host() {
                Some(Host::Ipv4(address)) => is_public(IpAddr::V4(address)),
                Some(Host::Ipv6(address)) => is_public(IpAddr::V6(address)),
                Some(Host::Domain(name)) => !is_local_name(name),
                None => false,
            };
        public.then_some(url).ok_or(EndpointUrlError::NotPublic)
    }

    /// The resolver that holds connections to this.
    pub(super) fn resolver(self) -> Arc<dyn Resolve> {
        Arc::new(Guard(self))
    }

    /// What of a name's addresses may be connected to: all of them or none.
    fn admit(self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, EndpointUrlError> {
        let admitted = self.allow_private || addresses.iter().all(|address| is_public(address.ip()));
        if admitted {
            Ok(addresses)
        } else {
            Err(EndpointUrlError::NotPublic)
        }
    }
}

/// Names that mean this machine or this network, whoever answers for them (RFC 6761, RFC 6762, RFC 9476).
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "localhost" | "local" | "internal" | "") || !name.contains('.')
}

struct Guard(EgressPolicy);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            // The port is put in by the connector.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admitted = policy.admit(found.collect())?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet (IANA special-purpose registries).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

#[expect(
    clippy::unnested_or_patterns,
    reason = "a block a line, as the registry lists them"
)]
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 31, 196)
            | (192, 52, 193)
            | (192, 88, 99)
            | (192, 168, _)
            | (192, 175, 48)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, ..)
    )
}

/// Global unicast is `2000::/3`; mapped, compatible and translated addresses (NAT64), unique local, link local and multicast
/// ones lie outside of it. Inside are tunnels (Teredo, 6to4), documentation and other special blocks.
#[expect(
    clippy::unnested_or_patterns,
    reason = "a block a line, as the registry lists them"
)]
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // 2001::/23: Teredo, benchmarking, ORCHID.
        [0x2001, 0..=0x01ff, ..]
        // Documentation.
        | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..]
        // 6to4.
        | [0x2002, ..]
        // Direct delegation AS112.
        | [0x2620, 0x004f, 0x8000, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: EgressPolicy = EgressPolicy { allow_private: false };

    /// Every form in which somebody has tried to reach inside.
    const FORBIDDEN_HOSTS: &[&str] = &[
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.257",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001::1]",
        "[2001:db8::1]",
        "[2002:7f00:1::]",
        "[3fff::1]",
        "[100::1]",
        "[5f00::1]",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "metadata.google.internal",
        "printer.local",
        "intranet",
        "１２７.０.０.１",
        "127。0。0。1",
        "%31%32%37.0.0.1",
    ];

    #[test]
    fn every_form_of_a_private_or_special_address_is_refused() {
        assert!(FORBIDDEN_HOSTS.len() >= 30);
        for host in FORBIDDEN_HOSTS {
            for url in [
                format!("https://{host}/hook"),
                format!("https://{host}:8443/hook"),
            ] {
                assert_eq!(PUBLIC.check(&url), Err(EndpointUrlError::NotPublic), "{url}");
            }
        }
    }

    #[test]
    fn public_addresses_and_names_are_allowed() {
        for url in [
            "https://example.com/hook?a=b",
            "https://example.com:8443/",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
            "https://192.0.1.1/",
            "https://172.32.0.1/",
            "https://100.128.0.1/",
            "https://[2001:4860:4860::8888]/",
        ] {
            assert!(PUBLIC.check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        for url in [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
        ] {
            assert_eq!(PUBLIC.check(url), Err(EndpointUrlError::Scheme), "{url}");
        }
        for url in [
            "https://a@example.com/",
            "https://a:b@example.com/",
            "https://example.com/#x",
        ] {
            assert_eq!(PUBLIC.check(url), Err(EndpointUrlError::Userinfo), "{url}");
        }
        for url in [
            "",
            "example.com",
            "//example.com",
            "https://",
            "https://[::1",
            "https://1.2.3.4.5.256/",
        ] {
            assert!(PUBLIC.check(url).is_err(), "{url}");
        }
        let private = EgressPolicy { allow_private: true };
        assert!(private.check("http://127.0.0.1:8080/hook").is_ok());
        assert_eq!(private.check("ftp://127.0.0.1/"), Err(EndpointUrlError::Scheme));
    }

    #[test]
    fn one_private_address_among_a_names_addresses_refuses_the_name() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        assert!(PUBLIC.admit(vec![at("8.8.8.8"), at("2606:4700::1")]).is_ok());
        for private in [
            "127.0.0.1",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fd00::1",
            "100.64.0.1",
        ] {
            assert!(
                PUBLIC.admit(vec![at("8.8.8.8"), at(private)]).is_err(),
                "{private}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_not_connected_to() {
        let refused = PUBLIC.resolver().resolve("localhost".parse().unwrap()).await;
        assert!(refused.is_err());
        let private = EgressPolicy { allow_private: true };
        assert!(
            private
                .resolver()
                .resolve("localhost".parse().unwrap())
                .await
                .is_ok()
        );
    }

    proptest! {
        /// The standard library's own idea of local addresses, as a second opinion.
        #[test]
        fn nothing_local_is_public(bits in any::<u32>()) {
            let address = Ipv4Addr::from(bits);
            let local = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_broadcast()
                || address.is_documentation() || address.is_unspecified() || address.is_multicast();
            prop_assert!(!(local && is_public_v4(address)));
            prop_assert!(!is_public_v6(address.to_ipv6_mapped()));
        }
    }
}
