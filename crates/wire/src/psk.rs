//! From a token's secret to the key that both ends mix into the handshake.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use legation_model::{Secret, ids::TokenId};
use zeroize::Zeroizing;

/// The HKDF salt; it separates this use of the secret from any other.
const SALT: &[u8] = b"legation delegate token v1";

/// Derives the pre-shared key of one generation of one token.
///
/// HKDF-SHA256 (RFC 5869) over the secret, with the salt `legation delegate token v1` and, as info, the 16
/// bytes of the id followed by the generation as four big-endian bytes. The Manager keeps only this key,
/// never the secret.
pub fn derive(secret: &Secret<32>, token: TokenId, generation: u32) -> Secret<32> {
    let generation = generation.to_be_bytes();
    let info: [&[u8]; 2] = [&token.0, &generation];
    let mut psk = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, SALT)
        .extract(secret.expose())
        .expand(&info, HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *psk))
        .expect("32 bytes are within what HKDF-SHA256 gives");
    Secret::new(*psk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_secret_id_and_generation() {
        let psk = |secret: u8, id: u8, generation| derive(&Secret::new([secret; 32]), TokenId([id; 16]), generation);
        assert_eq!(psk(1, 2, 3), psk(1, 2, 3));
        assert_ne!(psk(1, 2, 3), psk(9, 2, 3));
        assert_ne!(psk(1, 2, 3), psk(1, 9, 3));
        assert_ne!(psk(1, 2, 3), psk(1, 2, 9));
    }
}
