//! How reconstructions compare with their rows.

/// Sums over rows of how their reconstructions compare.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Matched {
    /// Σ|f|
    pub(super) l1: f64,
    pub(super) cosine: f64,
    pub(super) l2_ratio: f64,
    /// Σ x·x̂ and Σ‖x̂‖².
    dot: f64,
    square: f64,
}

impl Matched {
    pub(super) fn add(&mut self, x: &[f32], x_hat: &[f32], codes: &[(u32, f32)]) {
        let (mut xx, mut xy, mut yy) = (0f64, 0f64, 0f64);
        for (&x, &y) in x.iter().zip(x_hat) {
            let (x, y) = (f64::from(x), f64::from(y));
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        self.l1 += codes.iter().map(|(_, f)| f64::from(f.abs())).sum::<f64>();
        self.cosine += if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 };
        self.l2_ratio += if xx > 0.0 { (yy / xx).sqrt() } else { 0.0 };
        (self.dot, self.square) = (self.dot + xy, self.square + yy);
    }

    /// Σ‖x̂‖² / Σ x·x̂; 0 where nothing was reconstructed.
    pub(super) fn bias(&self) -> f64 {
        if self.dot == 0.0 { 0.0 } else { self.square / self.dot }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.l1 += other.l1;
        self.cosine += other.cosine;
        self.l2_ratio += other.l2_ratio;
        self.dot += other.dot;
        self.square += other.square;
    }
}
