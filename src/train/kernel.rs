//! Loops over rows that the trainer lives in.
//!
//! Each body is written once, in lanes that the compiler turns into vectors, and compiled twice on x86-64: for AVX2 with
//! fused multiply-add, chosen at run time, and for whatever the crate is built for. Integer rows are taken four at a time:
//! one at a time would wait for loads and stores of the row that they share.

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
fn dots_body<const FMA: bool>(x: &[i16], rows: [&[i16]; 4]) -> [i32; 4] {
    let rows = rows.map(|row| &row[..x.len()]);
    let mut sums = [0i32; 4];
    for (sum, row) in sums.iter_mut().zip(rows) {
        // The shape that compilers turn into vpmaddwd: one chain, terms in order; wrapping, so that order is free.
        let terms = row.iter().zip(x).map(|(&a, &b)| i32::from(a) * i32::from(b));
        *sum = terms.fold(0, i32::wrapping_add);
    }
    sums
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
fn adds_body<const FMA: bool>(y: &mut [f32], weights: [f32; 4], rows: [&[i16]; 4]) {
    let n = y.len();
    let [a, b, c, d] = rows.map(|row| &row[..n]);
    let [p, q, r, s] = weights;
    for i in 0..n {
        let low = fma::<FMA>(p, f32::from(a[i]), fma::<FMA>(q, f32::from(b[i]), y[i]));
        y[i] = fma::<FMA>(s, f32::from(d[i]), fma::<FMA>(r, f32::from(c[i]), low));
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
dispatch!(/// `y += weight · row`.
    add, add_body, (y: &mut [f32], weight: f32, row: &[f32]));
dispatch!(/// The dot products of `x` with four rows; they must fit 32 bits.
    dots, dots_body, (x: &[i16], rows: [&[i16]; 4]) -> [i32; 4]);
dispatch!(/// `y += Σ weights_i · rows_i`, four rows.
    adds, adds_body, (y: &mut [f32], weights: [f32; 4], rows: [&[i16]; 4]));

/// Asks for a row before it is needed: rows are visited in random order, which no hardware foresees.
#[inline(always)]
pub(super) fn prefetch(row: &[i16]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(32) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is harmless, and this one is inside the row.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
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
            let row = ramp(n, 1);
            let products = row.iter().zip(x).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let (want, scale) = (products.clone().sum::<f64>(), products.map(f64::abs).sum::<f64>());
            let got = dot(&row, x);
            assert!((f64::from(got) - want).abs() <= 1e-6 * scale, "dot n {n}: {got} {want}");
            assert!((f64::from(dot_body::<false>(&row, x)) - want).abs() <= 1e-6 * scale, "portable dot n {n}");
            let mut y = x.to_vec();
            add(&mut y, -1.25, &row);
            for i in 0..n {
                assert!((y[i] - (x[i] - 1.25 * row[i])).abs() <= 1e-6, "add n {n} at {i}");
            }
        }
    }

    #[test]
    fn integer_kernels_agree_with_plain_sums() {
        for n in [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 576, 578] {
            let rows: Vec<Vec<i16>> =
                (0..5).map(|salt| ramp(n + 1, salt).iter().map(|x| (x * 1900.0) as i16).collect()).collect();
            let x = &rows[4][1..];
            let four = [&rows[0][..n], &rows[1][1..], &rows[2][..n], &rows[3][..n]];
            let exact = four.map(|row| row.iter().zip(x).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>());
            assert_eq!(dots(x, four), exact, "n {n}");
            assert_eq!(dots_body::<false>(x, four), exact, "n {n}");
            let weights = [0.5, -1.25, 2.0, 0.125];
            let mut y = vec![1f32; n];
            adds(&mut y, weights, four);
            for i in 0..n {
                let want = 1.0 + weights.iter().zip(four).map(|(w, row)| w * f32::from(row[i])).sum::<f32>();
                assert!((y[i] - want).abs() <= 2e-3, "adds n {n} at {i}: {} {want}", y[i]);
            }
        }
    }
}
