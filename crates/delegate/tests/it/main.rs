//! The delegate's processes as they are: every test here starts the real program.

mod agent;
mod descriptors;
mod disk;
mod http;
mod isolation;
mod manager;
mod outside;
mod refusals;
mod sessions;
mod supervisor;
mod support;
