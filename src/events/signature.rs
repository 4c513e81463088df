//! Standard Webhooks signatures (<https://www.standardwebhooks.com>): `v1,` and base64 of HMAC-SHA256 over
//! `webhook-id.webhook-timestamp.body`, one for each secret that is valid at the moment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::random::Random;
use crate::domain::secret::EndpointSecret;

const PREFIX: &str = "whsec_";

/// A new secret: `whsec_` and 32 random bytes as padded base64.
pub(super) fn generate_secret(random: &Random) -> EndpointSecret {
    EndpointSecret::new(format!("{PREFIX}{}", STANDARD.encode(random.bytes::<32>())))
}

/// The value of `webhook-signature`. A secret that is none of ours signs nothing.
pub(super) fn sign(secrets: &[EndpointSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures = secrets.iter().filter_map(|secret| {
        let key = STANDARD.decode(secret.expose().strip_prefix(PREFIX)?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret = EndpointSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs() {
        let random = Random::seeded(1);
        let secrets = [generate_secret(&random), generate_secret(&random)];
        let both = sign(&secrets, "evt_1", 1, b"{}");
        let alone = |one: &EndpointSecret| sign(std::slice::from_ref(one), "evt_1", 1, b"{}");
        assert_eq!(both, format!("{} {}", alone(&secrets[0]), alone(&secrets[1])));
    }
}
