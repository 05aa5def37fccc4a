//! The nouns of Legation and the rules that hold for them everywhere.
//!
//! Nothing here performs input or output, reads a clock or draws entropy: a value is either legal or
//! refused, and a life-step is either in its table or not. Every other crate imports this one.

mod base62;
mod credential;

pub mod access;
pub mod api_key;
pub mod audit;
pub mod clock;
pub mod delegate;
pub mod ids;
pub mod login;
pub mod name;
pub mod receipt;
pub mod scope;
pub mod secret;
pub mod task;
pub mod token;
pub mod token_use;
pub mod word;
pub mod wrap;

pub use clock::{Clock, Entropy, Millis};
pub use name::{Name, Text};
pub use scope::{Scope, Within};
pub use secret::Secret;
