//! Which incarnation of which child an actor is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ractor::ActorId;

/// A map from actors. Their ids are counted up, so that a fast hash is as good as a safe one.
pub(crate) type ByActor<T> = HashMap<ActorId, T, BuildHasherDefault<CountedHasher>>;

/// Hashes numbers that nobody chooses: a multiplication, which spreads neighbors over all bits.
#[derive(Debug, Default)]
pub(crate) struct CountedHasher(u64);

impl Hasher for CountedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number near 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}
