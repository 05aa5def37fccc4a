//! What finding a token's key takes, whatever the number of tokens.

use std::hint::black_box;

use legation_wire::TokenKeys as _;

use super::{Measured, fixture};

/// One lookup among `COUNT` tokens, each time of the next.
pub(super) fn lookup<const COUNT: usize>() -> Box<dyn Measured> {
    let (tokens, hints) = fixture::tokens(COUNT);
    let mut next = 0;
    Box::new(move || {
        let found = black_box(tokens.psk(black_box(hints[next])));
        assert!(found.is_some(), "it was inserted");
        next = if next + 1 == COUNT { 0 } else { next + 1 };
    })
}
