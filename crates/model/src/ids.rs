//! Identifiers: 16 random bytes behind a type of their own, spelled in base62.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{base62, clock::Entropy};

/// Characters of a 16-byte id in base62.
pub const ID_CHARS: usize = 22;

/// Text that is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {kind} id: expected {prefix:?} followed by 22 letters and digits")]
pub struct IdError {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Draws a new one.
            pub fn random(entropy: &dyn Entropy) -> Self {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                Self(bytes)
            }
        }

        impl From<[u8; 16]> for $name {
            fn from(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8; 16]> for $name {
            fn as_ref(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = String::with_capacity($prefix.len() + ID_CHARS);
                text.push_str($prefix);
                base62::encode(&self.0, ID_CHARS, &mut text);
                f.write_str(&text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { kind: $kind, prefix: $prefix };
                let digits = text.strip_prefix($prefix).filter(|digits| digits.len() == ID_CHARS);
                let mut bytes = [0; 16];
                digits.and_then(|digits| base62::decode(digits, &mut bytes)).ok_or(error)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A delegate token's public id: the first part of its string, hence without a prefix of its own.
    TokenId = "", "a token";
    /// One delegate: one static key within a scope.
    DelegateId = "dlg_", "a delegate";
    /// One start of a delegate process.
    BootId = "boot_", "a boot";
    /// One authenticated, encrypted connection.
    SessionId = "ses_", "a session";
    /// One unit of work.
    TaskId = "tsk_", "a task";
    /// One try of a task on one (delegate, boot id).
    AttemptId = "att_", "an attempt";
    /// The signed record of one revocation.
    ReceiptId = "rcp_", "a receipt";
    /// A user or a service account.
    PrincipalId = "prn_", "a principal";
    /// One role of one principal at one place.
    GrantId = "grt_", "a grant";
    /// One API key, without its secret.
    ApiKeyId = "key_", "an API key";
    /// One console session, without its secret.
    LoginId = "lgn_", "a console session";
    /// One value of a token under a one-time code, without the code's secret.
    WrapId = "wrp_", "a one-time code";
    /// One of the Manager's own key pairs, in the store.
    ManagerKeyId = "mgr_", "a manager key";
}
