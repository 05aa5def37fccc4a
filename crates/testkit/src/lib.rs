//! The whole system under test: the real programs as processes, bad networks between them, and searches for
//! what must not be found.
//!
//! A [`World`] is one Manager with a database and directories of its own and any number of delegates. It is
//! gone without a trace when it is dropped; when its test fails it first prints what the programs logged.
//! Tests never sleep: they wait for a condition with [`eventually()`], the only place here that polls.

pub mod binaries;
pub mod canary;
pub mod database;
pub mod delegate;
pub mod entropy;
pub mod eventually;
pub mod inside;
pub mod load;
pub mod micro;
pub mod process;
pub mod procfs;
pub mod provider;
pub mod proxy;
pub mod repo;
pub mod seed;
pub mod tinyproxy;
pub mod world;

pub use database::Engine;
pub use entropy::TestEntropy;
pub use eventually::{eventually, within};
pub use inside::{Inside, Puppet};
pub use process::Process;
pub use world::World;
