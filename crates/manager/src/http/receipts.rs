//! Receipts over HTTP.

use std::sync::Arc;

use axum::extract::State;
use legation_api::{
    List, Problem,
    receipts::{Receipt, ReceiptsQuery},
};
use legation_model::ids::ReceiptId;

use super::{
    request::{Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal};

/// Lists receipts.
#[utoipa::path(get, path = "/api/v1/receipts", tag = "receipts", params(ReceiptsQuery),
    responses((status = 200, body = List<Receipt>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<ReceiptsQuery>,
) -> Result<Json<List<Receipt>>, Refusal> {
    let page = paged(query.limit, query.cursor)?;
    let found = manager.list_receipts(&caller, query.scope, query.token, page).await?;
    Ok(ok(List { items: found.items.iter().map(Receipt::from).collect(), next: found.next }))
}

/// Shows a receipt with its signed statements.
#[utoipa::path(get, path = "/api/v1/receipts/{receipt}", tag = "receipts", params(("receipt" = String, Path)),
    responses((status = 200, body = Receipt), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<ReceiptId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Receipt>, Refusal> {
    Ok(ok(Receipt::from(&manager.receipt(&caller, id).await?)))
}
