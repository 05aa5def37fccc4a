//! The primitives under the Noise handshake, and the sealed transport after it.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
};
use legation_model::Secret;
use sha2::{Digest, Sha256};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use crate::{KeyPair, close::Close};

/// The longest Noise message, and so the longest WebSocket message, in bytes (Noise, section 3).
pub const MESSAGE_MAX: usize = 65_535;
/// What sealing adds, in bytes: the authentication tag of ChaCha20-Poly1305.
pub const TAG_LEN: usize = 16;

/// The two keys and counters of an established session.
///
/// It holds bare keys: an AEAD key object is built for each message, which costs some 30 ns and saves more
/// than a kilobyte for each connection.
pub(crate) struct Transport(snow::TransportState);

impl Transport {
    pub(crate) const fn new(state: snow::TransportState) -> Self {
        Self(state)
    }

    /// Seals at most [`MESSAGE_MAX`] − [`TAG_LEN`] bytes as the next message.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; plain.len() + TAG_LEN];
        self.0.write_message(plain, &mut sealed).expect("a part fits a message, and 2^64 messages are never sent");
        sealed
    }

    /// Opens the next message of the other side; any message that is not exactly that one fails.
    pub(crate) fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Close> {
        let length = sealed.len().checked_sub(TAG_LEN).ok_or(Close::Undecipherable)?;
        let mut plain = Zeroizing::new(vec![0; length]);
        self.0.read_message(sealed, &mut plain).map_err(|_| Close::Undecipherable)?;
        Ok(plain)
    }
}

/// Gives snow its primitives: X25519 and ChaCha20-Poly1305 from AWS-LC, SHA-256 from RustCrypto, which is
/// faster for inputs this short. The static key comes parsed, the entropy drawn.
pub(crate) struct Primitives {
    /// This side's static key.
    pub(crate) own: Arc<PrivateKey>,
    /// Its public half.
    pub(crate) public: [u8; 32],
    /// The seed of this handshake's only ephemeral key.
    pub(crate) ephemeral: Secret<32>,
}

impl Primitives {
    pub(crate) fn new(own: &KeyPair, ephemeral: Secret<32>) -> Self {
        Self { own: Arc::clone(&own.parsed), public: own.public, ephemeral }
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let curve = Curve { own: Arc::clone(&self.own), public: self.public, key: None };
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(curve) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha(Sha256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let cipher = ChaChaPoly(Secret::new([0; 32]));
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(cipher) as Box<dyn Cipher>)
    }
}

/// Entropy that was drawn before; good for one ephemeral key and no more.
struct Drawn(Option<Secret<32>>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.expose().len() == out.len()).ok_or(Error::Rng)?;
        out.copy_from_slice(drawn.expose());
        Ok(())
    }
}

/// One X25519 key of the handshake: the static one once snow sets it, the ephemeral one once it is made.
struct Curve {
    own: Arc<PrivateKey>,
    public: [u8; 32],
    key: Option<Arc<PrivateKey>>,
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// Takes the static key, the only one that snow ever sets, from where it lies parsed.
    fn set(&mut self, _: &[u8]) {
        self.key = Some(Arc::clone(&self.own));
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        let pair = KeyPair::from_private(Secret::new(*private));
        self.public = pair.public;
        self.key = Some(pair.parsed);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    /// Empty: nothing in a handshake asks for it, and so nothing can leak it.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let key = self.key.as_ref().ok_or(Error::Dh)?;
        let public = public.get(..32).ok_or(Error::Dh)?;
        agree(key, UnparsedPublicKey::new(&X25519, public), Error::Dh, |shared| {
            out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared);
            Ok(())
        })
    }
}

struct Sha(Sha256);

impl Hash for Sha {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

/// A bare key (RFC 8439, with the nonce of Noise section 12.3).
struct ChaChaPoly(Secret<32>);

impl ChaChaPoly {
    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, self.0.expose()).expect("the key has 32 bytes"))
    }
}

/// Four zero bytes and the counter, little-endian.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Secret::new(*key);
    }

    fn encrypt(&self, counter: u64, aad: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (sealed, tag) = out[..plain.len() + TAG_LEN].split_at_mut(plain.len());
        sealed.copy_from_slice(plain);
        let made: Tag = self
            .key()
            .seal_in_place_separate_tag(nonce(counter), Aad::from(aad), sealed)
            .expect("ChaCha20-Poly1305 seals up to 256 GiB");
        tag.copy_from_slice(made.as_ref());
        plain.len() + TAG_LEN
    }

    fn decrypt(&self, counter: u64, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let length = sealed.len().checked_sub(TAG_LEN).ok_or(Error::Decrypt)?;
        let (text, tag) = sealed.split_at(length);
        let out = out.get_mut(..length).ok_or(Error::Decrypt)?;
        self.key().open_separate_gather(nonce(counter), Aad::from(aad), text, tag, out).map_err(|_| Error::Decrypt)?;
        Ok(length)
    }
}
