//! Matrix products: crate `matrixmultiply`, with the rows of the result shared out among threads.

use super::parallel::each;

/// A matrix view: a row-major slice, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    n_rows: usize,
    n_cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// The row-major matrix `[n_rows, n_cols]` in `data`.
    ///
    /// # Panics
    /// If `data` has another length.
    pub fn new(data: &'a [f32], n_rows: usize, n_cols: usize) -> Self {
        let needed = n_rows.checked_mul(n_cols);
        assert_eq!(Some(data.len()), needed, "{} values are no matrix [{n_rows}, {n_cols}]", data.len());
        Self { data, n_rows, n_cols, row_stride: n_cols, col_stride: 1 }
    }

    /// The transpose: the same values, read the other way.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            n_rows: self.n_cols,
            n_cols: self.n_rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// C = A·B, or C += A·B if `add`; C is row-major `[a.rows, b.columns]`. For rows times feature-major weights say
/// `gemm(Mat::new(x, n, d), Mat::new(w, f, d).t(), false, c, threads)`.
///
/// The rows of C are shared out among at most `threads` scoped threads; the result does not depend on their number.
/// As in BLAS, A·B is what counts when `add` is off: C may hold NaN.
///
/// # Panics
/// If the inner sizes differ, or `c` has another length.
pub fn gemm(a: Mat<'_>, b: Mat<'_>, add: bool, c: &mut [f32], threads: usize) {
    /// Fewer rows than this are not worth a thread: it packs B anew.
    const MIN_ROWS: usize = 32;
    let (m, k, n) = (a.n_rows, a.n_cols, b.n_cols);
    assert_eq!(k, b.n_rows, "[{m}, {k}] times [{}, {n}]: the inner sizes differ", b.n_rows);
    assert_eq!(Some(c.len()), m.checked_mul(n), "{} values cannot hold the product [{m}, {n}]", c.len());
    if m == 0 || n == 0 {
        return;
    }
    let threads = threads.clamp(1, m.div_ceil(MIN_ROWS));
    let rows = m.div_ceil(threads);
    let parts = c.chunks_mut(rows * n).enumerate();
    each(threads, parts, |(i, part)| multiply(a, b, add, part, i * rows, part.len() / n));
}

/// The rows `first..first + rows` of the product, into `c`.
fn multiply(a: Mat<'_>, b: Mat<'_>, add: bool, c: &mut [f32], first: usize, rows: usize) {
    let (k, n) = (a.n_cols, b.n_cols);
    assert!(first + rows <= a.n_rows && c.len() == rows * n);
    let a_rows = a.data.get(first * a.row_stride..).unwrap_or_default();
    // SAFETY: the assertions of `Mat::new` and above say that each matrix lies within its slice for these sizes and
    // strides (which fit isize, since the slices exist), and that the rows of C do not overlap each other; `c` is
    // borrowed mutably, so it overlaps neither A nor B. That the inner sizes agree the callers have asserted.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            k,
            n,
            1.0,
            a_rows.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            if add { 1.0 } else { 0.0 },
            c.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng;
    use super::*;
    use rand::Rng;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    fn transpose(a: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| a[i % rows * cols + i / rows]).collect()
    }

    #[test]
    fn agrees_with_triple_loop_in_every_orientation_and_on_any_number_of_threads() {
        for (m, k, n) in [(1, 1, 1), (1, 8, 3), (7, 9, 8), (8, 8, 8), (9, 7, 17), (70, 33, 5), (129, 64, 31), (3, 0, 2)]
        {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let (a_t, b_t) = (transpose(&a, m, k), transpose(&b, k, n));
            let before = random(m * n, 3);
            for add in [false, true] {
                let exact: Vec<f64> = (0..m * n)
                    .map(|at| {
                        let (i, j) = (at / n, at % n);
                        let sum: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
                        sum + if add { f64::from(before[at]) } else { 0.0 }
                    })
                    .collect();
                let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
                let (a_t, b_t) = (Mat::new(&a_t, k, m).t(), Mat::new(&b_t, n, k).t());
                for (a, b) in [(a, b), (a_t, b), (a, b_t), (a_t, b_t)] {
                    let mut first = None;
                    for threads in [1, 2, 3, 64] {
                        let mut c = before.clone();
                        gemm(a, b, add, &mut c, threads);
                        for (c, exact) in c.iter().zip(&exact) {
                            assert!((f64::from(*c) - exact).abs() < 1e-6 * (k as f64 + 1.0), "[{m}, {k}, {n}]");
                        }
                        assert_eq!(*first.get_or_insert(c.clone()), c, "{threads} threads change the result");
                    }
                }
            }
        }
    }

    #[test]
    fn nan_in_c_is_overwritten() {
        let mut c = [f32::NAN];
        gemm(Mat::new(&[2.0], 1, 1), Mat::new(&[3.0], 1, 1), false, &mut c, 1);
        assert_eq!(c, [6.0]);
    }

    #[test]
    #[should_panic(expected = "inner sizes differ")]
    fn inner_sizes_must_agree() {
        gemm(Mat::new(&[0.0; 2], 1, 2), Mat::new(&[0.0; 3], 3, 1), false, &mut [0.0], 1);
    }
}
