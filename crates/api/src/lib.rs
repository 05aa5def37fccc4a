//! The REST contract: what travels between the Manager and everyone who talks to it over HTTP.
//!
//! One file per noun holds its requests, its answers and its query, so that server and client cannot drift
//! apart. Requests refuse unknown fields; answers ignore them, so that an older client reads a newer Manager.
//! Times are integers, milliseconds since 1970, in fields named `*_at`; lengths of time are fields named
//! `*_ms`. Nothing here opens a socket except [`client`]. A request's rules that a type cannot express are its
//! `check` method; the Manager calls it, and a client may.

pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod audit_export;
pub mod audit_verify;
pub mod client;
pub mod delegates;
pub mod grants;
pub mod handover;
pub mod health;
pub mod json;
pub mod logins;
pub mod oidc;
pub mod output;
pub mod page;
pub mod passwords;
pub mod principals;
pub mod problem;
pub mod proof;
pub mod receipt_verify;
pub mod receipts;
pub mod reveal;
pub mod revoke;
pub mod roles;
pub mod routes;
pub mod scopes;
pub mod signing_keys;
pub mod task_rules;
pub mod tasks;
pub mod token_update;
pub mod token_uses;
pub mod tokens;
pub mod whoami;
pub mod wraps;

mod schema;
mod spelled;

pub use page::List;
pub use problem::{Code, Problem};
