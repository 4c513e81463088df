//! What an API key may do (DESIGN.md sections 5 and 8). Proxied scopes end in `:read` or `:write`; `proxy:*` stands for all
//! of them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! scopes {
    ($($name:ident = $text:literal,)+) => {
        /// One scope of an API key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each variant is its text")]
        pub enum Scope { $($name,)+ }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text of the scope.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

scopes! {
    ConnectWrite = "connect:write",
    ConnectionsRead = "connections:read",
    ConnectionsWrite = "connections:write",
    ConnectionsRevoke = "connections:revoke",
    ConnectionsImport = "connections:import",
    EventsRead = "events:read",
    EventsWrite = "events:write",
    Admin = "admin",
    ProxyAll = "proxy:*",
    PaymentsRead = "payments:read",
    PaymentsWrite = "payments:write",
    RefundsWrite = "refunds:write",
    CustomersRead = "customers:read",
    CustomersWrite = "customers:write",
    SubscriptionsRead = "subscriptions:read",
    SubscriptionsWrite = "subscriptions:write",
    OrdersRead = "orders:read",
    OrdersWrite = "orders:write",
    PreferencesRead = "preferences:read",
    PreferencesWrite = "preferences:write",
    AccountRead = "account:read",
}

impl Scope {
    /// Whether the scope is for proxied calls.
    pub fn is_proxied(self) -> bool {
        self >= Self::ProxyAll
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; scopes are {list}", list = Scope::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .iter()
            .find(|scope| scope.as_str() == text)
            .copied()
            .ok_or_else(|| UnknownScope(text.chars().take(64).collect()))
    }
}

/// The scopes of one API key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether a key with these scopes may do what `needed` guards.
    pub fn allow(&self, needed: Scope) -> bool {
        self.0.contains(&needed) || (needed.is_proxied() && self.0.contains(&Scope::ProxyAll))
    }

    /// Whether every scope of `other` is allowed by these: a key may not make a stronger key.
    pub fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|scope| self.allow(*scope))
    }

    /// Whether there is no scope at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Space-separated, as OAuth writes scopes (RFC 6749 section 3.3): the form in the store and on the command line.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split([' ', ','])
            .filter(|word| !word.is_empty())
            .map(str::parse)
            .collect()
    }
}

impl Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| text.parse::<Scope>().map_err(serde::de::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_all_stands_for_every_proxied_scope_and_for_nothing_else() {
        let key: Scopes = "proxy:*".parse().unwrap();
        assert!(key.allow(Scope::PaymentsWrite) && key.allow(Scope::AccountRead));
        assert!(!key.allow(Scope::ConnectWrite) && !key.allow(Scope::Admin));
    }

    #[test]
    fn a_key_cannot_make_a_stronger_key() {
        let key: Scopes = "admin payments:read".parse().unwrap();
        assert!(key.cover(&"payments:read".parse().unwrap()));
        assert!(!key.cover(&"payments:write".parse().unwrap()));
        assert!(!key.cover(&"proxy:*".parse().unwrap()));
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        assert_eq!(
            Scopes::all().to_string().parse::<Scopes>().unwrap(),
            Scopes::all()
        );
        assert!("payments:delete".parse::<Scopes>().is_err());
    }
}
