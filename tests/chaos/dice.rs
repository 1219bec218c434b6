//! Randomness from a seed, so that a run can be had again: as far as what it draws goes, not what the machine makes of it.

use std::time::Duration;

/// A stream of draws (Marsaglia's xorshift, 64 bits).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed | 1);
        // Seeds that differ little part only after some draws.
        for _ in 0..20 {
            dice.draw();
        }
        dice
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A stream of its own for the next in line.
    pub fn split(&mut self) -> Self {
        Self::new(self.draw())
    }

    /// From 0 to below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % count as u64).unwrap()
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// A span between these, in milliseconds.
    pub fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((least + self.below(most - least + 1)) as u64)
    }
}
