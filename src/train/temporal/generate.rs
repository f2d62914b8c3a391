//! The synthetic process of the paper: sparse B_τ and M, Laplace noise, a well-conditioned mixing.
//!
//! [D] The numbers are ours. M has one parent a latent on average, of weight ±(0.3 … 0.8), from a hidden order; every B_τ has
//! a memory of the latent itself and one other driver on average, of weight ±(0.2 … 0.6), and is shrunk by ρ^τ so that the
//! process forgets (spectral radius 0.9 at most). The mixing has singular values 0.5 … 1.5 before its columns are scaled to
//! length 1.

use nalgebra::DMatrix;
use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::ica::to_rows;
use super::order::ranks;
use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::num::{Mat, gemm, rng};

/// Rows of a process that are thrown away before it is looked at.
const BURN_IN: usize = 200;
/// The largest spectral radius of a process.
const RADIUS: f64 = 0.9;

/// How large a process is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Latents, 2 or more.
    pub n_latents: usize,
    /// Lags, 1 or more.
    pub lags: usize,
    /// Chooses everything.
    pub seed: u64,
}

/// A process whose latents, weights and order are known.
#[derive(Clone, Debug)]
pub struct Process {
    /// What was asked for.
    pub shape: Shape,
    /// M `[n, n]`, row-major.
    pub instantaneous: Vec<f32>,
    /// B_τ `[lags, n, n]`.
    pub lagged: Vec<f32>,
    /// The causal order, causes first.
    pub order: Vec<usize>,
    /// A `[n, n]`: row-major, column i is the direction of latent i, of length 1.
    pub mixing: Vec<f32>,
    /// Laplace scale of each latent's noise.
    pub noise: Vec<f32>,
    /// (I − M)⁻¹ and the Φ_τ = (I − M)⁻¹ B_τ.
    reduced: Vec<Vec<f32>>,
    /// Goes on with the noise.
    random: Xoshiro256PlusPlus,
    /// The last rows, newest first.
    past: Vec<Vec<f32>>,
}

impl Process {
    /// Draws a process.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for fewer than two latents or no lag.
    pub fn new(shape: Shape) -> Result<Self> {
        let Shape { n_latents: n, lags, seed } = shape;
        if n < 2 || lags == 0 {
            return Err(Error::argument(format!(
                "process: expected 2 latents and 1 lag or more, found {n} and {lags}"
            )));
        }
        let mut random = rng(seed);
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, random.random_range(0..=i)));
        let rank = ranks(&order);
        let mut weight = |chance: f64, low: f64, high: f64| match random.random::<f64>() < chance {
            true => random.random_range(low..high) * if random.random::<bool>() { 1.0 } else { -1.0 },
            false => 0.0,
        };
        let m = DMatrix::from_fn(n, n, |i, j| weight(if rank[j] < rank[i] { 2.0 / n as f64 } else { 0.0 }, 0.3, 0.8));
        let mut b: Vec<DMatrix<f64>> = (0..lags)
            .map(|_| DMatrix::from_fn(n, n, |i, j| weight(if i == j { 1.0 } else { 1.0 / n as f64 }, 0.2, 0.6)))
            .collect();
        let inverse = (DMatrix::identity(n, n) - &m)
            .try_inverse()
            .ok_or_else(|| Error::numeric("process: (I − M) is singular, which a triangle with ones is not"))?;
        let radius = radius(&inverse, &b);
        let shrink = (RADIUS / radius).min(1.0);
        b.iter_mut().enumerate().for_each(|(k, b)| *b *= shrink.powi(k as i32 + 1));
        let mut reduced = vec![to_rows(&inverse)];
        reduced.extend(b.iter().map(|b| to_rows(&(&inverse * b))));

        let mut turn = || DMatrix::from_fn(n, n, |_, _| normal(&mut random)).qr().q();
        let (left, right) = (turn(), turn());
        let mut mixing =
            left * DMatrix::from_diagonal(&nalgebra::DVector::from_fn(n, |_, _| random.random_range(0.5..1.5))) * right;
        mixing.column_iter_mut().for_each(|mut c| {
            let length = c.norm();
            c /= length;
        });
        let noise = (0..n).map(|_| random.random_range(0.7..1.4f32)).collect();
        let past = vec![vec![0.0; n]; lags];
        let mut process = Self {
            shape,
            instantaneous: to_rows(&m),
            lagged: b.iter().flat_map(to_rows).collect(),
            order,
            mixing: to_rows(&mixing),
            noise,
            reduced,
            random,
            past,
        };
        process.latents(BURN_IN);
        Ok(process)
    }

    /// The next `rows` rows of latents, `[rows, n]`: the process goes on where it was.
    pub fn latents(&mut self, rows: usize) -> Vec<f32> {
        let n = self.shape.n_latents;
        let noise: Vec<f32> = (0..rows * n)
            .map(|at| {
                // In 64 bits: of 2²⁴ numbers in 32 bits one would be an end, where the logarithm is none.
                let u: f64 = self.random.random_range(-0.5..0.5);
                (-u.signum() * (1.0 - 2.0 * u.abs()).max(f64::EPSILON / 2.0).ln()) as f32 * self.noise[at % n]
            })
            .collect();
        let mut z = vec![0f32; rows * n];
        gemm(Mat::new(&noise, rows, n), Mat::new(&self.reduced[0], n, n).t(), false, &mut z, 1);
        for t in 0..rows {
            let (before, row) = z.split_at_mut(t * n);
            let row = &mut row[..n];
            for (k, phi) in self.reduced.iter().skip(1).enumerate() {
                let past = if t > k { &before[(t - k - 1) * n..(t - k) * n] } else { &self.past[k - t] };
                row.iter_mut().zip(phi.chunks_exact(n)).for_each(|(v, phi)| *v += crate::num::dot(phi, past));
            }
        }
        for k in (0..self.past.len()).rev() {
            self.past[k] =
                if rows > k { z[(rows - k - 1) * n..(rows - k) * n].to_vec() } else { self.past[k - rows].clone() };
        }
        z
    }

    /// Rows `[rows, n]` of mixed latents: x = A z.
    pub fn mix(&self, latents: &[f32]) -> Vec<f32> {
        let n = self.shape.n_latents;
        let mut x = vec![0f32; latents.len()];
        gemm(Mat::new(latents, latents.len() / n, n), Mat::new(&self.mixing, n, n).t(), false, &mut x, 1);
        x
    }

    /// Rows as one document.
    ///
    /// # Errors
    /// As [`Sequences::from_rows`].
    pub fn sequences(&self, rows: Vec<f32>) -> Result<Sequences<'static>> {
        let n = self.shape.n_latents;
        let count = rows.len() / n;
        Sequences::from_rows(n, rows, &[0, count])
    }
}

/// The spectral radius of the process without noise: how fast it grows in the long run.
fn radius(inverse: &DMatrix<f64>, b: &[DMatrix<f64>]) -> f64 {
    const STEPS: usize = 400;
    let n = inverse.nrows();
    let phi: Vec<DMatrix<f64>> = b.iter().map(|b| inverse * b).collect();
    let mut past: Vec<nalgebra::DVector<f64>> =
        (0..b.len()).map(|k| nalgebra::DVector::from_fn(n, |i, _| ((i * 31 + k * 17) % 13) as f64 - 6.0)).collect();
    let (mut log, mut counted) = (0f64, 0usize);
    for step in 0..STEPS {
        let next = phi.iter().zip(&past).fold(nalgebra::DVector::zeros(n), |sum, (phi, z)| sum + phi * z);
        past.rotate_right(1);
        past[0] = next;
        let size = past.iter().map(|z| z.norm_squared()).sum::<f64>().sqrt();
        past.iter_mut().for_each(|z| *z /= size);
        if step >= STEPS / 2 {
            log += size.ln();
            counted += 1;
        }
    }
    (log / counted as f64).exp()
}

/// A normal number, by Box and Muller.
fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_obeys_its_equation_across_calls() {
        let shape = Shape { n_latents: 8, lags: 2, seed: 3 };
        let mut process = Process::new(shape).unwrap();
        let mut same = Process::new(shape).unwrap();
        let whole = process.latents(60);
        let parts: Vec<f32> = [1, 40, 19].iter().flat_map(|&rows| same.latents(rows)).collect();
        assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-4), "parts follow each other");
        assert!(whole.iter().all(|v| v.abs() < 100.0), "it is stable");
        let rank = ranks(&process.order);
        for i in 0..8 {
            for j in 0..8 {
                assert!(process.instantaneous[i * 8 + j] == 0.0 || rank[j] < rank[i], "M is triangular in its order");
            }
            let length: f32 = (0..8).map(|k| process.mixing[k * 8 + i].powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-4);
        }
        // The noise that explains each row has the scale that was drawn: E|ε| of a Laplace variable is its scale.
        let z = process.latents(20_000);
        let mut sums = [0f64; 8];
        for t in 2..20_000 {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = |t: usize, j: usize| z[t * 8 + j];
                let now: f32 = (0..8).map(|j| process.instantaneous[i * 8 + j] * at(t, j)).sum();
                let before: f32 = (0..2)
                    .map(|k| (0..8).map(|j| process.lagged[(k * 8 + i) * 8 + j] * at(t - 1 - k, j)).sum::<f32>())
                    .sum();
                *sum += f64::from((at(t, i) - now - before).abs());
            }
        }
        for (sum, &scale) in sums.iter().zip(&process.noise) {
            let found = sum / 19_998.0;
            assert!((found / f64::from(scale) - 1.0).abs() < 0.05, "{found} for {scale}");
        }
        assert!(Process::new(Shape { n_latents: 1, ..shape }).is_err());
    }
}
