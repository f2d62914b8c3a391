//! The learning rate over the run: a linear warm-up, a plateau, a decay to zero.

/// How the learning rate falls at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    None,
    /// In a straight line to zero.
    #[default]
    Linear,
    /// Along half a cosine to zero.
    Cosine,
}

/// The factor on the learning rate at `step` of `steps`: up over the first `warm_up` steps, down over the last `decay`
/// ones. Step 0 of a warm-up of `w` steps gets `1/w`, the first step after it 1, the last step of a decay of `n` `1/n`
/// of the way above zero.
pub(super) fn factor(step: u64, steps: u64, warm_up: u64, decay: u64, shape: Decay) -> f32 {
    let up = if step < warm_up { (step + 1) as f64 / warm_up as f64 } else { 1.0 };
    let left = steps.saturating_sub(step);
    let down = if left > decay { 1.0 } else { left as f64 / decay.max(1) as f64 };
    let down = match shape {
        Decay::None => 1.0,
        Decay::Linear => down,
        Decay::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * down).cos(),
    };
    (up * down) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_stays_and_falls() {
        let at = |step, shape| factor(step, 100, 10, 20, shape);
        assert_eq!(at(0, Decay::Linear), 0.1);
        assert_eq!(at(9, Decay::Linear), 1.0);
        assert_eq!(at(50, Decay::Cosine), 1.0);
        assert_eq!(at(80, Decay::Linear), 1.0);
        assert_eq!(at(90, Decay::Linear), 0.5);
        assert!((at(90, Decay::Cosine) - 0.5).abs() < 1e-6);
        assert_eq!(at(99, Decay::Linear), 0.05);
        assert_eq!(at(99, Decay::None), 1.0);
        assert_eq!(factor(0, 1, 0, 0, Decay::Linear), 1.0);
    }
}
