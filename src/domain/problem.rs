//! The codes that every error answer of ours carries (DESIGN.md section 5), in one table: what status a code has, how it is
//! titled, who can mend it, and whether the same request may be sent again.
//!
//! The two shapes in which a code reaches a caller (`application/problem+json` under `/v1`, Mercado Pago's own members
//! under `/proxy`) are built where they are sent. A code's status and meaning never change: platforms match on them.

use serde::Serialize;

/// Who can mend what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The platform, by another request.
    Caller,
    /// Whoever operates this service.
    Connector,
    /// Mercado Pago.
    Provider,
    /// The seller, by connecting (again).
    Seller,
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $fault:ident, $retryable:literal, $title:literal;)+) => {
        /// What went wrong, as a caller's program reads it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
        pub enum ProblemCode { $($(#[$doc])* #[serde(rename = $text)] $name,)+ }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text of the code, as in `code` and in the header `Connector-Error`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The HTTP status that always goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// What went wrong, for a person.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// `type` (RFC 9457 section 3.1.1).
            pub fn type_uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:marketplace-connector:problem:", $text),)+ }
            }

            /// Who can mend it.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)+ }
            }

            /// Whether the same request may be sent again and can then succeed without anybody changing anything. For a
            /// proxied call whose outcome is unknown this holds only with its idempotency key; the proxy says so there.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)+ }
            }
        }
    };
}

problem_codes! {
    /// The request cannot be read.
    InvalidRequest = "invalid_request", 400, Caller, false, "The request cannot be read";
    /// The path has characters or segments that are never forwarded.
    InvalidPath = "invalid_path", 400, Caller, false, "The path is not allowed";
    /// No API key, an unknown, expired or revoked one.
    InvalidApiKey = "invalid_api_key", 401, Caller, false, "The API key is missing or not valid";
    /// The API key lacks the scope that the route needs.
    InsufficientScope = "insufficient_scope", 403, Caller, false, "The API key lacks the scope for this";
    /// The route is not in the table of forwarded routes.
    RouteNotAllowed = "route_not_allowed", 403, Caller, false, "The route is not forwarded";
    /// There is nothing at this address.
    NotFound = "not_found", 404, Caller, false, "There is nothing here";
    /// No such connection in the key's application.
    ConnectionNotFound = "connection_not_found", 404, Caller, false, "The seller is not connected";
    /// The connection was ended.
    ConnectionRevoked = "connection_revoked", 409, Seller, false, "The connection was revoked";
    /// The grant is dead.
    ReconnectRequired = "reconnect_required", 409, Seller, false, "The seller has to connect again";
    /// The seller came back with another Mercado Pago account.
    AccountMismatch = "account_mismatch", 409, Seller, false, "The Mercado Pago account is another one than before";
    /// The same payment was sent a moment ago under another idempotency key.
    DuplicatePaymentSuspected = "duplicate_payment_suspected", 409, Caller, false, "The payment looks like a duplicate";
    /// The state of what is changed does not allow it.
    Conflict = "conflict", 409, Caller, false, "The request conflicts with what is there";
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", 413, Caller, false, "The body is too large";
    /// The request can be read, but a value makes no sense.
    InvalidField = "invalid_field", 422, Caller, false, "A value is not valid";
    /// Too many attempts.
    RateLimited = "rate_limited", 429, Caller, true, "Too many attempts";
    /// A defect of this service.
    InternalError = "internal_error", 500, Connector, false, "The connector failed";
    /// Mercado Pago was not reached: nothing was sent.
    ProviderUnreachable = "provider_unreachable", 502, Provider, true, "Mercado Pago was not reached";
    /// Mercado Pago answered something that is no HTTP answer, or not the one it should be.
    ProviderProtocolError = "provider_protocol_error", 502, Provider, false, "Mercado Pago's answer was not understood";
    /// More calls than the limits allow.
    Overloaded = "overloaded", 503, Connector, true, "Too many calls at once";
    /// The database does not answer.
    StoreUnavailable = "store_unavailable", 503, Connector, true, "The connector's database does not answer";
    /// The process is stopping.
    ShuttingDown = "shutting_down", 503, Connector, true, "The connector is shutting down";
    /// The access token is over and refreshing fails for now.
    TokenUnavailable = "token_unavailable", 503, Provider, true, "The seller's token cannot be renewed for now";
    /// Mercado Pago did not answer in time.
    ProviderTimeout = "provider_timeout", 504, Provider, true, "Mercado Pago did not answer in time";
    /// The connection to Mercado Pago broke before the answer was there.
    ProviderConnectionLost = "provider_connection_lost", 504, Provider, true, "The connection to Mercado Pago was lost";
}

/// `instance` (RFC 9457 section 3.1.5) of an answer to the request with this `X-Request-Id`.
pub fn instance(request_id: &str) -> String {
    format!("urn:marketplace-connector:request:{request_id}")
}

impl std::fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_snake_case_and_stands_once() {
        let mut texts: Vec<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(
            texts
                .iter()
                .all(|text| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), ProblemCode::ALL.len());
    }

    #[test]
    fn who_can_mend_it_agrees_with_the_status() {
        for code in ProblemCode::ALL {
            let by_status = match code.status() {
                500 | 503 => matches!(code.fault(), Fault::Connector | Fault::Provider),
                502 | 504 => code.fault() == Fault::Provider,
                _ => matches!(code.fault(), Fault::Caller | Fault::Seller),
            };
            assert!(by_status, "{code}");
        }
    }

    #[test]
    fn a_code_serialises_as_its_text() {
        assert_eq!(
            serde_json::to_value(ProblemCode::ConnectionRevoked).unwrap(),
            "connection_revoked"
        );
    }
}
