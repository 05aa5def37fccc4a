//! The delegate: connects to its Manager, runs tasks under supervisors, and stops when it is told to.
//!
//! The [`agent`] is one loop over one closed enum of events; an attempt is run by the [`runner`] under a
//! [`supervisor`] process of its own, and what the Manager has not acknowledged is in the [`spool`].

pub mod agent;
pub mod config;
pub mod confine;
pub mod exit;
pub mod health;
pub mod mask;
pub mod output;
pub mod policy;
pub mod program;
pub mod request;
pub mod runner;
pub mod settings;
pub mod spool;
pub mod state;
pub mod supervisor;
pub mod system;
pub mod token_source;
pub mod tree;
