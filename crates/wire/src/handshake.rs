//! The three messages that open a session: `Noise_XKpsk3_25519_ChaChaPoly_SHA256`, never to change.
//!
//! The delegate starts and knows the Manager's key from its token. Its own key is its identity. The token's
//! key is mixed in last, so that a delegate proves key and token in one step, and learns from the second
//! message only that it talks to the Manager.

use std::sync::LazyLock;

use legation_model::{Entropy, Secret, ids::TokenId, token::Token};
use snow::{Builder, HandshakeState, params::NoiseParams};
use zeroize::Zeroizing;

use crate::{
    KeyPair,
    cipher::{Primitives, TAG_LEN, Transport},
    close::Close,
    preamble::{PREAMBLE_LEN, Preamble, Role, UNSUPPORTED, choose_version},
    psk,
};

/// The protocol name that Noise mixes in first.
pub const NOISE_NAME: &str = "Noise_XKpsk3_25519_ChaChaPoly_SHA256";
/// Bytes of the first message: the preamble, an ephemeral key, a sealed token hint.
pub const FIRST_LEN: usize = PREAMBLE_LEN + KEY_LEN + HINT_LEN + TAG_LEN;
/// Bytes of the second message: an ephemeral key, the sealed version.
pub const SECOND_LEN: usize = KEY_LEN + 1 + TAG_LEN;
/// Bytes of the third message: the sealed static key, a sealed nothing.
pub const THIRD_LEN: usize = KEY_LEN + TAG_LEN + TAG_LEN;
/// Where in the pattern the token's key is mixed in.
const PSK_AT: usize = 3;

const KEY_LEN: usize = 32;
const HINT_LEN: usize = 16 + 4;

/// Parsed once, because parsing costs as much as hashing a message.
static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| NOISE_NAME.parse().expect("a name that snow knows"));

/// Which token a delegate says it will prove; nothing may follow from it until it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHint {
    /// The token's public id.
    pub token: TokenId,
    /// Which of its secrets.
    pub generation: u32,
}

/// Where the Manager looks up a token's key.
pub trait TokenKeys: Send + Sync {
    /// The key of this generation, also of a revoked token or retired generation whose key is kept so that
    /// its delegates can be told to stop. `None` if there is none: the delegate cannot tell that from a
    /// wrong secret.
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>>;
}

/// What a finished handshake proves to the Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The token whose secret the peer holds.
    pub hint: TokenHint,
    /// The static public key whose private half the peer holds: the delegate's identity.
    pub identity: [u8; 32],
    /// What the peer says it is.
    pub role: Role,
}

/// The delegate's side between the first message and the second.
pub(crate) struct Initiator(HandshakeState);

impl Initiator {
    /// Starts; answers also the first message.
    pub(crate) fn start(token: &Token, identity: &KeyPair, role: Role, entropy: &dyn Entropy) -> (Self, Vec<u8>) {
        let preamble = Preamble::new(role, &token.manager_key).to_bytes();
        let psk = psk::derive(&token.secret, token.id, token.generation);
        let mut noise = builder(identity, &preamble, draw(entropy))
            .and_then(|builder| builder.remote_public_key(&token.manager_key))
            .and_then(|builder| builder.psk(PSK_AT as u8, psk.expose()))
            .and_then(Builder::build_initiator)
            .expect("every part of the pattern is there");
        let hint = [&token.id.0[..], &token.generation.to_be_bytes()].concat();
        let mut first = vec![0; FIRST_LEN];
        first[..PREAMBLE_LEN].copy_from_slice(&preamble);
        write(&mut noise, &hint, &mut first[PREAMBLE_LEN..]);
        (Self(noise), first)
    }

    /// Reads the second message; answers the third and the session.
    pub(crate) fn finish(mut self, second: &[u8]) -> Result<(Vec<u8>, Transport), Close> {
        if second == UNKNOWN_KEY_ANSWER {
            return Err(Close::UnknownManagerKey);
        }
        let [version] = read(&mut self.0, second)?;
        if version == UNSUPPORTED || choose_version(version, version) != version {
            return Err(Close::UnsupportedVersion);
        }
        let mut third = vec![0; THIRD_LEN];
        write(&mut self.0, &[], &mut third);
        Ok((third, transport(self.0)))
    }
}

/// What a Manager answers, in clear, to a preamble that names a key it does not hold.
pub const UNKNOWN_KEY_ANSWER: &[u8] = b"LGTN\x01";

/// The Manager's side between the second message and the third.
pub(crate) struct Responder {
    noise: HandshakeState,
    hint: TokenHint,
    role: Role,
    decoy: Secret<32>,
}

/// What the Manager makes of a first message.
pub(crate) struct Answer {
    /// The message to send in any case.
    pub(crate) second: Vec<u8>,
    /// How it goes on.
    pub(crate) next: Result<Responder, Close>,
}

impl Responder {
    /// Reads the first message.
    ///
    /// An error means that there is nothing to answer. `decoy` stands in for the key of an unknown token,
    /// and is drawn for every connection, so that both take the same path.
    pub(crate) fn answer(
        keys: &[KeyPair],
        first: &[u8],
        ephemeral: Secret<32>,
        decoy: Secret<32>,
    ) -> Result<Answer, Close> {
        let (clear, sealed) = first.split_first_chunk::<PREAMBLE_LEN>().ok_or(Close::BadHandshake)?;
        let preamble = Preamble::parse(clear)?;
        let Some(own) = keys.iter().find(|pair| pair.id() == preamble.manager_key) else {
            return Ok(Answer { second: UNKNOWN_KEY_ANSWER.to_vec(), next: Err(Close::UnknownManagerKey) });
        };
        let mut noise = builder(own, clear, ephemeral)
            .and_then(Builder::build_responder)
            .expect("every part of the pattern is there");
        let hint: [u8; HINT_LEN] = read(&mut noise, sealed)?;
        let version = choose_version(preamble.version_min, preamble.version_max);
        let mut second = vec![0; SECOND_LEN];
        write(&mut noise, &[version], &mut second);
        let responder = Self { noise, hint: parse_hint(&hint), role: preamble.role, decoy };
        let next = if version == UNSUPPORTED { Err(Close::UnsupportedVersion) } else { Ok(responder) };
        Ok(Answer { second, next })
    }

    /// Reads the third message: the peer is who it says and holds the secret, or it is turned away.
    pub(crate) fn prove(mut self, third: &[u8], lookup: &dyn TokenKeys) -> Result<(Proof, Transport), Close> {
        let psk = lookup.psk(self.hint).unwrap_or(self.decoy);
        self.noise.set_psk(PSK_AT, psk.expose()).expect("the key has 32 bytes");
        let [] = read(&mut self.noise, third).map_err(|_| Close::Unproven)?;
        let identity = self.noise.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Close::Unproven)?;
        let proof = Proof { hint: self.hint, identity, role: self.role };
        Ok((proof, transport(self.noise)))
    }
}

fn parse_hint(bytes: &[u8; HINT_LEN]) -> TokenHint {
    let (token, generation) = bytes.split_at(16);
    TokenHint {
        token: TokenId(token.try_into().expect("16 bytes")),
        generation: u32::from_be_bytes(generation.try_into().expect("4 bytes")),
    }
}

fn builder<'a>(
    own: &'a KeyPair,
    preamble: &'a [u8; PREAMBLE_LEN],
    ephemeral: Secret<32>,
) -> Result<Builder<'a>, snow::Error> {
    Builder::with_resolver(PARAMS.clone(), Box::new(Primitives::new(own, ephemeral)))
        .local_private_key(own.private.expose())?
        .prologue(preamble)
}

/// Draws the seed of one ephemeral key, or one decoy.
pub(crate) fn draw(entropy: &dyn Entropy) -> Secret<32> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes);
    Secret::new(*bytes)
}

/// Writes the next handshake message, which fills `out` exactly.
fn write(noise: &mut HandshakeState, payload: &[u8], out: &mut [u8]) {
    let written = noise.write_message(payload, out).expect("our turn, with all keys, into the exact length");
    debug_assert_eq!(written, out.len(), "the lengths of handshake messages are constants");
}

/// Reads the next handshake message, which must carry exactly `N` bytes.
fn read<const N: usize>(noise: &mut HandshakeState, message: &[u8]) -> Result<[u8; N], Close> {
    let mut payload = [0; N];
    match noise.read_message(message, &mut payload) {
        Ok(length) if length == N => Ok(payload),
        _ => Err(Close::BadHandshake),
    }
}

fn transport(noise: HandshakeState) -> Transport {
    Transport::new(noise.into_transport_mode().expect("the last message has passed"))
}
