//! The delegate token: its string, its life and its limits.

use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Millis, Name, Scope, Secret, Text, base62,
    ids::{ID_CHARS, ReceiptId, TokenId},
    name::NamePattern,
    receipt::Cause,
    secret::SecretText,
};

/// What every token starts with, so that a secret scanner and a person recognise it.
pub const TOKEN_PREFIX: &str = "ldt_";
/// The exact length of a token string in characters.
pub const TOKEN_CHARS: usize = 4 + ID_CHARS + 1 + GENERATION_CHARS + KEY_CHARS + 1 + KEY_CHARS + CHECK_CHARS;
/// A regular expression for secret scanners; every token matches it.
pub const TOKEN_PATTERN: &str = "ldt_[0-9A-Za-z]{22}_[0-9A-Za-z]{46}_[0-9A-Za-z]{49}";
/// The highest generation that three digits can name.
pub const GENERATION_MAX: u32 = 62 * 62 * 62 - 1;
/// The name of the token that every account is born with.
pub const DEFAULT_TOKEN: &str = "default_token";

/// How long before a token expires its people are warned, in milliseconds, nearest first, and how that is said.
pub const EXPIRY_WARNINGS: [(Millis, &str); 4] =
    [(HOUR, "1 h"), (24 * HOUR, "1 d"), (7 * 24 * HOUR, "7 d"), (14 * 24 * HOUR, "14 d")];

const HOUR: Millis = 60 * 60 * 1000;
const GENERATION_CHARS: usize = 3;
const KEY_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;

/// The nearest of [`EXPIRY_WARNINGS`] that is due for a token with this many milliseconds left; none for one that has expired.
pub fn expiry_warning(left: Millis) -> Option<(Millis, &'static str)> {
    EXPIRY_WARNINGS.into_iter().find(|(before, _)| left <= *before).filter(|_| left > 0)
}

/// A whole token, as a delegate's owner holds it: `ldt_<id>_<generation><secret>_<manager key><check>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Public id.
    pub id: TokenId,
    /// Which of the token's secrets this is, 1 to [`GENERATION_MAX`].
    pub generation: u32,
    /// The secret; it never leaves the process that parsed it.
    pub secret: Secret<32>,
    /// The Manager's X25519 public key, which pins the Manager.
    pub manager_key: [u8; 32],
}

/// Why a text is not a token. Each message tells its reader what to do; none repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty or white space.
    #[error("the token is empty: set it to the value shown when the token was issued, starting with {TOKEN_PREFIX:?}")]
    Empty,
    /// Some other kind of credential.
    #[error("not a delegate token: it must start with {TOKEN_PREFIX:?}; an API key or a token id is something else")]
    Prefix,
    /// Cut short or too long.
    #[error(
        "the token has {found} characters instead of {TOKEN_CHARS}: copy the whole value, without spaces or quotes"
    )]
    Length {
        /// Characters found.
        found: usize,
    },
    /// A character that no token has, or a separator out of place.
    #[error("the token has a character that cannot be in it: copy it again from where it was shown")]
    Character,
    /// All well formed, but not what was issued.
    #[error("the token is mistyped (its check digits do not match): copy it again from where it was shown")]
    Check,
}

impl Token {
    /// The one spelling of this token.
    pub fn reveal(&self) -> SecretText {
        let mut text = String::with_capacity(TOKEN_CHARS);
        text.push_str(TOKEN_PREFIX);
        base62::encode(&self.id.0, ID_CHARS, &mut text);
        text.push('_');
        base62::encode(&self.generation.to_be_bytes(), GENERATION_CHARS, &mut text);
        base62::encode(self.secret.expose(), KEY_CHARS, &mut text);
        text.push('_');
        base62::encode(&self.manager_key, KEY_CHARS, &mut text);
        let check = crc32fast::hash(text.as_bytes());
        base62::encode(&check.to_be_bytes(), CHECK_CHARS, &mut text);
        SecretText::new(text)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token, telling a typing error from a token of another kind without asking anyone.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let body = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() != TOKEN_CHARS || !text.is_ascii() {
            return Err(TokenError::Length { found: text.chars().count() });
        }
        let (id, body) = body.split_at(ID_CHARS);
        let (proof, pin) = body.split_at(1 + GENERATION_CHARS + KEY_CHARS);
        let (Some(proof), Some(pin)) = (proof.strip_prefix('_'), pin.strip_prefix('_')) else {
            return Err(TokenError::Character);
        };
        let (generation, secret) = proof.split_at(GENERATION_CHARS);
        let (manager_key, check) = pin.split_at(KEY_CHARS);
        let stated = u32::from_be_bytes(digits(check)?);
        if stated != crc32fast::hash(&text.as_bytes()[..TOKEN_CHARS - CHECK_CHARS]) {
            return Err(TokenError::Check);
        }
        Ok(Self {
            id: TokenId(digits(id)?),
            generation: u32::from_be_bytes(digits(generation)?),
            secret: Secret::new(*Zeroizing::new(digits(secret)?)),
            manager_key: digits(manager_key)?,
        })
    }
}

fn digits<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    base62::decode(text, &mut bytes).ok_or(TokenError::Character)?;
    Ok(bytes)
}

/// Where a token stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenStatus {
    /// Created, without a secret yet: nothing can connect.
    Unissued,
    /// Accepts delegates.
    Active,
    /// Lets known delegates finish until a set time, takes no new ones.
    Draining,
    /// Ended; every delegate that uses it is refused and told to stop.
    Revoked,
    /// Removed from lists; a tombstone keeps its id from being used again.
    Deleted,
}

impl TokenStatus {
    /// Every status, in the order of life.
    pub const ALL: [Self; 5] = [Self::Unissued, Self::Active, Self::Draining, Self::Revoked, Self::Deleted];

    /// Whether life may step from this status to `next`. Only forward, and to deleted only from revoked.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Unissued, Self::Active | Self::Revoked)
                | (Self::Active, Self::Draining | Self::Revoked)
                | (Self::Draining, Self::Revoked)
                | (Self::Revoked, Self::Deleted)
        )
    }

    /// Whether sessions of such a token may exist at all.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unissued => "unissued",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
        }
    }
}

crate::word::words!(TokenStatus);

/// Whether a delegate key that nobody knows yet may join with a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enrolment {
    /// Every key.
    #[default]
    Open,
    /// Once a person has approved it.
    Approval,
    /// None; those that are known in the token's scope still come in.
    Closed,
}

impl Enrolment {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Open, Self::Approval, Self::Closed];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approval => "approval",
            Self::Closed => "closed",
        }
    }
}

crate::word::words!(Enrolment);

/// What an issuer may restrict. Everything empty means no restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenLimits {
    /// From this wall-clock millisecond on the token is revoked by itself.
    pub expires_at: Option<Millis>,
    /// How many delegates may be connected or hold a lease at once.
    pub max_delegates: Option<u32>,
    /// From where a delegate may connect.
    pub allowed_cidrs: Vec<IpNet>,
    /// Which `DELEGATE_NAME`s may be used; a trailing `*` stands for any ending.
    pub allowed_names: Vec<NamePattern>,
    /// Tags that the token itself vouches for; only these match `pinned:` selectors.
    pub pinned_tags: Vec<Name>,
    /// Whether a key that nobody knows yet may join.
    pub enrolment: Enrolment,
    /// Whether its delegates are forgotten when their leases have ended.
    pub ephemeral: bool,
    /// Whether it is bait: whoever proves it is written down and gets nothing. It never changes.
    pub canary: bool,
}

/// A revocation that comes at a set time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The wall-clock millisecond from which on the token is revoked.
    pub at: Millis,
    /// Who asked for it, as the receipt will name them.
    pub by: String,
    /// Why, for the receipt.
    pub reason: String,
}

/// A token as the Manager knows it; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegateToken {
    /// Public id.
    pub id: TokenId,
    /// The one scope it belongs to.
    pub scope: Scope,
    /// Unique among the scope's tokens that are not deleted.
    pub name: Name,
    /// Free text.
    pub description: Text,
    /// Where it stands in its life.
    pub status: TokenStatus,
    /// The newest generation, 0 while unissued.
    pub generation: u32,
    /// Restrictions.
    pub limits: TokenLimits,
    /// Counts its changes, from 1, so that nobody changes what he has not seen.
    pub version: u64,
    /// The revocation that is to come; a draining token has one.
    pub schedule: Option<Schedule>,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it, as the audit record names them.
    pub created_by: String,
    /// When its first secret was made.
    pub issued_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
    /// Why it was revoked.
    pub revoked_reason: Option<String>,
    /// What ended it; of a token that ended before this was noted, nothing.
    pub revoked_cause: Option<Cause>,
    /// The record of its revocation.
    pub receipt: Option<ReceiptId>,
    /// The last time a delegate proved it, to within a minute.
    pub last_used_at: Option<Millis>,
    /// How many connections were let in with it.
    pub uses: u64,
}

impl DelegateToken {
    /// From which wall-clock millisecond on it is not accepted any more, if one is set.
    pub fn ends_at(&self) -> Option<Millis> {
        self.limits.expires_at.into_iter().chain(self.schedule.as_ref().map(|schedule| schedule.at)).min()
    }

    /// A new one, without a description, restrictions or a secret.
    pub fn unissued(id: TokenId, scope: Scope, name: Name, created_at: Millis, created_by: String) -> Self {
        Self {
            id,
            scope,
            name,
            description: Text::default(),
            status: TokenStatus::Unissued,
            generation: 0,
            limits: TokenLimits::default(),
            version: 1,
            schedule: None,
            created_at,
            created_by,
            issued_at: None,
            revoked_at: None,
            revoked_reason: None,
            revoked_cause: None,
            receipt: None,
            last_used_at: None,
            uses: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { id: TokenId([7; 16]), generation: 1, secret: Secret::new([0xff; 32]), manager_key: [9; 32] }
    }

    #[test]
    fn a_token_is_one_word_of_fixed_length_and_comes_back() {
        let text = token().reveal();
        assert_eq!(text.expose().len(), TOKEN_CHARS);
        assert!(text.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_eq!(text.expose().parse(), Ok(token()));
        assert_eq!(format!(" {}\n", text.expose()).parse(), Ok(token()));
    }

    /// Enough of regular expressions for the pattern: literals, and one class repeated a fixed number of times.
    fn matches(mut pattern: &str, mut text: &str) -> bool {
        const CLASS: &str = "[0-9A-Za-z]{";
        while !pattern.is_empty() {
            if let Some(rest) = pattern.strip_prefix(CLASS) {
                let (count, rest) = rest.split_once('}').expect("a count");
                let (run, left) = text.split_at(count.parse::<usize>().expect("a number").min(text.len()));
                let whole = run.len().to_string() == count && run.bytes().all(|byte| byte.is_ascii_alphanumeric());
                (pattern, text) = (if whole { rest } else { return false }, left);
            } else {
                let Some(left) = text.strip_prefix(&pattern[..1]) else { return false };
                (pattern, text) = (&pattern[1..], left);
            }
        }
        text.is_empty()
    }

    #[test]
    fn scanners_find_every_token() {
        for byte in 0..=u8::MAX {
            let generation = if byte == 0 { 1 } else { GENERATION_MAX / u32::from(byte) };
            let secret = Secret::new([byte; 32]);
            let token = Token { id: TokenId([byte; 16]), generation, secret, manager_key: [!byte; 32] };
            let text = token.reveal();
            assert!(matches(TOKEN_PATTERN, text.expose()), "{byte}");
            assert!(
                !matches(TOKEN_PATTERN, &text.expose()[1..])
                    && !matches(TOKEN_PATTERN, &text.expose()[..TOKEN_CHARS - 1])
            );
        }
    }

    #[test]
    fn every_single_typing_error_is_found_without_asking_the_manager() {
        let text = token().reveal().expose().to_owned();
        for at in 0..text.len() {
            for wrong in ["0", "z", "_", "-", "é"] {
                let mut typed = text.clone();
                typed.replace_range(at..=at, wrong);
                assert!(typed == text || typed.parse::<Token>().is_err(), "{at} {wrong}");
            }
            assert!(text[..at].parse::<Token>().is_err());
        }
    }

    #[test]
    fn errors_name_the_fix_and_never_the_token() {
        let text = token().reveal().expose().to_owned();
        let short = text[..50].parse::<Token>().expect_err("cut short").to_string();
        assert!(short.contains("50 characters") && !short.contains(&text[10..40]));
        assert_eq!("lak_abc".parse::<Token>(), Err(TokenError::Prefix));
        assert!(!format!("{:?}", token()).contains("255"));
    }

    #[test]
    fn life_only_moves_forward() {
        for from in TokenStatus::ALL {
            for to in TokenStatus::ALL {
                assert!(!from.may_become(to) || from < to, "{from:?} to {to:?}");
                let deletes = to == TokenStatus::Deleted && from.may_become(to);
                assert_eq!(deletes, to == TokenStatus::Deleted && from == TokenStatus::Revoked);
            }
        }
    }
}
