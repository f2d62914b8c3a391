//! Rows of sentences with their labels, in two parts.

use super::sentences::{Sentences, Split};

/// Rows and labels of some sentences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// `[n, d_model]`.
    pub rows: Vec<f32>,
    /// `[n, C]`.
    pub labels: Vec<bool>,
}

/// Rows of sentences at one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Width of a row.
    pub d_model: usize,
    /// Number of the attribute of every concept, from 0.
    pub attributes: Vec<usize>,
    /// What is fitted on.
    pub train: Part,
    /// What is measured.
    pub test: Part,
}

impl Part {
    /// Rows less `of` the sentences, with their labels.
    fn of(sentences: &Sentences, of: &[usize], rows: &[f32], d: usize) -> Self {
        let c = sentences.concepts.len();
        let take = |i: &usize| rows[i * d..(i + 1) * d].iter().copied();
        let labels = |i: &usize| sentences.labels[i * c..(i + 1) * c].iter().copied();
        Self { rows: of.iter().flat_map(take).collect(), labels: of.iter().flat_map(labels).collect() }
    }

    /// Whether each row has concept `c` of `n`.
    pub fn column(&self, c: usize, n: usize) -> Vec<bool> {
        self.labels.iter().copied().skip(c).step_by(n).collect()
    }
}

impl Data {
    /// The rows `[n, d_model]` of all sentences, dealt out.
    pub fn new(sentences: &Sentences, split: &Split, rows: &[f32], d_model: usize) -> Self {
        let concepts = &sentences.concepts;
        let first = |c: usize| concepts.iter().position(|other| other.attribute == concepts[c].attribute).unwrap_or(c);
        let firsts: Vec<usize> = (0..concepts.len()).map(first).collect();
        let mut order = firsts.clone();
        order.sort_unstable();
        order.dedup();
        let attributes = firsts.iter().map(|f| order.iter().position(|o| o == f).unwrap_or(0)).collect();
        let part = |of: &[usize]| Part::of(sentences, of, rows, d_model);
        Self { d_model, attributes, train: part(&split.train), test: part(&split.test) }
    }

    /// Number of concepts.
    pub fn n_concepts(&self) -> usize {
        self.attributes.len()
    }

    /// The mean of the training rows, `[d_model]`.
    pub fn middle(&self) -> Vec<f32> {
        let n = (self.train.rows.len() / self.d_model) as f64;
        let mut mean = vec![0f64; self.d_model];
        for row in self.train.rows.chunks_exact(self.d_model) {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / n);
        }
        mean.into_iter().map(|m| m as f32).collect()
    }
}

/// Labels as numbers.
pub fn numbers(labels: &[bool]) -> Vec<f32> {
    labels.iter().map(|&yes| f32::from(u8::from(yes))).collect()
}
