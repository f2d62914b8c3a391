//! Directions from pairs: what tells rows of one kind from rows of the other.
//!
//! | method | direction | who does it so |
//! |---|---|---|
//! | [`Method::Mean`] | mean⁺ − mean⁻ | difference of means |
//! | [`Method::Contrastive`] | mean of (x⁺ − x⁻) over pairs | CAA, arXiv 2312.06681: rows are those of the answer token |
//! | [`Method::Pca`] | first principal axis of x⁺ − x⁻, **not centred** | llama.cpp's `cvector-generator`; repeng's `pca_center` |
//! | [`Method::PcaCentred`] | first principal axis of x⁺ − x⁻ **less their mean** | repeng's `pca_diff`, its default |
//!
//! Centring decides what PCA finds. Without it the axis leans towards the mean difference, which is what pairs have in
//! common. With it the common part is gone, and what is left is how pairs differ from each other: for pairs that agree
//! well that is anything but the concept. (repeng's other mode takes each pair's midpoint from both rows; the two halves of
//! a pair then sum to zero, so that it is the uncentred axis again.)
//!
//! An axis has no sign. llama.cpp leaves it to chance; here it points to where more of the positive rows lie above their
//! partners, as repeng does. Axes have norm 1; means keep the length that they have in the residual stream.
//!
//! One pass over the rows for a mean, `2·n·d²` products and `d²` numbers for an axis, and one more pass for what is told of
//! it. Llama.cpp's files are made of such directions: see `ControlVector` for writing them.

use nalgebra::{DMatrix, SymmetricEigen};
use rand::Rng;

use super::rows::Rows;
use crate::error::{Error, Result};
use crate::file::{Dtype, npy, safetensors};
use crate::num::{Mat, gemm, rng};
use crate::progress::{Progress, report};
use std::path::Path;

/// How a direction is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The difference of the two means; the rows need not come in pairs.
    #[default]
    Mean,
    /// The mean of the differences of pairs, as CAA takes it at the answer token.
    Contrastive,
    /// The first principal axis of the differences as they are.
    Pca,
    /// The first principal axis of the differences around their mean.
    PcaCentred,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Mean, Self::Contrastive, Self::Pca, Self::PcaCentred];

    /// As the command and the C border spell it: `mean`, `caa`, `pca`, `pca-centred`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Contrastive => "caa",
            Self::Pca => "pca",
            Self::PcaCentred => "pca-centred",
        }
    }
}

/// A direction in the residual stream, and how well it tells the rows apart that it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// `[d_model]`.
    pub values: Vec<f32>,
    /// Share of pairs whose positive row lies further along the direction; NaN if the two kinds are of unequal number.
    pub agreement: f64,
    /// Distance of the two means along the direction, in standard deviations within a kind (d′); infinite if there is no
    /// spread.
    pub separation: f64,
    /// Of an axis: its share of the sum of squares of the (centred) differences; else NaN.
    pub explained: f64,
}

/// Rows read at once.
const BLOCK: usize = 1024;

/// Finds the direction from `negative` to `positive` rows. Row `i` of both is a pair for all methods but
/// [`Method::Mean`].
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if the widths differ, or the numbers of rows where pairs are needed;
/// [`Kind::Numeric`](crate::Kind::Numeric) for rows that are not finite, or do not differ;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn direction(
    positive: &Rows<'_>,
    negative: &Rows<'_>,
    method: Method,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Direction> {
    let d = positive.d_model();
    if negative.d_model() != d {
        let found = negative.d_model();
        return Err(Error::mismatch(format!("vector: positive rows have width {d}, negative rows {found}")));
    }
    let paired = positive.len() == negative.len();
    if !paired && method != Method::Mean {
        let (p, n, name) = (positive.len(), negative.len(), method.name());
        return Err(Error::mismatch(format!("vector: {name} needs pairs, found {p} positive and {n} negative rows")));
    }
    let difference: Vec<f64> =
        mean(positive, progress)?.iter().zip(mean(negative, progress)?).map(|(p, n)| p - n).collect();
    let (mut axis, explained) = match method {
        Method::Mean | Method::Contrastive => (difference.clone(), f64::NAN),
        Method::Pca => principal(positive, negative, None, threads, progress)?,
        Method::PcaCentred => principal(positive, negative, Some(&difference), threads, progress)?,
    };
    if axis.iter().all(|&v| v.abs() < 1e-30) {
        return Err(Error::numeric("vector: expected rows that differ, found no difference between the two kinds"));
    }
    let (up, down) = (project(positive, &axis, progress)?, project(negative, &axis, progress)?);
    let above = up.iter().zip(&down).filter(|(p, n)| p > n).count();
    let below = up.iter().zip(&down).filter(|(p, n)| p < n).count();
    let (mean_up, var_up) = moments(&up);
    let (mean_down, var_down) = moments(&down);
    let mut gap = mean_up - mean_down;
    let mut agreement = above as f64 / up.len() as f64;
    let flip = above < below || (above == below && gap < 0.0);
    if matches!(method, Method::Pca | Method::PcaCentred) && flip {
        axis.iter_mut().for_each(|v| *v = -*v);
        (agreement, gap) = (below as f64 / up.len() as f64, -gap);
    }
    Ok(Direction {
        values: axis.iter().map(|&v| v as f32).collect(),
        agreement: if paired { agreement } else { f64::NAN },
        separation: gap / ((var_up + var_down) / 2.0).sqrt(),
        explained,
    })
}

/// Calls `each` with blocks of rows.
fn blocks(rows: &Rows<'_>, progress: &mut Progress<'_>, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    let d = rows.d_model();
    let mut block = vec![0f32; BLOCK.min(rows.len()) * d];
    for first in (0..rows.len()).step_by(BLOCK) {
        let n = BLOCK.min(rows.len() - first);
        for (i, row) in block.chunks_exact_mut(d).take(n).enumerate() {
            rows.read(first + i, row)?;
        }
        each(first, &block[..n * d]);
        report(progress, (first + n) as u64, rows.len() as u64, "")?;
    }
    Ok(())
}

fn mean(rows: &Rows<'_>, progress: &mut Progress<'_>) -> Result<Vec<f64>> {
    let d = rows.d_model();
    let mut sum = vec![0f64; d];
    blocks(rows, progress, |_, block| {
        for row in block.chunks_exact(d) {
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
    })?;
    Ok(sum.iter().map(|sum| sum / rows.len() as f64).collect())
}

fn project(rows: &Rows<'_>, axis: &[f64], progress: &mut Progress<'_>) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(rows.len());
    blocks(rows, progress, |_, block| {
        let one = |row: &[f32]| row.iter().zip(axis).map(|(&x, a)| f64::from(x) * a).sum::<f64>();
        all.extend(block.chunks_exact(axis.len()).map(one));
    })?;
    Ok(all)
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0))
}

/// The first principal axis of the differences less `centre`, and its share of their sum of squares.
fn principal(
    positive: &Rows<'_>,
    negative: &Rows<'_>,
    centre: Option<&[f64]>,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<(Vec<f64>, f64)> {
    let d = positive.d_model();
    let mut second = vec![0f64; d * d];
    let mut product = vec![0f32; d * d];
    let mut other = vec![0f32; d];
    let mut differences = vec![0f32; BLOCK.min(positive.len()) * d];
    let mut failed = Ok(());
    blocks(positive, progress, |first, block| {
        for (i, (row, out)) in block.chunks_exact(d).zip(differences.chunks_exact_mut(d)).enumerate() {
            if let Err(e) = negative.read(first + i, &mut other) {
                failed = Err(e);
                return;
            }
            for j in 0..d {
                let centre = centre.map_or(0.0, |centre| centre[j]);
                out[j] = (f64::from(row[j]) - f64::from(other[j]) - centre) as f32;
            }
        }
        let x = Mat::new(&differences[..block.len()], block.len() / d, d);
        gemm(x.t(), x, false, &mut product, threads);
        second.iter_mut().zip(&product).for_each(|(sum, &v)| *sum += f64::from(v));
    })?;
    failed?;
    let total: f64 = second.iter().step_by(d + 1).sum();
    if total <= 0.0 || !total.is_finite() {
        return Err(Error::numeric(
            "vector: expected pairs that differ from each other, found no spread to take an axis of",
        ));
    }
    let (axis, value) = leading(&second, d)?;
    Ok((axis, value / total))
}

/// The eigenvector of the largest eigenvalue of a symmetric matrix `[d, d]`, and that eigenvalue: Lanczos with full
/// reorthogonalisation, restarted from its own result until the residual is 1e-10 of the eigenvalue.
fn leading(matrix: &[f64], d: usize) -> Result<(Vec<f64>, f64)> {
    const STEPS: usize = 80;
    const RESTARTS: usize = 40;
    let mut generator = rng(0);
    let mut start: Vec<f64> = (0..d).map(|_| generator.random_range(-1.0..1.0)).collect();
    let mut value = 0.0;
    for _ in 0..RESTARTS {
        scale(&mut start);
        let (mut basis, mut diagonal, mut off) = (vec![start.clone()], Vec::new(), Vec::new());
        let mut left = 0.0;
        for step in 0..STEPS.min(d) {
            let mut next: Vec<f64> = matrix.chunks_exact(d).map(|row| inner(row, &basis[step])).collect();
            diagonal.push(inner(&next, &basis[step]));
            // Twice is enough (Kahan).
            for _ in 0..2 {
                for v in &basis {
                    let along = inner(&next, v);
                    next.iter_mut().zip(v).for_each(|(x, v)| *x -= along * v);
                }
            }
            left = scale(&mut next);
            if left <= 1e-14 * diagonal[0].abs() || step + 1 == STEPS.min(d) {
                break;
            }
            off.push(left);
            basis.push(next);
        }
        let m = diagonal.len();
        let mut small = DMatrix::<f64>::zeros(m, m);
        for i in 0..m {
            small[(i, i)] = diagonal[i];
            if i + 1 < m {
                (small[(i, i + 1)], small[(i + 1, i)]) = (off[i], off[i]);
            }
        }
        let eigen = SymmetricEigen::new(small);
        let (best, &largest) = eigen
            .eigenvalues
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .ok_or_else(|| Error::numeric("vector: no axis"))?;
        let weights = eigen.eigenvectors.column(best);
        value = largest;
        start.fill(0.0);
        for (v, &weight) in basis.iter().zip(weights.iter()) {
            start.iter_mut().zip(v).for_each(|(x, v)| *x += weight * v);
        }
        if (left * weights[m - 1]).abs() <= 1e-10 * largest.abs() || m == d {
            break;
        }
    }
    scale(&mut start);
    Ok((start, value))
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Makes the norm 1 and returns what it was.
fn scale(v: &mut [f64]) -> f64 {
    let norm = inner(v, v).sqrt();
    if norm > 0.0 {
        v.iter_mut().for_each(|x| *x /= norm);
    }
    norm
}

impl Direction {
    /// Length of the direction.
    pub fn norm(&self) -> f32 {
        crate::num::norm(&self.values)
    }

    /// Writes the direction as a NumPy array of shape `[d_model]`.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save_npy(&self, path: &Path) -> Result<()> {
        npy::write(path, Dtype::F32, &[self.values.len()], bytemuck::cast_slice::<f32, u8>(&self.values))
    }
}

/// Writes directions by layer as safetensors: a tensor `direction.N` of shape `[d_model]` for the output of block N.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for a layer given twice; [`Kind::Io`](crate::Kind::Io).
pub fn save_directions(path: &Path, directions: &[(usize, &Direction)]) -> Result<()> {
    let mut file = safetensors::Writer::new();
    file.metadata("format", "tiller directions 1");
    for (layer, direction) in directions {
        let bytes = bytemuck::cast_slice::<f32, u8>(&direction.values);
        file.tensor(&format!("direction.{layer}"), Dtype::F32, &[direction.values.len()], bytes);
    }
    file.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::progress::silent;

    /// Pairs whose difference is `2·a + s·3·b`, s = ±1, plus noise: the concept is a, what pairs differ in is b.
    fn pairs(n: usize, d: usize) -> (Vec<f32>, Vec<f32>) {
        let mut rng = rng(5);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for i in 0..n {
            let base: Vec<f32> = (0..d).map(|j| 10.0 * j as f32 + rng.random_range(-4.0..4.0)).collect();
            for (j, &x) in base.iter().enumerate() {
                let concept = if j == 0 { 2.0 } else { 0.0 };
                let other = if j == 1 { 3.0 * if i % 2 == 0 { 1.0 } else { -1.0 } } else { 0.0 };
                up.push(x + concept + other + rng.random_range(-0.01..0.01));
                down.push(x);
            }
        }
        (up, down)
    }

    #[test]
    fn each_method_finds_what_it_is_defined_to_find() {
        let d = 9;
        let (up, down) = pairs(400, d);
        let (up, down) = (Rows::from_slice(d, &up).unwrap(), Rows::from_slice(d, &down).unwrap());
        let of = |method| direction(&up, &down, method, 1, &mut silent).unwrap();
        for method in [Method::Mean, Method::Contrastive] {
            let found = of(method);
            assert!((found.values[0] - 2.0).abs() < 0.01 && found.norm() < 2.01, "{found:?}");
            assert_eq!(found.agreement, 1.0);
        }
        // Uncentred: Σ = diag(4, 9, …): the axis is b, of which the concept is no part; centred it is b too.
        for (method, share) in [(Method::Pca, 9.0 / 13.0), (Method::PcaCentred, 1.0)] {
            let found = of(method);
            assert!((found.values[1].abs() - 1.0).abs() < 1e-3, "{method:?} {found:?}");
            assert!((found.explained - share).abs() < 1e-3, "{method:?} {found:?}");
        }
    }

    #[test]
    fn centring_takes_the_common_difference_away() {
        // Differences 5·a ± 1·b: uncentred PCA finds a, centred PCA finds b.
        let mut up = vec![0f32; 100 * 4];
        for (i, row) in up.chunks_mut(4).enumerate() {
            (row[0], row[1]) = (-5.0, if i % 2 == 0 { 1.0 } else { -1.0 });
        }
        let down = vec![0f32; 400];
        let (up, down) = (Rows::from_slice(4, &up).unwrap(), Rows::from_slice(4, &down).unwrap());
        let axis = |method| direction(&up, &down, method, 1, &mut silent).unwrap();
        let plain = axis(Method::Pca);
        assert!((plain.values[0] + 1.0).abs() < 1e-6, "it points to the positive rows: {plain:?}");
        assert_eq!((plain.agreement, plain.separation > 1e3), (1.0, true));
        assert!(axis(Method::PcaCentred).values[1].abs() > 0.999_999);
    }

    #[test]
    fn the_axis_is_that_of_a_full_decomposition() {
        let d = 120;
        let mut rng = rng(1);
        let x: Vec<f64> = (0..200 * d).map(|i| rng.random_range(-1.0..1.0) * (1.0 + (i % d) as f64 / 300.0)).collect();
        let x = DMatrix::from_row_slice(200, d, &x);
        let gram = x.transpose() * &x;
        let exact = SymmetricEigen::new(gram.clone());
        let best = exact.eigenvalues.imax();
        let (axis, value) = leading(gram.as_slice(), d).unwrap();
        let cosine = inner(&axis, exact.eigenvectors.column(best).as_slice()).abs();
        assert!((cosine - 1.0).abs() < 1e-12 && (value / exact.eigenvalues[best] - 1.0).abs() < 1e-12, "{cosine}");
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let (a, b) = ([1f32, 2.0, 3.0, 4.0], [1f32, 2.0]);
        let rows = |data| Rows::from_slice(2, data).unwrap();
        let kind = |p: &Rows<'_>, n: &Rows<'_>, method| direction(p, n, method, 1, &mut silent).unwrap_err().kind();
        assert_eq!(kind(&rows(&a), &rows(&b), Method::Contrastive), Kind::Mismatch);
        assert_eq!(kind(&rows(&a), &Rows::from_slice(1, &b).unwrap(), Method::Mean), Kind::Mismatch);
        assert_eq!(kind(&rows(&a), &rows(&a), Method::Mean), Kind::Numeric);
        assert_eq!(kind(&rows(&a), &rows(&a), Method::Pca), Kind::Numeric);
        assert_eq!(kind(&rows(&[1.0, f32::NAN]), &rows(&b), Method::Mean), Kind::Numeric);
        let cancelled = direction(&rows(&a), &rows(&b), Method::Mean, 1, &mut |_| false).unwrap_err();
        assert_eq!(cancelled.kind(), Kind::Cancelled);
    }
}
