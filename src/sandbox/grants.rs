//! What sellers have granted: authorization codes, access tokens, refresh tokens, and how each of them ends.
//!
//! Guarantees that a code and (while rotation is on) a refresh token work once, however many calls come at the same
//! instant: both are taken out of their map before anything else happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Why a grant ended (Mercado Pago's list of what disables a token, besides expiry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The seller changed the password.
    PasswordChange,
    /// The seller removed the application from the account.
    Deauthorized,
    /// Credentials were cleaned up for fraud.
    FraudCleanup,
    /// Sessions of the user were cleaned up.
    SessionCleanup,
    /// The application was deleted.
    ApplicationDeleted,
}

impl EndReason {
    /// The `error` with which the token endpoint answers afterwards.
    pub(super) fn oauth_error(self) -> &'static str {
        match self {
            Self::Deauthorized => "unauthorized_client",
            Self::FraudCleanup => "forbidden",
            Self::ApplicationDeleted => "invalid_client",
            Self::PasswordChange | Self::SessionCleanup => "invalid_grant",
        }
    }
}

/// How an access token came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Origin {
    /// A seller consented (authorization code, refresh).
    Consent,
    /// The application's own account (client credentials).
    OwnAccount,
}

/// What an access token allows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) user_id: u64,
    pub(super) client_id: String,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) origin: Origin,
    pub(super) live_mode: bool,
    pub(super) scopes: Vec<String>,
}

/// An authorization code, waiting to be exchanged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) user_id: u64,
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<Challenge>,
    pub(super) expires_at: DateTime<Utc>,
}

/// A PKCE code challenge (RFC 7636 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Challenge {
    /// SHA-256 of the verifier, base64url.
    S256(String),
    /// The verifier itself.
    Plain(String),
}

/// A refresh token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refresh {
    pub(super) user_id: u64,
    pub(super) client_id: String,
    pub(super) access_token: String,
    pub(super) live_mode: bool,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) ended: Option<EndReason>,
}

/// All that was granted, as it is kept in the state file.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct GrantsSnapshot {
    access: HashMap<String, Access>,
    codes: HashMap<String, Code>,
    refresh: HashMap<String, Refresh>,
}

/// All that was granted.
#[derive(Debug, Default)]
pub(super) struct Grants {
    access: RwLock<HashMap<String, Arc<Access>>>,
    codes: Mutex<HashMap<String, Code>>,
    refresh: Mutex<HashMap<String, Refresh>>,
}

/// Number of entries above which what has expired is thrown out.
const PRUNE_ABOVE: usize = 10_000;

impl Grants {
    /// What this access token allows now.
    pub(super) fn access(&self, token: &str, now: DateTime<Utc>) -> Option<Arc<Access>> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        access
            .get(token)
            .filter(|access| access.expires_at > now)
            .cloned()
    }

    /// Makes an access token valid.
    pub(super) fn put_access(&self, token: String, access: Access, now: DateTime<Utc>) {
        let mut tokens = self.access.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= PRUNE_ABOVE && tokens.len().is_power_of_two() {
            tokens.retain(|_, access| access.expires_at > now);
        }
        tokens.insert(token, Arc::new(access));
    }

    /// Makes an access token worthless.
    pub(super) fn drop_access(&self, token: &str) {
        self.access
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(token);
    }

    /// Keeps a code until it is taken.
    pub(super) fn put_code(&self, code: String, record: Code, now: DateTime<Utc>) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, code| code.expires_at > now);
        codes.insert(code, record);
    }

    /// Takes a code: whoever comes first has it, whatever it then turns out to be worth.
    pub(super) fn take_code(&self, code: &str) -> Option<Code> {
        self.codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(code)
    }

    /// Keeps a refresh token.
    pub(super) fn put_refresh(&self, token: String, refresh: Refresh) {
        self.refresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token, refresh);
    }

    /// Spends a refresh token: the record, and with `rotate` nobody else gets it any more. A token that is not the
    /// caller's stays as it is.
    pub(super) fn spend_refresh(
        &self,
        token: &str,
        client_id: &str,
        now: DateTime<Utc>,
        rotate: bool,
    ) -> Result<Refresh, &'static str> {
        let mut tokens = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let refresh = tokens.get(token).ok_or("invalid_grant")?;
        if let Some(reason) = refresh.ended {
            return Err(reason.oauth_error());
        }
        if refresh.client_id != client_id || refresh.expires_at <= now {
            return Err("invalid_grant");
        }
        if rotate {
            tokens.remove(token).ok_or("invalid_grant")
        } else {
            Ok(refresh.clone())
        }
    }

    /// Notes which access token a refresh token that is not rotated has now.
    pub(super) fn renew_refresh(&self, token: &str, access_token: &str, expires_at: DateTime<Utc>) {
        let mut tokens = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refresh) = tokens.get_mut(token) {
            access_token.clone_into(&mut refresh.access_token);
            refresh.expires_at = expires_at;
        }
    }

    /// Ends every grant that matches; refresh tokens are kept so that the reason shows in the token endpoint's answer.
    /// Returns how many grants ended.
    pub(super) fn end(&self, reason: EndReason, matches: impl Fn(u64, &str) -> bool) -> usize {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let before = access.len();
        access.retain(|_, access| {
            let own = access.origin == Origin::OwnAccount && reason != EndReason::ApplicationDeleted;
            own || !matches(access.user_id, &access.client_id)
        });
        let dropped = before - access.len();
        drop(access);
        let mut ended = 0;
        for refresh in self
            .refresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
        {
            if refresh.ended.is_none() && matches(refresh.user_id, &refresh.client_id) {
                refresh.ended = Some(reason);
                ended += 1;
            }
        }
        self.codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, code| !matches(code.user_id, &code.client_id));
        ended.max(dropped)
    }

    /// Ends the access tokens alone, as their expiry would: the refresh tokens stay good.
    pub(super) fn expire_access(&self, matches: impl Fn(u64, &str) -> bool) -> usize {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let before = access.len();
        access.retain(|_, access| !matches(access.user_id, &access.client_id));
        before - access.len()
    }

    /// Applications that the seller has granted something to.
    pub(super) fn clients_of(&self, user_id: u64) -> Vec<String> {
        let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        let mut clients: Vec<String> = refresh
            .values()
            .filter(|refresh| refresh.user_id == user_id && refresh.ended.is_none())
            .map(|refresh| refresh.client_id.clone())
            .chain(
                access
                    .values()
                    .filter(|a| a.user_id == user_id)
                    .map(|a| a.client_id.clone()),
            )
            .collect();
        clients.sort();
        clients.dedup();
        clients
    }

    /// A copy for the state file.
    pub(super) fn snapshot(&self) -> GrantsSnapshot {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        GrantsSnapshot {
            access: access
                .iter()
                .map(|(token, access)| (token.clone(), Access::clone(access)))
                .collect(),
            codes: self.codes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            refresh: self
                .refresh
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// What a state file held.
    pub(super) fn restore(snapshot: GrantsSnapshot) -> Self {
        Self {
            access: RwLock::new(
                snapshot
                    .access
                    .into_iter()
                    .map(|(t, a)| (t, Arc::new(a)))
                    .collect(),
            ),
            codes: Mutex::new(snapshot.codes),
            refresh: Mutex::new(snapshot.refresh),
        }
    }
}
