//! Chance that can be had again.

use std::env;

/// A seed for everything random in a test: printed, so that a failure can be repeated by setting
/// `LEGATION_TEST_SEED` to it.
///
/// # Panics
/// When the variable is not a number.
#[expect(clippy::print_stdout, reason = "a failed test shows it where it shows its panic")]
pub fn seed() -> u64 {
    let asked = env::var("LEGATION_TEST_SEED").ok().map(|text| text.parse().expect("LEGATION_TEST_SEED is a number"));
    let seed = asked.unwrap_or_else(rand::random);
    println!("LEGATION_TEST_SEED={seed}");
    seed
}
