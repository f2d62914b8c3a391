//! Independent components of residuals: symmetric FastICA (Hyvärinen 1999) with g(y) = y / (c + |y|).
//!
//! g is the derivative of |y| − c·log(1 + |y|/c), between the logistic and the Laplace likelihood: as efficient as tanh for
//! long-tailed noise, without a transcendental function for each of the `rows · n` values of a step. The rows are made
//! orthogonal by Newton and Schulz's iteration, which is products of matrices and so as fast as they are.

use nalgebra::DMatrix;
use rand::Rng;

use super::moments::symmetric;
use crate::error::{Error, Result};
use crate::num::{Mat, dot, gemm};
use crate::progress::{Progress, report};

/// The constant c of g, in standard deviations.
const SOFTNESS: f32 = 0.5;
/// Rows that are turned at a time.
const BLOCK: usize = 2048;
/// A step that turns no row by more than this is the last: 1 − |cos|.
const TOLERANCE: f32 = 1e-5;
/// Steps until components that turn by less than [`STILL`] count as found.
const ROUND: usize = 6;
const STILL: f32 = 1e-2;
/// Rounds without a find after which the rest is left to chance.
const FRUITLESS: usize = 3;
/// Chance in the starts; rows have values around 1.
const CHANCE: f32 = 0.2;

/// The rotation W `[n, n]`, row-major, that makes the columns of X Wᵀ as independent as they get, for white rows `x`
/// `[m, n]`, starting from `w`. Stops after `steps` steps at the latest.
pub(super) fn unmix(
    x: &[f32],
    mut w: Vec<f32>,
    n: usize,
    steps: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    orthogonalize(&mut w, n, threads)?;
    for step in 0..steps {
        let turned = turn(x, &mut w, n, &[], threads)?.into_iter().fold(0f32, f32::max);
        report(progress, step as u64 + 1, steps as u64, &format!("unmixing: turned by {turned:.1e}"))?;
        if turned < TOLERANCE {
            break;
        }
    }
    Ok(w)
}

/// [`unmix`] for rows of which nothing is known, and which need only be nearly white, as a part of white rows is: they are made
/// white in themselves first, because what is missing to that turns a component more than a source that is still far from it.
///
/// From chance, a component grows only if it begins nearer to one source than the noise of the estimate is large, and of
/// hundreds of sources none is: the steps then wander for ever. But a long row is long because some source is extreme in it,
/// and points a little towards that one. So components start at the longest rows; after [`ROUND`] steps those that stand still
/// are kept, and the others start again in what is left of the space, where there are fewer sources to tell apart.
pub(super) fn unmix_rows(
    mut x: Vec<f32>,
    n: usize,
    steps: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    let whiten = symmetric(&gram(&x, n, threads), |v| 1.0 / v.max(1e-9).sqrt());
    map_rows(&mut x, &whiten, threads);
    let w = search(&x, n, steps, threads, progress)?;
    let mut w = to_rows(&(from_rows(&w, n, n) * whiten));
    orthogonalize(&mut w, n, threads)?;
    Ok(w)
}

/// Σ x xᵀ / rows.
fn gram(x: &[f32], n: usize, threads: usize) -> DMatrix<f64> {
    let (mut part, mut sum) = (vec![0f32; n * n], vec![0f64; n * n]);
    for x in x.chunks(BLOCK * n) {
        let rows = Mat::new(x, x.len() / n, n);
        gemm(rows.t(), rows, false, &mut part, threads);
        sum.iter_mut().zip(&part).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let rows = (x.len() / n) as f64;
    // Symmetric, so rows and columns may be taken for each other.
    DMatrix::from_vec(n, n, sum) / rows
}

/// What [`unmix_rows`] does once rows are white.
fn search(x: &[f32], n: usize, steps: usize, threads: usize, progress: &mut Progress<'_>) -> Result<Vec<f32>> {
    let mut found: Vec<f32> = Vec::with_capacity(n * n);
    let (mut used, mut rest) = (vec![false; x.len() / n], Vec::new());
    // Steps that turn all components would have cost as much.
    let (mut spent, mut fruitless) = (0f64, 0);
    while found.len() < n * n && fruitless < FRUITLESS && spent < 0.8 * steps as f64 {
        rest = starts(x, n, &found, &mut used, threads);
        orthogonalize(&mut rest, n, threads)?;
        let mut turned = Vec::new();
        for _ in 0..ROUND {
            turned = turn(x, &mut rest, n, &found, threads)?;
            spent += rest.len() as f64 / (n * n) as f64;
            let note = format!("unmixing: {} components of {n} found", found.len() / n);
            report(progress, spent as u64, steps as u64, &note)?;
        }
        let mut others = Vec::with_capacity(rest.len());
        let before = found.len();
        for (row, turned) in rest.chunks_exact(n).zip(turned) {
            if turned < STILL { &mut found } else { &mut others }.extend_from_slice(row);
        }
        rest = others;
        fruitless = if found.len() == before { fruitless + 1 } else { 0 };
    }
    found.append(&mut rest);
    unmix(x, found, n, steps.saturating_sub(spent as usize).max(1), threads, progress)
}

/// A step of the rows of `w`, in the space at right angles to the rows of `found`; by how much each turned, 1 − |cos|.
fn turn(x: &[f32], w: &mut Vec<f32>, n: usize, found: &[f32], threads: usize) -> Result<Vec<f32>> {
    let k = w.len() / n;
    let (mut y, mut next, mut slope) = (Vec::new(), vec![0f32; k * n], vec![0f64; k]);
    for x in x.chunks(BLOCK * n) {
        let m = x.len() / n;
        y.resize(m * k, 0.0);
        gemm(Mat::new(x, m, n), Mat::new(w, k, n).t(), false, &mut y, threads);
        for row in y.chunks_exact_mut(k) {
            for (v, slope) in row.iter_mut().zip(&mut slope) {
                let below = 1.0 / (SOFTNESS + v.abs());
                *slope += f64::from(SOFTNESS * below * below);
                *v *= below;
            }
        }
        gemm(Mat::new(&y, m, k).t(), Mat::new(x, m, n), true, &mut next, threads);
    }
    let rows = (x.len() / n) as f32;
    for ((next, w), slope) in next.chunks_exact_mut(n).zip(w.chunks_exact(n)).zip(&slope) {
        let slope = (slope / f64::from(rows)) as f32;
        next.iter_mut().zip(w).for_each(|(v, w)| *v = *v / rows - slope * w);
    }
    take_out(&mut next, found, n, threads);
    orthogonalize(&mut next, n, threads)?;
    let turned = next.chunks_exact(n).zip(w.chunks_exact(n)).map(|(a, b)| 1.0 - dot(a, b).abs()).collect();
    *w = next;
    Ok(turned)
}

/// Takes off the rows of `w` what lies along the rows of `found`, which are orthonormal.
fn take_out(w: &mut [f32], found: &[f32], n: usize, threads: usize) {
    if found.is_empty() {
        return;
    }
    let (k, f) = (w.len() / n, found.len() / n);
    let mut along = vec![0f32; k * f];
    gemm(Mat::new(w, k, n), Mat::new(found, f, n).t(), false, &mut along, threads);
    along.iter_mut().for_each(|v| *v = -*v);
    gemm(Mat::new(&along, k, f), Mat::new(found, f, n), true, w, threads);
}

/// As many rows as components are missing: the longest that were not used yet, without what lies along `found`. A little
/// chance keeps equal rows apart.
fn starts(x: &[f32], n: usize, found: &[f32], used: &mut [bool], threads: usize) -> Vec<f32> {
    let missing = n - found.len() / n;
    let mut lengths: Vec<(f32, usize)> = Vec::with_capacity(used.len());
    let mut block = Vec::new();
    for (first, x) in (0..).step_by(BLOCK).zip(x.chunks(BLOCK * n)) {
        block.clear();
        block.extend_from_slice(x);
        take_out(&mut block, found, n, threads);
        let long = block.chunks_exact(n).enumerate().map(|(i, row)| (dot(row, row), first + i));
        lengths.extend(long.filter(|&(_, i)| !used[i]));
    }
    let longest = missing.min(lengths.len());
    if longest > 0 {
        lengths.select_nth_unstable_by(longest - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    let mut chosen: Vec<usize> = lengths.iter().take(longest).map(|&(_, i)| i).collect();
    chosen.sort_unstable();
    let mut random = crate::num::rng(found.len() as u64);
    let mut w = vec![0f32; missing * n];
    w.iter_mut().for_each(|v| *v = random.random_range(-CHANCE..CHANCE));
    for (w, &i) in w.chunks_exact_mut(n).zip(&chosen) {
        used[i] = true;
        w.iter_mut().zip(&x[i * n..]).for_each(|(w, x)| *w += x);
    }
    take_out(&mut w, found, n, threads);
    w
}

/// W ← (W Wᵀ)^(−1/2) W by X ← 1.5 X − 0.5 X Xᵀ X, which converges where all singular values lie below √3. Rows keep their
/// lengths until then: in a step's rows they say how sure each is, and the unsure give way to the sure.
fn orthogonalize(w: &mut [f32], n: usize, threads: usize) -> Result<()> {
    let k = w.len() / n;
    let (mut gram, mut product) = (vec![0f32; k * k], vec![0f32; k * n]);
    // No nearer than sums of n products are exact.
    let near = 1e-5f32.max(1e-8 * n as f32);
    for round in 0..100 {
        gemm(Mat::new(w, k, n), Mat::new(w, k, n).t(), false, &mut gram, threads);
        if round == 0 {
            // The largest row sum bounds the largest eigenvalue of W Wᵀ.
            let bound = gram.chunks_exact(k).map(|row| row.iter().map(|v| v.abs()).sum::<f32>()).fold(0f32, f32::max);
            let factor = if bound > 0.0 { 1.0 / bound } else { 0.0 };
            gram.iter_mut().for_each(|v| *v *= factor);
            w.iter_mut().for_each(|v| *v *= factor.sqrt());
        }
        let off = gram.iter().enumerate().map(|(at, v)| (v - f32::from(u8::from(at / k == at % k))).abs());
        let (most, sum) = off.fold((0f32, 0f32), |(most, sum), v| (most.max(v), sum + v));
        // `max` passes over NaN, a sum keeps it.
        if most < near && sum.is_finite() {
            return Ok(());
        }
        gemm(Mat::new(&gram, k, k), Mat::new(w, k, n), false, &mut product, threads);
        w.iter_mut().zip(&product).for_each(|(w, p)| *w = 1.5 * *w - 0.5 * p);
    }
    Err(Error::numeric("unmixing: components vanished or ran into each other; give more rows or fewer latents"))
}

/// `x ← x·mᵀ` for rows `x` `[rows, n]`, in 32 bits.
pub(super) fn map_rows(x: &mut [f32], m: &DMatrix<f64>, threads: usize) {
    let n = m.nrows();
    let rows = to_rows(m);
    let mut out = vec![0f32; BLOCK.min(x.len() / n.max(1)) * n];
    for x in x.chunks_mut(BLOCK * n) {
        let k = x.len() / n;
        gemm(Mat::new(x, k, n), Mat::new(&rows, n, n).t(), false, &mut out[..k * n], threads);
        x.copy_from_slice(&out[..k * n]);
    }
}

/// Row-major 32-bit values of a matrix.
pub(super) fn to_rows(m: &DMatrix<f64>) -> Vec<f32> {
    m.transpose().as_slice().iter().map(|&v| v as f32).collect()
}

/// The matrix of row-major 32-bit values.
pub(super) fn from_rows(values: &[f32], rows: usize, columns: usize) -> DMatrix<f64> {
    DMatrix::from_row_iterator(rows, columns, values.iter().map(|&v| f64::from(v)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng;
    use crate::progress::silent;

    /// Laplace noise of variance 1, turned: the turn is found again, up to order and sign, on any number of threads.
    #[test]
    fn a_rotation_of_laplace_noise_is_undone() {
        let (n, m) = (6, 8000);
        let mut rng = rng(2);
        let mut laplace = || {
            let u: f32 = rng.random_range(-0.5..0.5f32);
            -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-7).ln() / 2f32.sqrt()
        };
        let noise: Vec<f32> = (0..n * m).map(|_| laplace()).collect();
        let mut turn: Vec<f32> = (0..n * n).map(|at| ((at * 37 + 11) % 23) as f32 - 11.0).collect();
        orthogonalize(&mut turn, n, 1).unwrap();
        let mut x = vec![0f32; n * m];
        gemm(Mat::new(&noise, m, n), Mat::new(&turn, n, n).t(), false, &mut x, 1);
        let start: Vec<f32> = (0..n * n).map(|at| if at / n == at % n { 1.0 } else { 0.0 }).collect();
        let w = unmix(&x, start.clone(), n, 100, 1, &mut silent).unwrap();
        assert_eq!(w, unmix(&x, start, n, 100, 3, &mut silent).unwrap(), "threads change nothing");
        let rows = unmix_rows(x.clone(), n, 100, 1, &mut silent).unwrap();
        assert_eq!(rows, unmix_rows(x, n, 100, 3, &mut silent).unwrap(), "threads change nothing");
        for w in [w, rows] {
            let mut p = vec![0f32; n * n];
            gemm(Mat::new(&w, n, n), Mat::new(&turn, n, n), false, &mut p, 1);
            for row in p.chunks_exact(n) {
                let mut sizes: Vec<f32> = row.iter().map(|v| v.abs()).collect();
                sizes.sort_by(f32::total_cmp);
                assert!(sizes[n - 1] > 0.99 && sizes[n - 2] < 0.06, "{row:?}");
            }
        }
    }

    /// The nearest orthogonal matrix to (10 0; 1 1), by hand: (11 −1; 1 11) / √122.
    #[test]
    fn the_long_row_turns_the_short_one() {
        let mut w = [10.0, 0.0, 1.0, 1.0];
        orthogonalize(&mut w, 2, 1).unwrap();
        let exact = [11.0, -1.0, 1.0, 11.0].map(|v: f32| v / 122f32.sqrt());
        assert!(w.iter().zip(exact).all(|(w, v)| (w - v).abs() < 1e-5), "{w:?}");
        for second in [[0.0, 0.0], [f32::NAN, 0.0]] {
            assert!(orthogonalize(&mut [1.0, 0.0, second[0], second[1]], 2, 1).is_err(), "{second:?}");
        }
    }

    /// 160 sources, of which a start by chance finds none.
    #[test]
    fn many_components_are_found_from_the_longest_rows() {
        let (n, m) = (160, 13_000);
        let mut rng = rng(7);
        let x: Vec<f32> = (0..n * m)
            .map(|_| {
                let u: f32 = rng.random_range(-0.5..0.5f32);
                -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-7).ln() / 2f32.sqrt()
            })
            .collect();
        let nearest =
            |w: &[f32]| w.chunks_exact(n).map(|r| r.iter().fold(0f32, |a, v| a.max(v.abs()))).fold(1f32, f32::min);
        let chance: Vec<f32> = (0..n * n).map(|_| rng.random_range(-1.0..1.0f32)).collect();
        let lost = nearest(&unmix(&x, chance, n, 30, 2, &mut silent).unwrap());
        let found = nearest(&unmix_rows(x, n, 60, 2, &mut silent).unwrap());
        assert!(found > 0.97 && lost < 0.7, "from rows {found}, from chance {lost}");
    }
}
