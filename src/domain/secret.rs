//! Secrets are types that cannot print: `Debug` redacts, there is no `Display` and no `Serialize`, memory is zeroised on
//! drop, and the text comes out only by a call that can be searched for: `expose()`.
//!
//! Each kind is its own type, so that a refresh token cannot be passed where an access token belongs.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

macro_rules! secret_types {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// Takes the text over; the caller should not keep a copy.
            pub fn new(text: impl Into<String>) -> Self {
                Self(SecretString::from(text.into()))
            }

            /// The text itself, for the moment in which it is used.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    )+};
}

secret_types! {
    /// Access token (RFC 6749 section 1.4): what a proxied call is authorised with.
    AccessToken,
    /// Refresh token (RFC 6749 section 1.5): single-use at Mercado Pago, the only way to the next token set.
    RefreshToken,
    /// Authorization code (RFC 6749 section 1.3.1).
    AuthorizationCode,
    /// PKCE code verifier (RFC 7636 section 4.1).
    CodeVerifier,
    /// `state` of an authorization request (RFC 6749 section 4.1.1).
    State,
    /// Client secret of an application (RFC 6749 section 2.3.1).
    ClientSecret,
    /// What Mercado Pago signs notifications with.
    WebhookSecret,
    /// What our deliveries to an event endpoint are signed with, `whsec_...`.
    EndpointSecret,
    /// A platform's API key, `mck_...`.
    ApiKeySecret,
    /// Token in the path of a connect link.
    LinkToken,
    /// Random id of the browser that a connect flow was begun in, kept in its cookie.
    BrowserId,
    /// Session id of a signed-in admin, kept in the console's cookie.
    SessionToken,
    /// A password that somebody typed or that was made for them.
    Password,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_kind_and_never_the_text() {
        let shown = format!(
            "{:?} {:#?}",
            AccessToken::new("APP_USR-canary"),
            Some(Password::new("canary"))
        );
        assert!(shown.contains("AccessToken([redacted])"));
        assert!(!shown.contains("canary"));
    }
}
