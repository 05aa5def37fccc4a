//! Every way in which a link ends: an authenticated Goodbye, or a broken rule.

use std::fmt;

use minicbor::{Decode, Encode};

/// Why the Manager says goodbye. Only such a message, which nobody but the Manager can write, stops a
/// delegate; whatever else ends a link is a reason to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum GoodbyeReason {
    /// A person revoked the token.
    #[n(0)]
    TokenRevoked,
    /// The token's time is over.
    #[n(1)]
    TokenExpired,
    /// The token was deleted.
    #[n(2)]
    TokenDeleted,
    /// The token was rotated, and this generation of its secret is no longer accepted.
    #[n(3)]
    GenerationRetired,
    /// A person stopped this delegate.
    #[n(4)]
    DelegateStopped,
    /// The delegate expects another account than the token's.
    #[n(5)]
    AccountMismatch,
    /// The Manager is going down or asks for a new connection.
    #[n(6)]
    ManagerDraining,
    /// A newer session of the same delegate took over.
    #[n(7)]
    Superseded,
    /// The token's limit of delegates is reached.
    #[n(8)]
    MaxDelegates,
    /// The token does not allow connections from this address.
    #[n(9)]
    AddressRefused,
    /// The token does not allow this name, or the name is taken in a way that forbids it.
    #[n(10)]
    NameRefused,
    /// A person has to let this delegate join first.
    #[n(11)]
    AwaitingApproval,
}

/// What a delegate does after a Goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Kill its tasks, report it, then exit or park.
    Stop,
    /// Connect again later.
    Retry,
}

impl GoodbyeReason {
    /// Every reason, in the order of its number on the wire.
    pub const ALL: [Self; 12] = [
        Self::TokenRevoked,
        Self::TokenExpired,
        Self::TokenDeleted,
        Self::GenerationRetired,
        Self::DelegateStopped,
        Self::AccountMismatch,
        Self::ManagerDraining,
        Self::Superseded,
        Self::MaxDelegates,
        Self::AddressRefused,
        Self::NameRefused,
        Self::AwaitingApproval,
    ];

    /// What the delegate does.
    pub const fn action(self) -> Action {
        match self {
            Self::TokenRevoked
            | Self::TokenExpired
            | Self::TokenDeleted
            | Self::GenerationRetired
            | Self::DelegateStopped
            | Self::AccountMismatch => Action::Stop,
            Self::ManagerDraining
            | Self::Superseded
            | Self::MaxDelegates
            | Self::AddressRefused
            | Self::NameRefused
            | Self::AwaitingApproval => Action::Retry,
        }
    }

    /// The word in logs and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenRevoked => "token_revoked",
            Self::TokenExpired => "token_expired",
            Self::TokenDeleted => "token_deleted",
            Self::GenerationRetired => "generation_retired",
            Self::DelegateStopped => "delegate_stopped",
            Self::AccountMismatch => "account_mismatch",
            Self::ManagerDraining => "manager_draining",
            Self::Superseded => "superseded",
            Self::MaxDelegates => "max_delegates",
            Self::AddressRefused => "address_refused",
            Self::NameRefused => "name_refused",
            Self::AwaitingApproval => "awaiting_approval",
        }
    }

    /// The WebSocket close code that goes with it: 4100 and the reason's number. A log hint only, because
    /// anyone on the path can forge it.
    pub const fn code(self) -> u16 {
        4100 + self as u16
    }
}

impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A broken rule that ends a link without a Goodbye. A delegate connects again after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Close {
    /// A frame that is not what the protocol says, or a message of an unknown number.
    #[error("the peer sent a malformed or unknown frame: check that both sides run compatible versions")]
    BadFrame,
    /// A message or frame above its bound.
    #[error("the peer sent more than a frame may hold")]
    TooLarge,
    /// A transport message that does not decrypt: altered, repeated, lost or out of order on the way.
    #[error("a message did not decrypt: something between the two sides alters or drops messages")]
    Undecipherable,
    /// A legal message at a moment when it is not allowed.
    #[error("the peer sent a message out of turn")]
    OutOfPlace,
    /// A handshake message that is malformed or does not decrypt.
    #[error(
        "the handshake failed: the peer does not speak this protocol, or does not hold the Manager key that the token \
         names"
    )]
    BadHandshake,
    /// The delegate did not prove that it holds the token's secret; an unknown token looks the same.
    #[error("the delegate did not prove a token that this Manager knows")]
    Unproven,
    /// The Manager does not hold the key that the token names.
    #[error(
        "this Manager does not hold the key in the token: check that MANAGER_HOST_AND_PORT names the Manager that \
         issued it"
    )]
    UnknownManagerKey,
    /// No version of the protocol is spoken by both.
    #[error("no common version of the protocol: upgrade the older side")]
    UnsupportedVersion,
    /// The handshake took too long.
    #[error("the peer did not finish the handshake in time")]
    HandshakeTimeout,
    /// Too many heartbeats in a row were not answered.
    #[error("the Manager did not answer the last heartbeats")]
    Silent,
    /// More messages arrived than were taken out.
    #[error("the peer sends faster than its messages are handled")]
    Flooded,
}

impl Close {
    /// Every kind, in the order of its close code.
    pub const ALL: [Self; 11] = [
        Self::BadFrame,
        Self::TooLarge,
        Self::Undecipherable,
        Self::OutOfPlace,
        Self::BadHandshake,
        Self::Unproven,
        Self::UnknownManagerKey,
        Self::UnsupportedVersion,
        Self::HandshakeTimeout,
        Self::Silent,
        Self::Flooded,
    ];

    /// The WebSocket close code, from 4000 on. A log hint only, because anyone on the path can forge it.
    pub const fn code(self) -> u16 {
        4000 + self as u16
    }

    /// The word in logs and close frames.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::TooLarge => "too_large",
            Self::Undecipherable => "undecipherable",
            Self::OutOfPlace => "out_of_place",
            Self::BadHandshake => "bad_handshake",
            Self::Unproven => "unproven",
            Self::UnknownManagerKey => "unknown_manager_key",
            Self::UnsupportedVersion => "unsupported_version",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Silent => "silent",
            Self::Flooded => "flooded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stop_or_retry_as_the_design_lists_them() {
        let stops = GoodbyeReason::ALL.into_iter().filter(|reason| reason.action() == Action::Stop);
        let words: Vec<_> = stops.map(GoodbyeReason::as_str).collect();
        let expected = [
            "token_revoked",
            "token_expired",
            "token_deleted",
            "generation_retired",
            "delegate_stopped",
            "account_mismatch",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn codes_are_distinct_and_in_the_private_range() {
        let mut codes: Vec<u16> = Close::ALL.into_iter().map(Close::code).collect();
        codes.extend(GoodbyeReason::ALL.into_iter().map(GoodbyeReason::code));
        assert!(codes.is_sorted_by(|a, b| a < b) && codes.iter().all(|code| (4000..5000).contains(code)));
    }
}
