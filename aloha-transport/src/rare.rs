//! What few connections need.

use std::ops::{Deref, DerefMut};

/// A value that takes memory once it is first changed.
#[derive(Debug)]
pub(crate) struct Rare<T>(Option<Box<T>>);

/// A type with a value that stands for all that were never changed.
pub(crate) trait Empty: Default + 'static {
    const EMPTY: &'static Self;
}

impl<T> Rare<T> {
    /// The value, where it was ever changed.
    pub(crate) fn changed(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Empty> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::EMPTY)
    }
}

impl<T: Empty> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Empty for u8 {
        const EMPTY: &'static Self = &0;
    }

    #[test]
    fn what_is_only_looked_at_takes_no_memory() {
        let mut rare = Rare::<u8>::default();
        assert_eq!((*rare, rare.changed()), (0, None));
        *rare += 1;
        assert_eq!((*rare, rare.changed()), (1, Some(&mut 1)));
    }
}
