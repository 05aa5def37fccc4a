//! The 16 clear bytes before the first handshake message, and the choice of a version.

use crate::{Close, key_id};

/// The bytes of the preamble.
pub const PREAMBLE_LEN: usize = 16;
/// The oldest version this crate speaks.
pub const VERSION_OLDEST: u8 = 1;
/// The newest version this crate speaks.
pub const VERSION_NEWEST: u8 = 1;
/// The Manager's choice when there is no common version.
pub(crate) const UNSUPPORTED: u8 = 0;

const MAGIC: [u8; 4] = *b"LGTN";

/// What a connecting program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It runs tasks.
    Delegate,
    /// It keeps delegates on the wanted version.
    Upgrader,
}

impl Role {
    const fn byte(self) -> u8 {
        match self {
            Self::Delegate => 0,
            Self::Upgrader => 1,
        }
    }
}

/// The clear beginning of a connection. It is the Noise prologue: whoever changes a byte of it on the way
/// breaks the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) role: Role,
    pub(crate) manager_key: [u8; 8],
}

impl Preamble {
    pub(crate) fn new(role: Role, manager_key: &[u8; 32]) -> Self {
        Self { version_min: VERSION_OLDEST, version_max: VERSION_NEWEST, role, manager_key: key_id(manager_key) }
    }

    /// Magic, version range, role, a reserved zero, the short name of the Manager's key.
    pub(crate) fn to_bytes(self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..7].copy_from_slice(&[self.version_min, self.version_max, self.role.byte()]);
        bytes[8..].copy_from_slice(&self.manager_key);
        bytes
    }

    /// Reads a preamble. The reserved byte may have any value, so that a later version can use it.
    pub(crate) fn parse(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, Close> {
        let (head, manager_key) = bytes.split_at(8);
        let [m0, m1, m2, m3, version_min, version_max, role, _] = *head else { return Err(Close::BadHandshake) };
        let role = match role {
            0 => Role::Delegate,
            1 => Role::Upgrader,
            _ => return Err(Close::BadHandshake),
        };
        if [m0, m1, m2, m3] != MAGIC || version_min > version_max {
            return Err(Close::BadHandshake);
        }
        let manager_key = manager_key.try_into().map_err(|_| Close::BadHandshake)?;
        Ok(Self { version_min, version_max, role, manager_key })
    }
}

/// The newest version in both ranges, or [`UNSUPPORTED`].
pub(crate) fn choose_version(min: u8, max: u8) -> u8 {
    let newest = max.min(VERSION_NEWEST);
    if newest >= min.max(VERSION_OLDEST) { newest } else { UNSUPPORTED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_comes_back_and_a_strange_one_is_refused() {
        let preamble = Preamble::new(Role::Upgrader, &[7; 32]);
        assert_eq!(Preamble::parse(&preamble.to_bytes()), Ok(preamble));
        for (at, wrong) in [(0, b'X'), (3, 0), (4, 2), (5, 0), (6, 2)] {
            let mut bytes = preamble.to_bytes();
            bytes[at] = wrong;
            assert_eq!(Preamble::parse(&bytes), Err(Close::BadHandshake), "{at}");
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(choose_version(1, 1), 1);
        assert_eq!(choose_version(0, 9), VERSION_NEWEST);
        assert_eq!(choose_version(2, 9), UNSUPPORTED);
        assert_eq!(choose_version(0, 0), UNSUPPORTED);
    }
}
