//! How alike are two sets of matched vectors, whatever the axes of their spaces?
//!
//! X `[n, d_x]` and Y `[n, d_y]` hold one vector of a pair each in row i. Three measures, in `f64`:
//!
//! - `svcca_99` (arXiv 1706.05806): columns centred and reduced to the principal axes that hold 99 % of the variance; the
//!   mean canonical correlation between the two. Costs an eigendecomposition of size min(n, d) a side.
//! - `svcca_top1`: the same with the first axis of each, so the size of Pearson's correlation between the scores on them.
//!   The published figures of arXiv 2410.06981 are this, by an accident of its code. Costs a product of size min(n, d).
//! - `rsa`: Pearson between all rows inside X and inside Y; Spearman, with average ranks, between the two upper triangles.
//!   Costs n² numbers a side.
//!
//! With n − 1 < k_x + k_y, the axes kept, some canonical correlations of `svcca_99` are 1 whatever the vectors are: read it
//! beside its null ([`null`](super::null)).

use nalgebra::DMatrix;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::file::zeros;
use crate::num::spectrum::{first_scores, principal};

/// Share of the variance that `svcca_99` keeps.
const SHARE: f64 = 0.99;
/// Fewer pairs have no measure.
pub const LEAST: usize = 3;

/// How alikeness is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// SVCCA at 99 % of the variance.
    #[serde(rename = "svcca_99")]
    Svcca99,
    /// SVCCA with one axis.
    SvccaTop1,
    /// Representational similarity.
    Rsa,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 3] = [Self::Svcca99, Self::SvccaTop1, Self::Rsa];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svcca99 => "svcca_99",
            Self::SvccaTop1 => "svcca_top1",
            Self::Rsa => "rsa",
        }
    }

    /// Makes `rows` `[n, d]` of one side ready to be compared with the other one under any pairing.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for fewer than [`LEAST`] rows, or values that are no n rows;
    /// [`Kind::Numeric`](crate::Kind::Numeric) for values that are not finite and rows without variance;
    /// [`Kind::Io`](crate::Kind::Io) if there is no memory for n² numbers.
    pub fn prepare(self, rows: &[f32], n: usize) -> Result<Prepared> {
        if n < LEAST {
            return Err(Error::argument(format!("similarity: expected {LEAST} pairs or more, found {n}")));
        }
        let form = match self {
            Self::Svcca99 => Form::Axes(principal(rows, n, SHARE)?),
            Self::SvccaTop1 => Form::Scores(first_scores(rows, n)?),
            Self::Rsa => Form::Ranks(ranks(rows, n)?),
        };
        Ok(Prepared { n, form })
    }
}

/// `svcca_99` of `x` `[n, d_x]` and `y` `[n, d_y]`, 0 to 1.
///
/// # Errors
/// As [`Measure::prepare`].
pub fn svcca_99(x: &[f32], y: &[f32], n: usize) -> Result<f64> {
    measure(Measure::Svcca99, x, y, n)
}

/// `svcca_top1` of `x` `[n, d_x]` and `y` `[n, d_y]`, 0 to 1.
///
/// # Errors
/// As [`Measure::prepare`].
pub fn svcca_top1(x: &[f32], y: &[f32], n: usize) -> Result<f64> {
    measure(Measure::SvccaTop1, x, y, n)
}

/// `rsa` of `x` `[n, d_x]` and `y` `[n, d_y]`, −1 to 1.
///
/// # Errors
/// As [`Measure::prepare`].
pub fn rsa(x: &[f32], y: &[f32], n: usize) -> Result<f64> {
    measure(Measure::Rsa, x, y, n)
}

/// `measure` of `x` `[n, d_x]` and `y` `[n, d_y]`.
///
/// # Errors
/// As [`Measure::prepare`].
pub fn measure(measure: Measure, x: &[f32], y: &[f32], n: usize) -> Result<f64> {
    let order: Vec<usize> = (0..n).collect();
    Ok(measure.prepare(x, n)?.compare(&measure.prepare(y, n)?, &order))
}

/// One side of a comparison; see [`Measure::prepare`].
pub struct Prepared {
    n: usize,
    form: Form,
}

enum Form {
    /// Orthonormal columns `[n, k]`.
    Axes(DMatrix<f64>),
    /// `[n]`, centred and of length 1.
    Scores(Vec<f64>),
    /// `[n, n]`, symmetric: ranks of the upper triangle, centred and of length 1.
    Ranks(Vec<f64>),
}

impl Prepared {
    /// The measure where row i of this side is paired with row `order[i]` of `other`, a permutation. NaN if the two
    /// were not made by one measure, or are not of one length.
    pub fn compare(&self, other: &Self, order: &[usize]) -> f64 {
        let n = self.n;
        if other.n != n || order.len() != n || order.iter().any(|&i| i >= n) {
            return f64::NAN;
        }
        match (&self.form, &other.form) {
            (Form::Axes(x), Form::Axes(y)) => canonical(x, &y.select_rows(order)),
            (Form::Scores(x), Form::Scores(y)) => x.iter().zip(order).map(|(x, &i)| x * y[i]).sum::<f64>().abs(),
            (Form::Ranks(x), Form::Ranks(y)) => (0..n)
                .map(|i| {
                    let (x, y) = (&x[i * n..(i + 1) * n], &y[order[i] * n..(order[i] + 1) * n]);
                    x[i + 1..].iter().zip(&order[i + 1..]).map(|(x, &j)| x * y[j]).sum::<f64>()
                })
                .sum(),
            _ => f64::NAN,
        }
    }
}

/// The mean canonical correlation between orthonormal columns: the mean singular value of XᵀY.
fn canonical(x: &DMatrix<f64>, y: &DMatrix<f64>) -> f64 {
    let both = x.transpose() * y;
    let small = if both.nrows() <= both.ncols() { &both * both.transpose() } else { both.transpose() * &both };
    let k = small.nrows() as f64;
    small.symmetric_eigenvalues().iter().map(|v| v.clamp(0.0, 1.0).sqrt()).sum::<f64>() / k
}

/// The ranks of the correlations between all rows; see [`Form::Ranks`].
fn ranks(rows: &[f32], n: usize) -> Result<Vec<f64>> {
    if rows.is_empty() || !rows.len().is_multiple_of(n) {
        return Err(Error::argument(format!("similarity: {} values are no {n} rows", rows.len())));
    }
    let d = rows.len() / n;
    crate::num::check_finite(rows, d, 0)?;
    let mut unit = DMatrix::from_row_iterator(n, d, rows.iter().map(|&v| f64::from(v)));
    for (i, mut row) in unit.row_iter_mut().enumerate() {
        let (mean, before) = (row.mean(), row.norm());
        row.add_scalar_mut(-mean);
        let norm = row.norm();
        if norm <= 1e-12 * before {
            return Err(Error::numeric(format!("similarity: row {i} has one value in all its columns")));
        }
        row /= norm;
    }
    let correlations = &unit * unit.transpose();
    let mut triangle = zeros::<f64>(n * (n - 1) / 2, "similarities")?;
    let places = || (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    triangle.iter_mut().zip(places()).for_each(|(v, place)| *v = correlations[place]);
    standard_ranks(&mut triangle)?;
    let mut square = zeros::<f64>(n * n, "similarities")?;
    for (&rank, (i, j)) in triangle.iter().zip(places()) {
        square[i * n + j] = rank;
        square[j * n + i] = rank;
    }
    Ok(square)
}

/// Puts ranks in the place of values, equal ones sharing the average, and has them centred and of length 1.
fn standard_ranks(values: &mut [f64]) -> Result<()> {
    let n = values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
    let middle = (n as f64 + 1.0) / 2.0;
    let (mut first, mut squares) = (0, 0.0);
    let mut ranks = Vec::with_capacity(n);
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (group.len() as f64 + 1.0) / 2.0 - middle;
        ranks.extend(group.iter().map(|_| rank));
        squares += rank * rank * group.len() as f64;
        first += group.len();
    }
    if squares == 0.0 {
        return Err(Error::numeric("similarity: all correlations between rows are equal"));
    }
    let scale = 1.0 / squares.sqrt();
    order.iter().zip(ranks).for_each(|(&i, rank)| values[i] = rank * scale);
    Ok(())
}
