//! Exit codes; the numbers of sysexits.h where it has one that fits.

/// Stopped as asked.
pub const CLEAN: u8 = 0;
/// Something that should not happen.
pub const UNEXPECTED: u8 = 1;
/// The configuration or the command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// What it needs on this machine is not there, such as its state directory (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The Manager refused the token or stopped this delegate (`EX_CONFIG`): starting again does not help.
pub const REFUSED: u8 = 78;
