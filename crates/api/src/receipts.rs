//! Receipts: the signed records of revocations.

use legation_model::{
    Millis, Scope,
    ids::{BootId, DelegateId, ReceiptId, TokenId},
    receipt::{self as model, Cause},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One revocation, with a line for every delegate that may have held a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Identity.
    #[schema(value_type = String, example = "rcp_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: ReceiptId,
    /// The token that was revoked.
    #[schema(value_type = String)]
    pub token: TokenId,
    /// Its scope.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// What ended it.
    #[serde(with = "crate::spelled::one")]
    #[schema(schema_with = crate::schema::cause)]
    pub cause: Cause,
    /// Why, in the words of the person who revoked.
    pub reason: String,
    /// Who revoked.
    pub actor: String,
    /// When the revocation became durable.
    pub revoked_at: Millis,
    /// When the last live session was closed.
    pub completed_at: Option<Millis>,
    /// Attempts that were lost with it.
    pub attempts_lost: u32,
    /// One per delegate.
    pub lines: Vec<ReceiptLine>,
    /// The signed statements, the opening one first.
    pub statements: Vec<Statement>,
}

/// What is known of one delegate of a revoked token. The three times come from three different witnesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptLine {
    /// Which delegate.
    #[schema(value_type = String)]
    pub delegate: DelegateId,
    /// Which start of it.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// Its name at that time.
    pub name: String,
    /// Whether it had a live session.
    pub connected: bool,
    /// The Manager saw its session closed.
    pub cut_at: Option<Millis>,
    /// The delegate said, proven by its key, that it had killed its tasks.
    pub stopped_reported_at: Option<Millis>,
    /// How many tasks it said it killed.
    pub tasks_killed: Option<u32>,
    /// The time by which a correct delegate has stopped even if it never hears of the revocation.
    pub lease_ends_by: Millis,
}

/// One signed statement: Ed25519 (RFC 8032) over the exact bytes of `body`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Statement {
    /// Position, from 0.
    pub number: u32,
    /// The signed JSON text.
    pub body: String,
    /// The signature in base64.
    #[serde(with = "crate::spelled::bytes")]
    #[schema(value_type = String, format = Byte)]
    pub signature: Vec<u8>,
    /// The public key in base64.
    #[serde(with = "crate::spelled::bytes")]
    #[schema(value_type = String, format = Byte)]
    pub key: Vec<u8>,
}

impl From<&model::Receipt> for Receipt {
    fn from(receipt: &model::Receipt) -> Self {
        Self {
            id: receipt.id,
            token: receipt.token,
            scope: receipt.scope.clone(),
            cause: receipt.cause,
            reason: receipt.reason.clone(),
            actor: receipt.actor.clone(),
            revoked_at: receipt.revoked_at,
            completed_at: receipt.completed_at,
            attempts_lost: receipt.attempts_lost,
            lines: receipt.lines.iter().map(ReceiptLine::from).collect(),
            statements: receipt.statements.iter().map(Statement::from).collect(),
        }
    }
}

impl From<&model::ReceiptLine> for ReceiptLine {
    fn from(line: &model::ReceiptLine) -> Self {
        Self {
            delegate: line.delegate,
            boot: line.boot,
            name: line.name.clone(),
            connected: line.connected,
            cut_at: line.cut_at,
            stopped_reported_at: line.stopped_reported_at,
            tasks_killed: line.tasks_killed,
            lease_ends_by: line.lease_ends_by,
        }
    }
}

impl From<&model::Statement> for Statement {
    fn from(statement: &model::Statement) -> Self {
        Self {
            number: statement.number,
            body: statement.body.clone(),
            signature: statement.signature.clone(),
            key: statement.key.to_vec(),
        }
    }
}

/// Which receipts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only the one of this token.
    #[param(value_type = Option<String>)]
    pub token: Option<TokenId>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
