//! How the value of a setting is written: pure parsers, each with an error that says what was expected. None of them
//! repeats the value it was given; [`super::reader`] shows it where it is no secret.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

/// What was expected, and perhaps what is wrong.
pub(super) type Parsed<T> = Result<T, String>;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// How many per second; above zero.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, unit)| {
            let number: f64 = number.trim().parse().ok()?;
            match unit.trim() {
                "s" => Some(number),
                "m" => Some(number / 60.0),
                _ => None,
            }
        });
        parsed
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .map(Self)
            .ok_or_else(|| "must be a rate above zero like `20/s` or `600/m`".to_owned())
    }
}

pub(super) fn boolean(value: &str) -> Parsed<bool> {
    value.parse().map_err(|_| "must be `true` or `false`".to_owned())
}

pub(super) fn socket_addr(value: &str) -> Parsed<SocketAddr> {
    value
        .parse()
        .map_err(|_| "must be an IP address and a port like `127.0.0.1:8080`".to_owned())
}

pub(super) fn duration(value: &str) -> Parsed<Duration> {
    humantime::parse_duration(value)
        .map_err(|_| "must be a duration like `30s`, `5m`, `12h` or `7d`".to_owned())
}

/// A duration above zero.
pub(super) fn some_duration(value: &str) -> Parsed<Duration> {
    let parsed = duration(value)?;
    if parsed.is_zero() {
        Err("must be a duration above zero like `30s`".to_owned())
    } else {
        Ok(parsed)
    }
}

/// Durations separated by commas.
pub(super) fn durations(value: &str) -> Parsed<Vec<Duration>> {
    value
        .split(',')
        .map(|part| some_duration(part.trim()))
        .collect::<Parsed<_>>()
        .map_err(|_| "must be durations above zero, separated by commas, like `5s,5m,2h`".to_owned())
}

/// Bytes: `512`, `64KiB`, `10MiB`, `1GiB`.
pub(super) fn size(value: &str) -> Parsed<u64> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let factor: Option<u64> = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "must be a size above zero like `64KiB` or `10MiB`".to_owned())
}

/// `20/s` or `600/m`.
pub(super) fn fraction(value: &str) -> Parsed<f64> {
    value
        .parse()
        .ok()
        .filter(|number: &f64| (0.0..1.0).contains(number))
        .ok_or_else(|| "must be a number from 0 to below 1 like `0.66`".to_owned())
}

/// A count of at least one.
pub(super) fn count(value: &str) -> Parsed<usize> {
    value
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "must be a whole number above zero".to_owned())
}

/// How often at most: zero turns it off.
pub(super) fn retries(value: &str) -> Parsed<u32> {
    value
        .parse()
        .ok()
        .filter(|n| *n <= 10)
        .ok_or_else(|| "must be a whole number from 0 to 10".to_owned())
}

/// Networks separated by commas; a bare address is a network of one.
pub(super) fn networks(value: &str) -> Parsed<Vec<IpNet>> {
    let network = |part: &str| {
        part.parse::<IpNet>()
            .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
    };
    value
        .split(',')
        .map(|part| network(part.trim()))
        .collect::<Result<_, _>>()
        .map_err(|_| "must be networks separated by commas, like `10.0.0.0/8,192.168.1.4`".to_owned())
}

/// `#rrggbb`.
pub(super) fn color(value: &str) -> Parsed<String> {
    match value.strip_prefix('#') {
        Some(digits) if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(value.to_ascii_lowercase())
        }
        _ => Err("must be a colour like `#00a650`".to_owned()),
    }
}

/// A URL without userinfo or fragment; https, or http where the host is this machine.
pub(super) fn url(value: &str) -> Parsed<Url> {
    let url: Url = value
        .parse()
        .map_err(|error| format!("must be a URL like `https://example.com` ({error})"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err("must be a URL that begins with `https://`".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must be a URL without user, password or fragment".to_owned());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("must begin with `https://`: plain http is for this machine (loopback) only".to_owned());
    }
    Ok(url)
}

/// A URL that other paths are appended to: no query, no slash at its end.
pub(super) fn base_url(value: &str) -> Parsed<Url> {
    let url = url(value)?;
    if url.query().is_some() || (url.path() != "/" && url.path().ends_with('/')) {
        return Err("must be a URL without query and without `/` at its end".to_owned());
    }
    Ok(url)
}

/// An origin: scheme, host, port.
pub(super) fn origin(value: &str) -> Parsed<Url> {
    let url = base_url(value)?;
    if url.path() == "/" {
        Ok(url)
    } else {
        Err("must be an origin like `https://connect.example.com`, without a path".to_owned())
    }
}

/// Origins with an optional path prefix, separated by commas.
pub(super) fn url_prefixes(value: &str) -> Parsed<Vec<Url>> {
    let prefix = |part: &str| url(part).ok().filter(|url| url.query().is_none());
    value.split(',').map(|part| prefix(part.trim())).collect::<Option<_>>().ok_or_else(|| {
        "must be origins with an optional path, separated by commas, like `https://shop.example.com/sellers`; https \
         unless the host is this machine"
            .to_owned()
    })
}

/// A URL with `{user_id}` (and perhaps `{client_id}`) in it.
pub(super) fn url_template(value: &str) -> Parsed<String> {
    let filled = value.replace("{user_id}", "1").replace("{client_id}", "1");
    if filled.contains(['{', '}']) || !value.contains("{user_id}") {
        return Err("must hold `{user_id}`, and no other placeholder but `{client_id}`".to_owned());
    }
    url(&filled).map(|_| value.to_owned())
}

/// Whether a URL's host is this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_durations_are_read_with_their_units() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!("20/s".parse().map(Rate::per_second), Ok(20.0));
        assert_eq!("600/m".parse().map(Rate::per_second), Ok(10.0));
        assert_eq!(
            durations("5s, 5m"),
            Ok(vec![Duration::from_secs(5), Duration::from_mins(5)])
        );
        for wrong in [
            "",
            "10MB",
            "-1KiB",
            "MiB",
            "99999999999999999999GiB",
            "20000000000GiB",
            "0",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "20", "0/s", "-1/s", "NaN/s", "inf/s", "20/h"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        for wrong in ["", "5s,", "0s", "5"] {
            assert!(durations(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "https://a.example",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:1",
            "http://mp.localhost",
        ] {
            assert!(url(good).is_ok(), "{good}");
        }
        for wrong in [
            "http://a.example",
            "http://127.0.0.1.nip.example",
            "http://localhost.example",
            "ftp://a.example",
            "https://user@a.example",
            "https://a.example/#x",
            "a.example",
            "",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_origin_has_no_path_and_a_base_no_query() {
        assert!(origin("https://a.example/").is_ok());
        assert!(origin("https://a.example/x").is_err());
        assert!(base_url("https://a.example/x").is_ok());
        assert!(base_url("https://a.example/x/").is_err());
        assert!(base_url("https://a.example?x").is_err());
    }

    #[test]
    fn a_revoke_template_needs_the_user() {
        assert!(url_template("https://a.example/users/{user_id}/applications/{client_id}").is_ok());
        assert!(url_template("https://a.example/users").is_err());
        assert!(url_template("https://a.example/{user_id}/{token}").is_err());
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        let parsed = networks("10.0.0.0/8, 192.168.1.4,::1").unwrap();
        assert_eq!(
            parsed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "192.168.1.4/32", "::1/128"]
        );
        assert!(networks("10.0.0.0/33").is_err());
    }
}
