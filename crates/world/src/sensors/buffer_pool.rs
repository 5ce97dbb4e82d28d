//! Pool of shared buffers: a buffer is reused once no reader holds it.

use std::sync::Arc;

/// Maximum number of buffers in the pool; further readers cost an allocation each.
const KEPT: usize = 16;

/// A pool of reference-counted values.
#[derive(Debug)]
pub(super) struct BufferPool<T> {
    kept: Vec<Arc<T>>,
}

impl<T> BufferPool<T> {
    pub(crate) fn new() -> Self {
        Self { kept: Vec::with_capacity(KEPT) }
    }

    /// Returns a value after `write`: an unused one from the pool, or else `fresh`.
    pub(crate) fn acquire(
        &mut self,
        fresh: impl FnOnce() -> T,
        write: impl FnOnce(&mut T),
    ) -> Arc<T> {
        let free = self.kept.iter_mut().position(|value| Arc::get_mut(value).is_some());
        let mut value = match free {
            Some(idx) => self.kept.swap_remove(idx),
            None => Arc::new(fresh()),
        };
        write(Arc::get_mut(&mut value).expect("the pool holds the only reference"));
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
    fn value_is_reused_only_when_no_reader_holds_it() {
        let mut pool = BufferPool::new();
        let first = pool.acquire(|| 0, |value| *value = 1);
        let second = pool.acquire(|| 0, |value| *value = 2);
        assert_eq!((*first, *second), (1, 2));
        let place = Arc::as_ptr(&first);
        drop(first);
        let third = pool.acquire(|| 0, |value| *value = 3);
        assert_eq!(Arc::as_ptr(&third), place);
        assert_eq!((*second, *third), (2, 3));
    }
}
