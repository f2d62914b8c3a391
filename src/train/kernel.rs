//! Loops over rows of `f32` that the trainer lives in.
//!
//! Each body is written once, in lanes that the compiler turns into vectors, and compiled twice on x86-64: for AVX2 with
//! fused multiply-add, chosen at run time, and for whatever the crate is built for. Four rows at a time, because one row
//! at a time waits for loads and stores of the row that they share.

/// Lanes per accumulator: two AVX2 registers, four NEON ones.
const LANES: usize = 16;

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Compiles a generic body for AVX2 + FMA and for the baseline, and picks at run time.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($arg:ident: $kind:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $kind),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                #[target_feature(enable = "avx2,fma")]
                fn fast($($arg: $kind),*) $(-> $out)? {
                    $body::<true>($($arg),*)
                }
                // SAFETY: both instruction sets were just detected.
                return unsafe { fast($($arg),*) };
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use dispatch;

#[inline(always)]
fn dots_body<const FMA: bool>(x: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
    let n = x.len();
    let rows = rows.map(|row| &row[..n]);
    let mut sums = [[0f32; LANES]; 4];
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        let x = &x[i..i + LANES];
        for (sum, row) in sums.iter_mut().zip(rows) {
            let row = &row[i..i + LANES];
            for j in 0..LANES {
                sum[j] = fma::<FMA>(row[j], x[j], sum[j]);
            }
        }
        i += LANES;
    }
    let mut out = [0f32; 4];
    for ((out, sum), row) in out.iter_mut().zip(&sums).zip(rows) {
        *out = fold(sum) + row[whole..].iter().zip(&x[whole..]).map(|(a, b)| a * b).sum::<f32>();
    }
    out
}

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len();
    let b = &b[..n];
    let mut sums = [[0f32; LANES]; 2];
    let mut pairs = a.chunks_exact(2 * LANES).zip(b.chunks_exact(2 * LANES));
    for (a, b) in &mut pairs {
        for (half, sum) in sums.iter_mut().enumerate() {
            let (a, b) = (&a[half * LANES..][..LANES], &b[half * LANES..][..LANES]);
            for j in 0..LANES {
                sum[j] = fma::<FMA>(a[j], b[j], sum[j]);
            }
        }
    }
    let whole = n - n % (2 * LANES);
    let tail: f32 = a[whole..].iter().zip(&b[whole..]).map(|(a, b)| a * b).sum();
    fold(&sums[0]) + fold(&sums[1]) + tail
}

/// The sum of the lanes, as a tree.
#[inline(always)]
fn fold(sum: &[f32; LANES]) -> f32 {
    let mut sum = *sum;
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            sum[j] += sum[j + half];
        }
        half /= 2;
    }
    sum[0]
}

#[inline(always)]
fn adds_body<const FMA: bool>(y: &mut [f32], weights: [f32; 4], rows: [&[f32]; 4]) {
    let n = y.len();
    let [a, b, c, d] = rows.map(|row| &row[..n]);
    let [p, q, r, s] = weights;
    for i in 0..n {
        let low = fma::<FMA>(p, a[i], fma::<FMA>(q, b[i], y[i]));
        y[i] = fma::<FMA>(s, d[i], fma::<FMA>(r, c[i], low));
    }
}

#[inline(always)]
fn add_body<const FMA: bool>(y: &mut [f32], weight: f32, row: &[f32]) {
    let row = &row[..y.len()];
    for (y, &x) in y.iter_mut().zip(row) {
        *y = fma::<FMA>(weight, x, *y);
    }
}

dispatch!(/// `Σ a_i b_i`.
    dot, dot_body, (a: &[f32], b: &[f32]) -> f32);
dispatch!(/// The dot products of `x` with four rows.
    dots, dots_body, (x: &[f32], rows: [&[f32]; 4]) -> [f32; 4]);
dispatch!(/// `y += weight · row`.
    add, add_body, (y: &mut [f32], weight: f32, row: &[f32]));
dispatch!(/// `y += Σ weights_i · rows_i`, four rows.
    adds, adds_body, (y: &mut [f32], weights: [f32; 4], rows: [&[f32]; 4]));

/// Row `i` of a row-major matrix of width `d`.
#[inline(always)]
pub(super) fn row(matrix: &[f32], d: usize, i: usize) -> &[f32] {
    &matrix[i * d..(i + 1) * d]
}

/// `y += Σ_j weights(j) · matrix[index(j)]` for `j` in `0..n`, in order, four at a time.
#[inline(always)]
pub(super) fn add_rows(y: &mut [f32], n: usize, at: impl Fn(usize) -> (f32, usize), matrix: &[f32]) {
    let d = y.len();
    let mut j = 0;
    while j + 4 <= n {
        let four = [at(j), at(j + 1), at(j + 2), at(j + 3)];
        adds(y, four.map(|(weight, _)| weight), four.map(|(_, i)| row(matrix, d, i)));
        j += 4;
    }
    for j in j..n {
        let (weight, i) = at(j);
        add(y, weight, row(matrix, d, i));
    }
}

/// `out[j] = ⟨x, matrix[features[j]]⟩`, four at a time.
pub(super) fn dot_rows(x: &[f32], features: &[u32], matrix: &[f32], out: &mut [f32]) {
    let d = x.len();
    let mut fours = features.chunks_exact(4).zip(out.chunks_exact_mut(4));
    for (f, out) in &mut fours {
        let rows = [f[0], f[1], f[2], f[3]].map(|f| row(matrix, d, f as usize));
        out.copy_from_slice(&dots(x, rows));
    }
    let whole = features.len() - features.len() % 4;
    for (&f, out) in features[whole..].iter().zip(&mut out[whole..]) {
        *out = dot(x, row(matrix, d, f as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + salt * 101) % 199) as f32 / 99.0 - 1.0).collect()
    }

    /// Sizes around the lane widths; the oracle is a sum in f64. Tolerance: 1e-6 of Σ|a·b|.
    #[test]
    fn kernels_agree_with_plain_sums() {
        for n in [0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 576, 577] {
            let x = ramp(n + 1, 0);
            let x = &x[1..];
            let rows: Vec<Vec<f32>> = (1..5).map(|salt| ramp(n, salt)).collect();
            let four = [&rows[0][..], &rows[1], &rows[2], &rows[3]];
            let exact = |row: &[f32]| -> (f64, f64) {
                let products = row.iter().zip(x).map(|(&a, &b)| f64::from(a) * f64::from(b));
                (products.clone().sum(), products.map(f64::abs).sum())
            };
            for (got, row) in dots(x, four).into_iter().zip(four) {
                let (want, scale) = exact(row);
                assert!((f64::from(got) - want).abs() <= 1e-6 * scale, "dots n {n}: {got} {want}");
                let got = dot(row, x);
                assert!((f64::from(got) - want).abs() <= 1e-6 * scale, "dot n {n}: {got} {want}");
            }
            let weights = [0.5, -1.25, 2.0, 0.125];
            let mut y = x.to_vec();
            adds(&mut y, weights, four);
            let mut z = x.to_vec();
            for (w, row) in weights.into_iter().zip(four) {
                add(&mut z, w, row);
            }
            for i in 0..n {
                let want = x[i] + weights.iter().zip(four).map(|(w, row)| w * row[i]).sum::<f32>();
                assert!((y[i] - want).abs() <= 2e-6 && (z[i] - want).abs() <= 2e-6, "adds n {n} at {i}");
            }
        }
    }

    #[test]
    fn portable_bodies_agree_with_the_dispatched_ones() {
        let (a, b) = (ramp(577, 1), ramp(577, 2));
        assert!((dot(&a, &b) - dot_body::<false>(&a, &b)).abs() <= 1e-4);
        let four = dots_body::<false>(&a, [&b, &a, &b, &a]);
        assert!((four[0] - dot(&a, &b)).abs() <= 1e-4 && four[0] == four[2] && four[1] == four[3]);
    }
}
