//! The program itself, against a Manager that says what the test wants it to say.

mod access;
mod audit;
mod delegates;
mod docs;
mod errors;
mod fake;
mod lists;
mod logins;
mod nouns;
mod receipts;
mod revoke;
mod run;
mod scopes;
mod task;
mod up;
mod wraps;
