//! The vault: how tokens lie at rest (DESIGN.md section 7).
//!
//! Envelope encryption with AES-256-GCM: each connection has a random data key of its own, which seals its token fields;
//! the data key itself is wrapped by the active key of `ENCRYPTION_KEYS`. Rotating the operator's key re-wraps data keys,
//! not tokens, and destroying one data key destroys a connection's secrets.
//!
//! Every ciphertext is `version | key id | nonce | ciphertext | tag`. The nonce comes from the operating system for every
//! write, never from [`crate::domain::random::Random`], which a test may seed. The header and the place that the
//! ciphertext belongs to ([`Place`]) are authenticated with it, so a ciphertext that is moved to another row, column or
//! application does not open.
//!
//! Does not protect against an older row being put back in its own place (rollback), nor against who can read this
//! process's memory. Random 96-bit nonces allow some 2^32 seals under one key (NIST SP 800-38D section 8.3): far above what
//! a data key ever sees, and above the connections that one operator's key wraps.

mod keyring;

use aes_gcm::aead::{Aead as _, Generate as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use keyring::{InvalidKeyring, KeyId, Keyring};

use crate::domain::ids::ApplicationId;

const VERSION: u8 = 1;
const NONCE_LENGTH: usize = 12;
const KEY_LENGTH: usize = 32;

/// Why a ciphertext does not open. None of them changes anything that is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key that sealed it is not configured.
    #[error("sealed with key `{0}`, which is not in ENCRYPTION_KEYS; add it behind the active key")]
    UnknownKey(KeyId),
    /// The key is there, but ciphertext, place or key value is not what it was sealed with.
    #[error("does not open with key `{0}`: the ciphertext was altered or moved, or the key's value is wrong")]
    Tampered(KeyId),
    /// Not one of our ciphertexts, or cut short.
    #[error("is not a ciphertext of this vault (truncated or of another version)")]
    Malformed,
}

/// Where a ciphertext belongs. It opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Table, or the kind of file.
    pub table: &'a str,
    /// Id of the row.
    pub row: &'a str,
    /// Column.
    pub column: &'a str,
    /// Application that the row belongs to.
    pub application: &'a ApplicationId,
}

impl Place<'_> {
    /// `header`, then each part with its length before it, so that no two places give the same bytes.
    fn authenticated_with(&self, header: &[u8]) -> Vec<u8> {
        let parts = [self.table, self.row, self.column, self.application.as_str()];
        let mut bytes = header.to_vec();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// A key with the id that stands in its ciphertexts.
#[derive(Clone)]
struct NamedKey {
    id: KeyId,
    key: Zeroizing<[u8; KEY_LENGTH]>,
}

impl NamedKey {
    fn seal(&self, plaintext: &[u8], place: Place<'_>) -> Vec<u8> {
        let nonce = Nonce::generate();
        let mut sealed = header(&self.id);
        let aad = place.authenticated_with(&sealed);
        #[expect(clippy::expect_used, reason = "AES-GCM refuses only plaintexts above 64 GiB")]
        let ciphertext = self
            .cipher()
            .encrypt(
                &nonce,
                Payload {
                    msg: plaintext,
                    aad: &aad,
                },
            )
            .expect("a token is shorter than 64 GiB");
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    fn open(&self, sealed: &[u8], place: Place<'_>) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let parts = Parts::of(sealed)?;
        if parts.key_id != self.id.as_str() {
            return Err(VaultError::UnknownKey(parts.key_id()?));
        }
        let nonce = Nonce::try_from(parts.nonce).map_err(|_| VaultError::Malformed)?;
        let aad = place.authenticated_with(&header(&self.id));
        self.cipher()
            .decrypt(
                &nonce,
                Payload {
                    msg: parts.ciphertext,
                    aad: &aad,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| VaultError::Tampered(self.id.clone()))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.key).into())
    }
}

fn header(id: &KeyId) -> Vec<u8> {
    // An id has at most 32 characters, so its length fits a byte.
    let mut header = vec![VERSION, u8::try_from(id.as_str().len()).unwrap_or(u8::MAX)];
    header.extend_from_slice(id.as_str().as_bytes());
    header
}

/// A ciphertext taken apart.
struct Parts<'a> {
    key_id: &'a str,
    nonce: &'a [u8],
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Result<Self, VaultError> {
        let (&version, rest) = sealed.split_first().ok_or(VaultError::Malformed)?;
        let (&length, rest) = rest.split_first().ok_or(VaultError::Malformed)?;
        if version != VERSION {
            return Err(VaultError::Malformed);
        }
        let (key_id, rest) = rest
            .split_at_checked(length.into())
            .ok_or(VaultError::Malformed)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LENGTH).ok_or(VaultError::Malformed)?;
        let key_id = std::str::from_utf8(key_id).map_err(|_| VaultError::Malformed)?;
        Ok(Self {
            key_id,
            nonce,
            ciphertext,
        })
    }

    fn key_id(&self) -> Result<KeyId, VaultError> {
        self.key_id.parse().map_err(|_| VaultError::Malformed)
    }
}

/// A connection's own key. Exists in memory only while something is sealed or opened with it.
#[derive(Clone)]
pub struct DataKey(NamedKey);

impl DataKey {
    /// A new random key, from the operating system.
    pub fn generate() -> Self {
        let key = Zeroizing::new(<[u8; KEY_LENGTH]>::generate());
        let id = KeyId::from_random(<[u8; 8]>::generate());
        Self(NamedKey { id, key })
    }

    /// Seals `plaintext` for `place`.
    pub fn seal(&self, plaintext: &[u8], place: Place<'_>) -> Vec<u8> {
        self.0.seal(plaintext, place)
    }

    /// What is wrapped: the key and its id.
    fn plaintext(&self) -> Zeroizing<Vec<u8>> {
        let mut plaintext = Zeroizing::new(self.0.key.to_vec());
        plaintext.extend_from_slice(self.0.id.as_str().as_bytes());
        plaintext
    }

    /// Opens what was sealed with this key for this place.
    pub fn open(&self, sealed: &[u8], place: Place<'_>) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.0.open(sealed, place)
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey([redacted])")
    }
}

/// Wraps and unwraps data keys with the operator's keys.
#[derive(Debug, Clone)]
pub struct Vault {
    keyring: Keyring,
}

impl Vault {
    /// A vault over the operator's keys.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring }
    }

    /// The keys it was made with.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Wraps a data key with the active key.
    pub fn wrap(&self, data_key: &DataKey, place: Place<'_>) -> Vec<u8> {
        self.keyring.active().seal(&data_key.plaintext(), place)
    }

    /// Wraps a throw-away data key with the key `id`, to find out later whether that is still the same key. None when it is
    /// not configured.
    pub fn canary(&self, id: &KeyId, place: Place<'_>) -> Option<Vec<u8>> {
        let key = self.keyring.find(id)?;
        Some(key.seal(&DataKey::generate().plaintext(), place))
    }

    /// Unwraps a data key with whichever configured key wrapped it.
    pub fn unwrap(&self, wrapped: &[u8], place: Place<'_>) -> Result<DataKey, VaultError> {
        let id = Parts::of(wrapped)?.key_id()?;
        let key = self.keyring.find(&id).ok_or(VaultError::UnknownKey(id))?;
        let plaintext = key.open(wrapped, place)?;
        let (key, id) = plaintext
            .split_at_checked(KEY_LENGTH)
            .ok_or(VaultError::Malformed)?;
        let id = std::str::from_utf8(id)
            .ok()
            .and_then(|id| id.parse().ok())
            .ok_or(VaultError::Malformed)?;
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        bytes.copy_from_slice(key);
        Ok(DataKey(NamedKey { id, key: bytes }))
    }

    /// HMAC-SHA-256 of `bytes` under a key derived for `purpose` from the configured key `id`; none when that is not
    /// configured. The operator's key itself only ever encrypts.
    pub fn authenticate(&self, id: &KeyId, purpose: &str, bytes: &[u8]) -> Option<[u8; 32]> {
        Some(self.mac(id, purpose, bytes)?.finalize().into_bytes().into())
    }

    /// Whether `mac` is what [`Self::authenticate`] gives, compared in constant time.
    pub fn verify(&self, id: &KeyId, purpose: &str, bytes: &[u8], mac: &[u8]) -> Option<bool> {
        Some(self.mac(id, purpose, bytes)?.verify_slice(mac).is_ok())
    }

    fn mac(&self, id: &KeyId, purpose: &str, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let key = self.keyring.find(id)?;
        let keyed = |key: &[u8]| <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).ok();
        let mut derive = keyed(&*key.key)?;
        derive.update(purpose.as_bytes());
        let derived = Zeroizing::new(derive.finalize().into_bytes().to_vec());
        let mut mac = keyed(&derived)?;
        mac.update(bytes);
        Some(mac)
    }

    /// The id of the key that wrapped a data key.
    pub fn wrapped_by(wrapped: &[u8]) -> Result<KeyId, VaultError> {
        Parts::of(wrapped)?.key_id()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn application() -> ApplicationId {
        ApplicationId::default_application()
    }

    fn place(application: &ApplicationId) -> Place<'_> {
        Place {
            table: "connections",
            row: "con_1",
            column: "access_token",
            application,
        }
    }

    fn vault(keys: &str) -> Vault {
        Vault::new(keys.parse().unwrap())
    }

    const KEY_1: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const KEY_2: &str = "k2:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    #[test]
    fn what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let (default, other) = (application(), "other".parse().unwrap());
        let key = DataKey::generate();
        let sealed = key.seal(b"APP_USR-1", place(&default));
        assert_eq!(&**key.open(&sealed, place(&default)).unwrap(), b"APP_USR-1");
        let elsewhere = [
            Place {
                table: "events",
                ..place(&default)
            },
            Place {
                row: "con_2",
                ..place(&default)
            },
            Place {
                column: "refresh_token",
                ..place(&default)
            },
            Place {
                application: &other,
                ..place(&default)
            },
            Place {
                table: "connection",
                row: "scon_1",
                ..place(&default)
            },
        ];
        for place in elsewhere {
            assert!(
                matches!(key.open(&sealed, place), Err(VaultError::Tampered(_))),
                "{place:?}"
            );
        }
    }

    #[test]
    fn another_connections_key_does_not_open_it() {
        let default = application();
        let sealed = DataKey::generate().seal(b"x", place(&default));
        assert!(matches!(
            DataKey::generate().open(&sealed, place(&default)),
            Err(VaultError::UnknownKey(_))
        ));
    }

    #[test]
    fn a_data_key_comes_back_from_its_wrapping_also_after_the_active_key_changed() {
        let default = application();
        let key = DataKey::generate();
        let wrapped = vault(KEY_1).wrap(&key, place(&default));
        let sealed = key.seal(b"token", place(&default));
        let unwrapped = vault(&format!("{KEY_2},{KEY_1}"))
            .unwrap(&wrapped, place(&default))
            .unwrap();
        assert_eq!(&**unwrapped.open(&sealed, place(&default)).unwrap(), b"token");
        assert_eq!(Vault::wrapped_by(&wrapped).unwrap().as_str(), "k1");
    }

    #[test]
    fn a_missing_key_and_a_wrong_value_are_told_apart() {
        let default = application();
        let wrapped = vault(KEY_1).wrap(&DataKey::generate(), place(&default));
        let missing = vault(KEY_2).unwrap(&wrapped, place(&default)).unwrap_err();
        assert_eq!(missing, VaultError::UnknownKey("k1".parse().unwrap()));
        let wrong = KEY_2.replace("k2", "k1");
        let tampered = vault(&wrong).unwrap(&wrapped, place(&default)).unwrap_err();
        assert_eq!(tampered, VaultError::Tampered("k1".parse().unwrap()));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_a_clean_error() {
        let default = application();
        let vault = vault(KEY_1);
        let wrapped = vault.wrap(&DataKey::generate(), place(&default));
        for length in 0..wrapped.len() {
            assert!(
                vault.unwrap(&wrapped[..length], place(&default)).is_err(),
                "{length}"
            );
        }
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(vault.unwrap(&flipped, place(&default)).is_err(), "{bit}");
        }
    }

    #[test]
    fn a_million_seals_repeat_no_nonce() {
        let default = application();
        let key = DataKey::generate();
        let mut seen = HashSet::with_capacity(1_000_000);
        for _ in 0..1_000_000 {
            let sealed = key.seal(b"", place(&default));
            let nonce: [u8; NONCE_LENGTH] = Parts::of(&sealed).unwrap().nonce.try_into().unwrap();
            assert!(seen.insert(nonce));
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_ciphertext_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let default = application();
            prop_assert!(vault(KEY_1).unwrap(&bytes, place(&default)).is_err());
        }
    }
}
