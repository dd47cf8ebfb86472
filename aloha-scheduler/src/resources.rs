use std::fmt;

use serde::{Deserialize, Serialize};

/// Cores and memory: what an application needs, or what a worker has.
///
/// The order (cores first) is for indexes; whether something fits is asked with [`Resources::fits_in`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Resources {
    /// Whole cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Resources {
    /// Whether `room` has enough of both.
    pub fn fits_in(&self, room: &Self) -> bool {
        self.cores <= room.cores && self.memory_mib <= room.memory_mib
    }

    /// Both together, stopping at the largest number there is.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cores: self.cores.saturating_add(other.cores),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    /// What is left after `other` is taken, never below nothing.
    pub fn minus(self, other: Self) -> Self {
        Self {
            cores: self.cores.saturating_sub(other.cores),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(f, "{} core{plural} and {} MiB", self.cores, self.memory_mib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dimensions_must_fit() {
        let room = Resources {
            cores: 4,
            memory_mib: 1024,
        };
        assert!(room.fits_in(&room));
        assert!(
            !Resources {
                cores: 5,
                memory_mib: 1
            }
            .fits_in(&room)
        );
        assert!(
            !Resources {
                cores: 1,
                memory_mib: 1025
            }
            .fits_in(&room)
        );
    }

    #[test]
    fn taking_more_than_there_is_leaves_nothing() {
        let room = Resources {
            cores: 4,
            memory_mib: 1024,
        };
        let left = room.minus(Resources {
            cores: 5,
            memory_mib: 24,
        });
        assert_eq!(
            left,
            Resources {
                cores: 0,
                memory_mib: 1000
            }
        );
    }
}
