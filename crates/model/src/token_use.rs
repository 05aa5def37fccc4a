//! Who used a token, when, and from where.

use std::net::IpAddr;

use crate::{
    Millis, Name,
    ids::{DelegateId, TokenId},
};

/// What is known of the connections of one delegate, from one address, with one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The token that was proved.
    pub token: TokenId,
    /// Whose key was proved with it.
    pub delegate: DelegateId,
    /// The delegate's name at its newest connection.
    pub name: Name,
    /// From where, proxies that are trusted looked behind.
    pub address: IpAddr,
    /// When it was first let in.
    pub first_at: Millis,
    /// When it was last let in or connected, to within a minute or so.
    pub last_at: Millis,
    /// How often it was let in.
    pub uses: u64,
}

impl TokenUse {
    /// Adds what else is known of the same delegate, address and token.
    pub fn merge(&mut self, other: &Self) {
        if other.last_at >= self.last_at {
            self.name.clone_from(&other.name);
        }
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.uses += other.uses;
    }
}
