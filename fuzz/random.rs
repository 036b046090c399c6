//! Random numbers for tests.

/// A generator of random numbers (xorshift64*) that gives the same ones in every run.
#[derive(Debug)]
pub struct Xorshift(pub u64);

impl Xorshift {
    /// Returns a number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}
