//! x
/// Variables with this beginning belong to the delegate; a task cannot replace them.
pub const RESERVED: &str = "LEGATION_";
