//! Where rows come from, and the seeded order in which they are read.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::error::{Error, Result};

/// The rows to train on, `[n, d_model]`.
pub struct Rows<'a> {
    d_model: usize,
    data: &'a [f32],
}

impl<'a> Rows<'a> {
    /// Rows in memory, row-major.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `data` is no whole number of rows, or none.
    pub fn from_slice(d_model: usize, data: &'a [f32]) -> Result<Self> {
        if d_model == 0 || data.is_empty() || !data.len().is_multiple_of(d_model) {
            return Err(Error::argument(format!(
                "rows: expected one row or more of {d_model} values, found {} values",
                data.len()
            )));
        }
        Ok(Self { d_model, data })
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.d_model
    }

    /// Never true: a set of rows without rows is refused when it is made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads row `i` and checks that all of it is finite.
    pub(super) fn read(&self, i: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.data[i * self.d_model..(i + 1) * self.d_model]);
        if out.iter().fold(0.0, |sum, x| sum + x * 0.0) == 0.0 {
            return Ok(());
        }
        let column = out.iter().position(|x| !x.is_finite()).unwrap_or(0);
        Err(Error::numeric(format!("row {i}, column {column}: expected a finite number, found {}", out[column])))
    }

    /// A few bytes that tell these rows from others: their number, width, and 64 of them.
    pub(super) fn fingerprint(&self) -> Result<String> {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update((self.len() as u64).to_le_bytes());
        hash.update((self.d_model as u64).to_le_bytes());
        let mut row = vec![0f32; self.d_model];
        for i in 0..64.min(self.len()) {
            self.read(i * self.len() / 64.min(self.len()), &mut row)?;
            hash.update(bytemuck::cast_slice::<f32, u8>(&row));
        }
        Ok(hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The order of `n` rows in pass `epoch`: a permutation that depends on the seed and the pass alone, so that a resumed run
/// can draw it again.
pub(super) fn order(n: usize, seed: u64, epoch: u32) -> Vec<u32> {
    let mut rng = generator(seed, u64::from(epoch) + 1);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..=i as u64) as usize);
    }
    order
}

/// Stream `stream` of the generator that `seed` starts.
pub(super) fn generator(seed: u64, stream: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn orders_are_permutations_that_differ_by_pass_and_seed() {
        let a = order(1000, 7, 0);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &row)| i as u32 == row));
        assert_eq!(a, order(1000, 7, 0));
        assert_ne!(a, order(1000, 7, 1));
        assert_ne!(a, order(1000, 8, 0));
    }

    #[test]
    fn malformed_rows_are_named() {
        assert!(Rows::from_slice(3, &[0.0; 7]).err().unwrap().message().contains("found 7 values"));
        assert!(Rows::from_slice(3, &[]).is_err());
        assert!(Rows::from_slice(0, &[1.0]).is_err());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let data = [1.0, 2.0, 3.0, 4.0, bad, 6.0];
            let error = Rows::from_slice(3, &data).unwrap().read(1, &mut [0.0; 3]).unwrap_err();
            assert_eq!(error.kind(), Kind::Numeric);
            assert!(error.message().starts_with("row 1, column 1: expected a finite number"), "{error}");
        }
    }
}
