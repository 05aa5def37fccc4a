//! X25519 key pairs: the Manager's, pinned in tokens, and each delegate's, which is its identity.

use std::{fmt, sync::Arc};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use legation_model::{Entropy, Secret};
use sha2::{Digest, Sha256};

/// A static X25519 key pair (RFC 7748).
///
/// The parsed form is made once and shared: parsing costs a scalar multiplication, as much as a quarter of
/// a handshake.
#[derive(Clone)]
pub struct KeyPair {
    /// The public half.
    pub public: [u8; 32],
    /// The private half.
    pub private: Secret<32>,
    pub(crate) parsed: Arc<PrivateKey>,
}

impl KeyPair {
    /// Draws a new pair.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_private(Secret::random(entropy))
    }

    /// The pair that belongs to a stored private key.
    pub fn from_private(private: Secret<32>) -> Self {
        let parsed = PrivateKey::from_private_key(&X25519, private.expose())
            .expect("any 32 bytes are an X25519 private key (RFC 7748, section 5)");
        let public = parsed.compute_public_key().expect("a parsed key has a public half");
        let public = public.as_ref().try_into().expect("an X25519 public key has 32 bytes");
        Self { public, private, parsed: Arc::new(parsed) }
    }

    /// The short name of the public half.
    pub fn id(&self) -> [u8; 8] {
        key_id(&self.public)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The short name of a public key: the first 8 bytes of its SHA-256.
///
/// It goes in clear in the preamble so that a Manager with several keys picks the right one; it proves
/// nothing.
pub fn key_id(public: &[u8; 32]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(public).into();
    *digest.first_chunk().expect("32 bytes begin with 8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_matches_the_vector_of_rfc_7748() {
        let mut nine = [0; 32];
        nine[0] = 9;
        let pair = KeyPair::from_private(Secret::new(nine));
        assert_eq!(pair.public[..4], [0x42, 0x2c, 0x8e, 0x7a]);
        assert_eq!(pair.public[28..], [0x11, 0xae, 0x30, 0x79]);
    }

    #[test]
    fn debug_tells_nothing_of_the_private_half() {
        let pair = KeyPair::from_private(Secret::new([0xab; 32]));
        assert!(!format!("{pair:?}").contains("171, 171"));
    }
}
