//! Time and entropy as arguments: the only two things a test replaces.

/// Milliseconds. On a wall clock since 1970, on a boot clock since an arbitrary start.
pub type Millis = i64;

/// Both clocks a decision may need.
pub trait Clock: Send + Sync {
    /// Wall clock, milliseconds since 1970: for records and expiry.
    fn wall(&self) -> Millis;
    /// A clock that never jumps and counts suspended time (`CLOCK_BOOTTIME`): for leases and deadlines.
    fn boot(&self) -> Millis;
}

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the buffer. An implementation that cannot must end the process rather than return less.
    fn fill(&self, bytes: &mut [u8]);
}
