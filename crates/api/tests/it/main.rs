//! The client against servers that behave, and against servers that do not.

mod audit;
mod calls;
mod failures;
mod output;
mod server;
