//! Buffers that come back: a reading is handed out shared, and written again when nobody holds it.

use std::sync::Arc;

/// At most this many buffers are kept; more readers than that cost an allocation each.
const KEPT: usize = 16;

/// A pool of shared values of one kind.
#[derive(Debug)]
pub(super) struct Recycling<T> {
    kept: Vec<Arc<T>>,
}

impl<T> Recycling<T> {
    /// An empty pool.
    pub(crate) fn new() -> Self {
        Self { kept: Vec::with_capacity(KEPT) }
    }

    /// A value that nobody else holds: a used one if there is one, else `fresh`, after `write`.
    pub(crate) fn filled(
        &mut self,
        fresh: impl FnOnce() -> T,
        write: impl FnOnce(&mut T),
    ) -> Arc<T> {
        let free = self.kept.iter_mut().position(|value| Arc::get_mut(value).is_some());
        let mut value = match free {
            Some(idx) => self.kept.swap_remove(idx),
            None => Arc::new(fresh()),
        };
        write(Arc::get_mut(&mut value).expect("nobody else holds it"));
        if self.kept.len() < KEPT {
            self.kept.push(Arc::clone(&value));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_again_only_when_nobody_holds_it() {
        let mut pool = Recycling::new();
        let first = pool.filled(|| 0, |value| *value = 1);
        let second = pool.filled(|| 0, |value| *value = 2);
        assert_eq!((*first, *second), (1, 2));
        let place = Arc::as_ptr(&first);
        drop(first);
        let third = pool.filled(|| 0, |value| *value = 3);
        assert_eq!(Arc::as_ptr(&third), place);
        assert_eq!((*second, *third), (2, 3));
    }
}
