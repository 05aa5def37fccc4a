//! The public keys with which receipts and audit checkpoints are checked. Everyone may have them.

use legation_model::{Millis, ids::ManagerKeyId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::proof::PublicKey;

/// The algorithm of every signature of the Manager (RFC 8032).
pub const ALGORITHM: &str = "ed25519";

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningKey {
    /// Identity.
    #[schema(value_type = String, example = "mgr_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: ManagerKeyId,
    /// `ed25519`.
    pub algorithm: String,
    /// The key in base64.
    #[serde(with = "crate::spelled::one")]
    #[schema(value_type = String, format = Byte)]
    pub public_key: PublicKey,
    /// Nothing was signed with it before.
    pub valid_from_at: Millis,
    /// Since when nothing is signed with it any more.
    pub retired_at: Option<Millis>,
}
