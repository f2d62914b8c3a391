//! Which features tell consistent answers from inconsistent ones (arXiv 2501.11036).
//!
//! ```text
//! μ⁺ = Σ_t n⁺_t f(x_t) / Σ_t n⁺_t        x_t: the last row of text t, before the answer begins
//! μ⁻ = Σ_t n⁻_t f(x_t) / Σ_t n⁻_t        n⁺, n⁻: how many paraphrases of t are answered alike, and otherwise
//! S  = the n features with the largest |μ⁺ − μ⁻|
//! x' = x + α Σ_{i∈S, f_i>0} (μ⁺_i − μ⁻_i) d_i
//! ```
//!
//! The sums are those over pairs of paraphrases: each pair has two texts. Without a dictionary x' = x + α (m⁺ − m⁻) with
//! the mean rows m.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::{Feature, Op, Rule, Strength};

/// A feature that is stronger before consistent answers, or weaker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turned {
    /// Its number in the dictionary.
    pub feature: u32,
    /// μ⁺
    pub consistent: f32,
    /// μ⁻
    pub inconsistent: f32,
}

impl Turned {
    /// μ⁺ − μ⁻
    pub fn change(&self) -> f32 {
        self.consistent - self.inconsistent
    }
}

/// The weighted means of rows of numbers.
#[derive(Clone, Debug)]
pub struct Contrast {
    sums: [Vec<f64>; 2],
    weights: [f64; 2],
}

impl Contrast {
    /// Of `width` features, or of rows of that width.
    pub fn new(width: usize) -> Self {
        Self { sums: [vec![0.0; width], vec![0.0; width]], weights: [0.0; 2] }
    }

    /// Adds a row's codes with how many of its paraphrases are answered alike, and otherwise.
    pub fn add(&mut self, codes: impl Iterator<Item = (u32, f32)> + Clone, partners: [usize; 2]) {
        for ((sums, weight), n) in self.sums.iter_mut().zip(&mut self.weights).zip(partners) {
            *weight += n as f64;
            codes.clone().for_each(|(i, f)| sums[i as usize] += n as f64 * f64::from(f));
        }
    }

    /// Pairs that agree, and pairs that do not.
    pub fn pairs(&self) -> [usize; 2] {
        self.weights.map(|weight| weight as usize / 2)
    }

    /// μ⁺ and μ⁻ of every feature.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) where all pairs agree, or none does: there is nothing to tell apart.
    pub fn means(&self) -> Result<Vec<Turned>> {
        let [same, other] = self.pairs();
        if same == 0 || other == 0 {
            return Err(Error::argument(format!(
                "consistency: expected pairs of paraphrases that are answered alike and others that are not, found \
                 {same} and {other}"
            ))
            .hinted("give more groups, or ones that are not as easy, or as hard, for this model"));
        }
        let mean = |side: usize, i: usize| (self.sums[side][i] / self.weights[side]) as f32;
        let turned = |i| Turned { feature: i as u32, consistent: mean(0, i), inconsistent: mean(1, i) };
        Ok((0..self.sums[0].len()).map(turned).collect())
    }

    /// S: the `n` features whose means differ most, the most different first.
    ///
    /// # Errors
    /// As [`means`](Self::means).
    pub fn features(&self, n: usize) -> Result<Vec<Turned>> {
        let mut all = self.means()?;
        all.retain(|turned| turned.change() != 0.0);
        all.sort_by(|a, b| b.change().abs().total_cmp(&a.change().abs()).then(a.feature.cmp(&b.feature)));
        all.truncate(n);
        Ok(all)
    }
}

/// The rule of arXiv 2501.11036 at strength 1.
pub fn rule(features: &[Turned]) -> Rule {
    let features = features.iter().map(|turned| Feature::new(turned.feature, turned.change()));
    Rule::new(Op::AddActive, features, Strength::raw(1.0))
}

/// The difference of mean rows at `layer`, added at strength 1.
pub fn row_rule(means: &[Turned], layer: usize) -> Rule {
    let change: Vec<f32> = means.iter().map(Turned::change).collect();
    Rule::vector(change, Strength::raw(1.0)).at_layer(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn means_are_those_over_pairs() {
        // A group whose three texts say a, a, b: one pair agrees, two do not.
        let rows = [[1.0f32, 0.0, 2.0], [3.0, 0.0, 2.0], [0.0, 5.0, 2.0]];
        let partners = [[1, 1], [1, 1], [0, 2]];
        let mut contrast = Contrast::new(3);
        for (row, partners) in rows.iter().zip(partners) {
            contrast.add((0..).zip(row.iter().copied()).filter(|(_, f)| *f != 0.0), partners);
        }
        assert_eq!(contrast.pairs(), [1, 2]);
        // Over the pairs (0,1) | (0,2), (1,2).
        let wanted = [(2.0, 1.0), (0.0, 2.5), (2.0, 2.0)];
        for (turned, (more, less)) in contrast.means().unwrap().iter().zip(wanted) {
            assert_eq!((turned.consistent, turned.inconsistent), (more, less));
        }
        let features = contrast.features(9).unwrap();
        assert_eq!(
            features.iter().map(|f| f.feature).collect::<Vec<_>>(),
            [1, 0],
            "a feature that is the same is none"
        );
        let rule = rule(&features);
        assert_eq!((rule.op, rule.features[0], rule.features[1]), (Op::AddActive, Feature::new(1, -2.5), 0.into()));
    }

    #[test]
    fn all_alike_has_no_contrast() {
        let mut contrast = Contrast::new(1);
        contrast.add(std::iter::once((0, 1.0)), [3, 0]);
        assert_eq!(contrast.features(1).unwrap_err().kind(), Kind::Argument);
    }
}
