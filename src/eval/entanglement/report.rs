//! What was measured, for people and for JSON.

use serde::Serialize;

use super::correlation::{Best, Mean, OneToMany};
use super::dci::Dci;
use super::sentences::Concept;

/// Every correlation that was asked for, on one model. In JSON as it stands here; a number that is none is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The model's file.
    pub model: String,
    /// The block whose output was featurized and steered.
    pub layer: usize,
    /// The block whose output probes read while steering.
    pub read_layer: usize,
    /// What stood for a sentence: `last` or `mean`.
    pub pooling: String,
    /// The seed.
    pub seed: u64,
    /// One for each correlation.
    pub runs: Vec<Run>,
    /// Seconds.
    pub seconds: f64,
}

/// All featurizers on one set of sentences.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Run {
    /// ρ that was asked for; none for sentences of a file.
    pub rho: Option<f64>,
    /// φ of science and positive in the sentences that were made.
    pub phi: Option<f64>,
    /// The concepts.
    pub concepts: Vec<Concept>,
    /// Sentences that were fitted on, and measured.
    pub sentences: [usize; 2],
    /// Test accuracy of each concept's probe at the layer that reads; empty if nothing was steered.
    pub readers: Vec<f64>,
    /// What was found of each featurizer.
    pub featurizers: Vec<Found>,
    /// Seconds.
    pub seconds: f64,
}

/// One featurizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Found {
    /// Its name: the kind that was fitted, or the file.
    pub name: String,
    /// Number of features.
    pub n_features: usize,
    /// What of its codes or edits is not exact.
    pub notes: Vec<String>,
    /// How well its features say what concepts are.
    pub reading: Reading,
    /// What steering by them does; none if nothing was steered.
    pub steering: Option<Steering>,
    /// Seconds of fitting, of reading and of steering.
    pub seconds: [f64; 3],
}

/// How well single features, and few of them, say what concepts are: on test rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reading {
    /// Codes a row that are not zero.
    pub l0: f64,
    /// MCC as the paper has it: the best feature of each concept, by the largest correlation on the rows that it is
    /// told of.
    pub mcc: Mean,
    /// Of `mcc.micro`: 90 % of other rows, with the same features.
    pub interval: Option<[f64; 2]>,
    /// The same, of correlations by their size.
    pub by_size: Mean,
    /// The same by size, with each concept's feature chosen on the training rows: no larger dictionary gains by chance.
    pub held_out: Mean,
    /// SSAE alone: MCC of the codes of differences of test rows with the differences of their labels.
    pub pairs: Option<Mean>,
    /// Each concept's best feature behind `mcc`.
    pub best: Vec<Best>,
    /// Features of several concepts, and concepts of several features.
    pub one_to_many: OneToMany,
    /// Numbers of features of the next two.
    pub ks: Vec<usize>,
    /// |Pearson| of logit and label of probes of the k best features, mean over concepts.
    pub sparse: Vec<f64>,
    /// The same of each concept.
    pub sparse_by_concept: Vec<Vec<f64>>,
    /// Disentanglement, completeness and informativeness.
    pub dci: Dci,
}

/// What steering by one feature a concept does to the probes of a later layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Steering {
    /// The feature of each concept.
    pub features: Vec<usize>,
    /// What its code became.
    pub values: Vec<f32>,
    /// How far the edits moved a row, the median over concepts; over the mean norm of a row less their mean.
    pub push: f64,
    /// T: the effect of each concept's edit on each concept's logit, in standard deviations.
    pub effects: Vec<Vec<f64>>,
    /// |T_ii| / (|T_ii| + Σ |T_ij|) of each concept, j in other attributes.
    pub selectivity: Vec<f64>,
    /// max |T_ij| / |T_ii| of each concept.
    pub leak: Vec<f64>,
    /// Means of these.
    pub summary: Summary,
    /// Of the mean selectivity: 90 % of other sentences.
    pub interval: Option<[f64; 2]>,
    /// Share of concepts whose feature another concept chose, too.
    pub collisions: f64,
    /// Mean overlap of the spaces of the five best features of two concepts of different attributes, 0 to 1.
    pub overlap: f64,
    /// How edits of two concepts add up; none if no pair was steered.
    pub additivity: Option<Additivity>,
    /// Random directions as long as the edits.
    pub random: Option<Summary>,
    /// Effects on what the model writes; none if it wrote nothing.
    pub written: Option<Written>,
}

/// Means over concepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Mean of |T_ii|.
    pub own: f64,
    /// Share of edits with T_ii > 0. A feature is chosen by size: of a concept and its opposite, which share a
    /// direction, one is pushed the wrong way.
    pub towards: f64,
    /// Mean selectivity.
    pub selectivity: f64,
    /// Median leak.
    pub leak: f64,
    /// Share of concepts with a leak of at most 0.1.
    pub independent: f64,
}

/// Joint edits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Additivity {
    /// Pairs that were steered.
    pub pairs: usize,
    /// Mean normalised interaction: 0 where edits add up.
    pub interaction: f64,
    /// 90 % of other pairs.
    pub interval: Option<[f64; 2]>,
    /// The pair with the largest.
    pub largest: [usize; 2],
    /// Its interaction.
    pub most: f64,
}

/// What was written while each concept's edit was in force, as the unsteered model reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Written {
    /// T of the texts.
    pub effects: Vec<Vec<f64>>,
    /// Means over concepts.
    pub summary: Summary,
    /// Perplexity of the steered texts under the unsteered model, over that of its own.
    pub perplexity: f64,
    /// Share of the steered texts that loop or are gibberish.
    pub broken: f64,
    /// The same of unsteered ones.
    pub unsteered_broken: f64,
}
