//! Who used a token, when, and from where.

use std::net::IpAddr;

use legation_model::{Millis, Name, ids::DelegateId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is known of the connections of one delegate, from one address, with one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenUse {
    /// Whose key was proved with the token.
    #[schema(value_type = String, example = "dlg_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub delegate: DelegateId,
    /// The delegate's name at its newest connection.
    #[schema(value_type = String)]
    pub name: Name,
    /// From where, trusted proxies looked behind.
    #[schema(value_type = String, example = "192.0.2.7")]
    pub address: IpAddr,
    /// When it was first let in.
    pub first_used_at: Millis,
    /// When it was last let in or connected, to within a minute.
    pub last_used_at: Millis,
    /// How often it was let in.
    pub uses: u64,
    /// Whether it is connected with the token, from this address, now.
    pub connected: bool,
}
