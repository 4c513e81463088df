//! The operator's keys, as `ENCRYPTION_KEYS` gives them: `id:base64[,id:base64...]`. The first is active, the others only
//! open (DESIGN.md section 4).

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use aes_gcm::aead::Generate as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KEY_LENGTH, NamedKey};

/// Name of a key: 1-32 of `A-Za-z0-9_-`. Stands in every ciphertext of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn from_random(bytes: [u8; 8]) -> Self {
        Self(bytes.iter().fold(String::with_capacity(16), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyring;

    fn from_str(text: &str) -> Result<Self, InvalidKeyring> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidKeyring(
                "a key's id is 1 to 32 of A-Z a-z 0-9 _ -".to_owned(),
            ))
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a text of keys, and the mend. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeyring(String);

/// The configured keys: one that seals, and all that open.
#[derive(Clone)]
pub struct Keyring {
    active: NamedKey,
    others: Vec<NamedKey>,
}

impl Keyring {
    /// A new key with an id, in the form of `ENCRYPTION_KEYS`. Random from the operating system.
    pub fn generate_entry() -> Zeroizing<String> {
        let key = Zeroizing::new(<[u8; KEY_LENGTH]>::generate());
        let id = KeyId::from_random(<[u8; 8]>::generate());
        Zeroizing::new(format!("k{id}:{}", STANDARD.encode(*key)))
    }

    /// The id of the key that seals.
    pub fn active_id(&self) -> &KeyId {
        &self.active.id
    }

    /// The ids of all keys, the active one first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        std::iter::once(&self.active)
            .chain(&self.others)
            .map(|key| &key.id)
    }

    pub(super) fn active(&self) -> &NamedKey {
        &self.active
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&NamedKey> {
        std::iter::once(&self.active)
            .chain(&self.others)
            .find(|key| key.id == *id)
    }
}

impl FromStr for Keyring {
    type Err = InvalidKeyring;

    fn from_str(text: &str) -> Result<Self, InvalidKeyring> {
        let mut keys: Vec<NamedKey> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let key = parse_entry(entry.trim())
                .map_err(|problem| InvalidKeyring(format!("entry {}: {problem}", index + 1)))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(InvalidKeyring(format!(
                    "key id `{}` stands twice; give each key its own id",
                    key.id
                )));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let active = keys
            .next()
            .ok_or_else(|| InvalidKeyring("there is no key".to_owned()))?;
        Ok(Self {
            active,
            others: keys.collect(),
        })
    }
}

fn parse_entry(entry: &str) -> Result<NamedKey, InvalidKeyring> {
    let form = "a key is `id:base64`, as `keys generate` prints it";
    let (id, encoded) = entry
        .split_once(':')
        .ok_or_else(|| InvalidKeyring(form.to_owned()))?;
    let id = id.parse()?;
    let decoded = STANDARD
        .decode(encoded)
        .map(Zeroizing::new)
        .map_err(|_| InvalidKeyring(format!("the key of `{id}` is not standard padded base64; {form}")))?;
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    if decoded.len() != KEY_LENGTH {
        let length = decoded.len();
        return Err(InvalidKeyring(format!(
            "the key of `{id}` has {length} bytes instead of {KEY_LENGTH}; {form}"
        )));
    }
    key.copy_from_slice(&decoded);
    Ok(NamedKey { id, key })
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids().map(KeyId::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_accepted_and_differs_each_time() {
        let entry = Keyring::generate_entry();
        let keyring: Keyring = entry.parse().unwrap();
        assert!(entry.starts_with(keyring.active_id().as_str()));
        assert_ne!(*entry, *Keyring::generate_entry());
    }

    #[test]
    fn each_way_to_be_wrong_is_named_and_no_key_is_shown() {
        let key = STANDARD.encode([7_u8; 32]);
        let cases = [
            (String::new(), "entry 1: a key is `id:base64`"),
            (key.clone(), "entry 1: a key is `id:base64`"),
            (format!("a b:{key}"), "entry 1: a key's id is 1 to 32"),
            (
                format!("k1:{}", &key[..40]),
                "entry 1: the key of `k1` has 30 bytes instead of 32",
            ),
            (
                format!("k1:{}", key.trim_end_matches('=')),
                "entry 1: the key of `k1` is not standard padded base64",
            ),
            (format!("k1:{key},k1:{key}"), "key id `k1` stands twice"),
            (format!("k1:{key},"), "entry 2: a key is `id:base64`"),
        ];
        for (text, expected) in cases {
            let problem = text.parse::<Keyring>().unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
            assert!(!problem.contains(&key[..20]));
        }
    }

    #[test]
    fn debug_shows_ids_only() {
        let keyring: Keyring = format!("k1:{}", STANDARD.encode([7_u8; 32])).parse().unwrap();
        assert_eq!(format!("{keyring:?}"), r#"["k1"]"#);
    }
}
