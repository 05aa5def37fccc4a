//! The Manager's contract, checked without a network.

mod bounds;
mod contract;
mod sizes;
