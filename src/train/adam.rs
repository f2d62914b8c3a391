//! Adam (arXiv 1412.6980), as PyTorch computes it, one row of parameters at a time.

use super::kernel::dispatch;

/// What one step of Adam needs besides the parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// lr / (1 − β1^t)
    stride: f32,
    /// 1 / sqrt(1 − β2^t)
    root: f32,
}

impl Rates {
    /// The rates of step `t`, counted from 1.
    pub(super) fn new(lr: f32, beta1: f32, beta2: f32, eps: f32, t: u64) -> Self {
        let bias = |beta: f32| 1.0 - f64::from(beta).powf(t as f64);
        let stride = (f64::from(lr) / bias(beta1)) as f32;
        Self { beta1, beta2, eps, stride, root: (1.0 / bias(beta2).sqrt()) as f32 }
    }
}

#[inline(always)]
fn adam_body<const FMA: bool>(rates: &Rates, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let n = p.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    let Rates { beta1, beta2, eps, stride, root } = *rates;
    for i in 0..n {
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1.0 - beta2) * (g[i] * g[i]);
        p[i] -= stride * m[i] / (v[i].sqrt() * root + eps);
    }
}

dispatch!(/// `m ← β1 m + (1−β1) g`, `v ← β2 v + (1−β2) g²`, `p ← p − lr·m̂ / (√v̂ + ε)`.
    adam, adam_body, (rates: &Rates, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps against the textbook in f64.
    #[test]
    fn follows_the_textbook() {
        let (lr, b1, b2, eps) = (0.01f64, 0.9f64, 0.999f64, 1e-8f64);
        let mut p = [1.0f32; 19];
        let (mut m, mut v) = ([0f32; 19], [0f32; 19]);
        let (mut want, mut wm, mut wv) = ([1.0f64; 19], [0f64; 19], [0f64; 19]);
        for t in 1..=3u64 {
            let g: Vec<f32> = (0..19).map(|i| (i as f32 - 9.0) * 0.3 + t as f32).collect();
            let rates = Rates::new(lr as f32, b1 as f32, b2 as f32, eps as f32, t);
            adam(&rates, &mut p, &g, &mut m, &mut v);
            for i in 0..19 {
                let g = f64::from(g[i]);
                wm[i] = b1 * wm[i] + (1.0 - b1) * g;
                wv[i] = b2 * wv[i] + (1.0 - b2) * g * g;
                let (mh, vh) = (wm[i] / (1.0 - b1.powi(t as i32)), wv[i] / (1.0 - b2.powi(t as i32)));
                want[i] -= lr * mh / (vh.sqrt() + eps);
            }
        }
        for i in 0..19 {
            assert!((f64::from(p[i]) - want[i]).abs() < 1e-5, "{i}: {} {}", p[i], want[i]);
        }
    }
}
