//! Credentials of those who use the service: API keys and admins' passwords, as the API, the console and the command line
//! make them alike.
//!
//! Guarantees that an API key has 256 random bits and is shown once, when it is made; that a password is kept as Argon2id
//! (RFC 9106) only; and that checking one takes as long for an unknown user as for a known one. Limits on attempts are the
//! sign-in page's.

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use chrono::{DateTime, Utc};

use crate::config::{Bootstrap, MIN_PASSWORD_CHARACTERS};
use crate::domain::clock::Clock;
use crate::domain::event::Actor;
use crate::domain::ids::{AdminId, ApiKeyId, ApplicationId};
use crate::domain::random::Random;
use crate::domain::scope::Scopes;
use crate::domain::secret::{ApiKeySecret, Password};
use crate::storage::{Admin, ApiKey, NewAdmin, NewApiKey, Role, Store, StoreError};

/// Longest password that is hashed: hashing a megabyte for a stranger would be a gift to them.
const MAX_PASSWORD_BYTES: usize = 1024;

/// A hash that no password has, so that an unknown user costs as much as a known one (made with the parameters of
/// [`Argon2::default`]).
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a credential could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The password is too short or absurdly long.
    #[error(
        "a password has at least {MIN_PASSWORD_CHARACTERS} characters and at most {MAX_PASSWORD_BYTES} bytes"
    )]
    WeakPassword,
    /// Hashing failed, which only a lack of memory explains.
    #[error("the password could not be hashed: {0}")]
    Hash(argon2::password_hash::Error),
    /// The store could not do it; `Conflict` when an admin with that address exists.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an API key shall be.
#[derive(Debug, Clone)]
pub struct ApiKeyRequest {
    /// The application it is bound to.
    pub application: ApplicationId,
    /// A name to know it by.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes an API key. Its secret is in the answer and nowhere else.
pub async fn create_api_key(
    store: &Store,
    request: ApiKeyRequest,
    actor: Actor,
    now: DateTime<Utc>,
    random: &Random,
) -> Result<(ApiKey, ApiKeySecret), StoreError> {
    let secret = ApiKeySecret::new(format!("mck_{}", random.base64url::<32>()));
    let key = api_key(request, now, random);
    store
        .create_api_key(
            &NewApiKey {
                key: key.clone(),
                secret: &secret,
            },
            actor,
        )
        .await?;
    Ok((key, secret))
}

fn api_key(request: ApiKeyRequest, now: DateTime<Utc>, random: &Random) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(now, random),
        application: request.application,
        name: request.name,
        scopes: request.scopes,
        created_at: now,
        expires_at: request.expires_at,
        revoked_at: None,
        last_used_at: None,
    }
}

/// Makes an admin who signs in with `password`.
pub async fn create_admin(
    store: &Store,
    email: &str,
    role: Role,
    password: &Password,
    actor: Actor,
    now: DateTime<Utc>,
    random: &Random,
) -> Result<Admin, AccessError> {
    let password_hash = hash_password(password.clone(), random).await?;
    let admin = Admin {
        id: AdminId::new(now, random),
        email: email.to_lowercase(),
        role,
        created_at: now,
    };
    store
        .create_admin(
            &NewAdmin {
                admin: admin.clone(),
                password_hash: &password_hash,
            },
            actor,
        )
        .await?;
    Ok(admin)
}

/// Gives an admin another password and ends their sessions. False when there is no such admin.
pub async fn reset_password(
    store: &Store,
    email: &str,
    password: &Password,
    actor: Actor,
    now: DateTime<Utc>,
    random: &Random,
) -> Result<bool, AccessError> {
    let password_hash = hash_password(password.clone(), random).await?;
    Ok(store.reset_password(email, &password_hash, actor, now).await?)
}

/// A password for somebody else to be told: 128 random bits.
pub fn generate_password(random: &Random) -> Password {
    Password::new(random.base64url::<16>())
}

/// Whether `password` is the one that was hashed; without a hash (there is no such user) false, after as long a time.
pub async fn verify_password(password: Password, hash: Option<String>) -> bool {
    if password.expose().len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let known = hash.is_some();
    let verify = move || {
        let hash = hash.as_deref().unwrap_or(NOBODY);
        PasswordHash::new(hash)
            .and_then(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash))
            .is_ok()
    };
    // Argon2 takes tens of milliseconds of one core: not on a thread that serves.
    tokio::task::spawn_blocking(verify).await.unwrap_or(false) && known
}

async fn hash_password(password: Password, random: &Random) -> Result<String, AccessError> {
    let text = password.expose();
    if text.chars().count() < MIN_PASSWORD_CHARACTERS || text.len() > MAX_PASSWORD_BYTES {
        return Err(AccessError::WeakPassword);
    }
    let salt = SaltString::encode_b64(&random.bytes::<16>()).map_err(AccessError::Hash)?;
    let hash = move || {
        Argon2::default()
            .hash_password(password.expose().as_bytes(), &salt)
            .map(|hash| hash.to_string())
    };
    tokio::task::spawn_blocking(hash)
        .await
        .unwrap_or(Err(argon2::password_hash::Error::Algorithm))
        .map_err(AccessError::Hash)
}

/// Makes what shall exist from the first start: the bootstrap API key, unless it exists or ever existed, and the first
/// owner, while no admin exists. Replicas may do it at the same time.
pub async fn bootstrap(
    store: &Store,
    bootstrap: &Bootstrap,
    clock: &dyn Clock,
    random: &Random,
) -> Result<(), AccessError> {
    let now = clock.now();
    if let Some(secret) = &bootstrap.api_key
        && store.find_api_key(secret).await?.is_none()
    {
        let request = ApiKeyRequest {
            application: ApplicationId::default_application(),
            name: "bootstrap".to_owned(),
            scopes: Scopes::all(),
            expires_at: None,
        };
        let new = NewApiKey {
            key: api_key(request, now, random),
            secret,
        };
        match store.create_api_key(&new, Actor::system()).await {
            // Another replica was faster.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some((email, password)) = &bootstrap.admin
        && store.list_admins().await?.is_empty()
    {
        match create_admin(store, email, Role::Owner, password, Actor::system(), now, random).await {
            Ok(_) | Err(AccessError::Store(StoreError::Conflict)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemClock;
    use crate::storage::tests::temporary_store;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_right() {
        let password = Password::new("correct horse battery");
        let hash = hash_password(password.clone(), &Random::system()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !hash.contains("horse"));
        assert!(verify_password(password.clone(), Some(hash.clone())).await);
        assert!(!verify_password(Password::new("correct horse batterx"), Some(hash)).await);
        assert!(!verify_password(password.clone(), None).await);
        assert!(!verify_password(password, Some("garbage".to_owned())).await);
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_real_one_costs() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = argon2::Params::try_from(&nobody).unwrap();
        assert_eq!(params.m_cost(), Argon2::default().params().m_cost());
        assert_eq!(params.t_cost(), Argon2::default().params().t_cost());
        assert_eq!(nobody.hash.unwrap().len(), 32);
    }

    #[tokio::test]
    async fn a_short_password_is_refused() {
        let refused = hash_password(Password::new("short"), &Random::system()).await;
        assert!(matches!(refused, Err(AccessError::WeakPassword)));
    }

    #[tokio::test]
    async fn a_bootstrap_key_that_was_revoked_stays_revoked_and_the_first_owner_is_made_once() {
        let (store, _folder) = temporary_store().await;
        let random = Random::system();
        let secret = ApiKeySecret::new("mck_0123456789012345678901234567890123456789");
        let settings = Bootstrap {
            api_key: Some(secret.clone()),
            admin: Some(("Owner@Example.com".to_owned(), Password::new("a long password"))),
        };
        bootstrap(&store, &settings, &SystemClock, &random).await.unwrap();
        let key = store.find_api_key(&secret).await.unwrap().unwrap();
        assert_eq!(key.scopes, Scopes::all());
        assert!(
            store
                .revoke_api_key(&key.id, None, Actor::operator(), SystemClock.now())
                .await
                .unwrap()
        );
        let other = Bootstrap {
            admin: Some(("b@example.com".to_owned(), Password::new("a long password"))),
            ..settings
        };
        bootstrap(&store, &other, &SystemClock, &random).await.unwrap();
        assert!(
            !store
                .find_api_key(&secret)
                .await
                .unwrap()
                .unwrap()
                .is_valid_at(SystemClock.now())
        );
        let admins: Vec<_> = store
            .list_admins()
            .await
            .unwrap()
            .into_iter()
            .map(|admin| admin.email)
            .collect();
        assert_eq!(admins, ["owner@example.com"]);
    }
}
