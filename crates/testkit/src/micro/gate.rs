//! What the fence of every effect costs: entering a token's gate and leaving it.

use std::hint::black_box;

use legation_model::{Secret, ids::TokenId};

use super::{Measured, fixture};

/// One effect that has nothing else to do.
pub(super) fn enter_and_leave() -> Box<dyn Measured> {
    let (token, clock) = (fixture::token(TokenId([1; 16]), Secret::new([2; 32])), fixture::clock());
    Box::new(move || drop(black_box(black_box(&token).enter(&clock))))
}
