//! How hosts are hashed. Unit tests count how often.

#[cfg(not(test))]
pub(super) use ahash::RandomState;

#[cfg(test)]
pub(super) use self::counted::RandomState;

#[cfg(test)]
pub(super) mod counted {
    use std::cell::Cell;
    use std::hash::BuildHasher;

    thread_local! {
        static HASHES: Cell<usize> = const { Cell::new(0) };
    }

    /// How many hashes this thread computes in `work`.
    pub(in crate::proxy::route) fn count_hashes<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = HASHES.get();
        let done = work();
        (done, HASHES.get() - before)
    }

    #[derive(Clone, Default)]
    pub(in crate::proxy::route) struct RandomState(ahash::RandomState);

    impl BuildHasher for RandomState {
        type Hasher = ahash::AHasher;

        fn build_hasher(&self) -> Self::Hasher {
            HASHES.set(HASHES.get() + 1);
            self.0.build_hasher()
        }
    }
}
