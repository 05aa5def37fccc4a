//! The delegate: connects to its Manager, runs tasks under supervisors, and stops when it is told to.

pub mod mask;
pub mod output;
pub mod runner;
pub mod supervisor;
pub mod system;
pub mod tree;
