//! The delegate's processes as they are: every test here starts the real program.

mod agent;
mod manager;
mod supervisor;
mod support;
