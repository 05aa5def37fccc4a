//! The client against servers that behave, and against servers that do not.

mod calls;
mod failures;
mod output;
mod server;
