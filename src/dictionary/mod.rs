//! Floor 2: sparse dictionaries over the residual stream: encode, decode, files.
//!
//! A dictionary writes a residual row x `[d_model]` as a few of `n_features` directions:
//! f = encode(x), x ≈ f·D + b_dec. Both matrices lie feature-major, one contiguous row per feature, in a mapped file, as
//! F32, F16, BF16 or Q8_0, and are decoded in registers, never copied; other types of ggml's are decoded piece by piece. The
//! mathematics that makes steering cheap: ReLU, JumpReLU and Gated features depend on their own encoder row alone, so editing a set S with the error term kept,
//! x' = x + Σ_{i∈S} (f'ᵢ − fᵢ)·Dᵢ, reads 2·|S| rows, not 2·n_features ([`Dictionary::slice`]).
//!
//! | file | owns |
//! |---|---|
//! | `settings.rs` | what distinguishes dictionaries: activation, normalisation, origin |
//! | `matrix.rs` | rows in a map or in memory |
//! | `parts.rs` | a dictionary made in memory, checked |
//! | `encode.rs`, `slice.rs` | one row, few features |
//! | `few.rs`, `batch.rs` | all features of a few rows, of many |
//! | `sieve.rs`, `outline.rs` | which features may be active, and rounded rows that tell it |
//! | `layers.rs` | features that live at several layers |
//! | `calibrate.rs` | thresholds for TopK |
//! | `gguf.rs`, `convert.rs` | our own files: read, written |
//! | `family/` | other people's files, one file a family |
//! | `export.rs` | directories for SAELens and sparsify |
//! | `cache.rs` | converted copies of what cannot be mapped |
//!
//! Letters: p pre-activation, θ threshold, f feature activation, E encoder, D decoder, s the normalisation of inputs.

mod batch;
mod cache;
mod calibrate;
mod convert;
mod encode;
mod export;
mod family;
mod few;
mod gguf;
mod layers;
mod matrix;
mod outline;
mod parts;
mod select;
mod settings;
mod sieve;
mod slice;
mod variant;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
pub use batch::Codes;
pub use convert::{Fidelity, Loss, Pack};
pub(crate) use encode::{Undo, Unit};
pub use family::Family;
use matrix::{Matrix, Shared};
use outline::Outline;
pub use parts::{Gate, Parts};
use settings::Place;
pub use settings::{Activation, FeatureStats, Form, Info, Learned, Normalization, Settings};
pub use slice::Slice;

/// Whether it is a GGUF: asked for as one, or a file that is not called like another program's.
fn is_ours(path: &Path, family: Option<Family>) -> bool {
    const THEIRS: [&str; 6] = ["safetensors", "npz", "pt", "pth", "json", "yaml"];
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    match family {
        Some(family) => family == Family::Tiller,
        None => !path.is_dir() && !THEIRS.contains(&ending.as_str()),
    }
}

/// A sparse dictionary. Cloning is cheap: weights are shared.
#[derive(Clone, Debug)]
pub struct Dictionary {
    info: Info,
    settings: Settings,
    /// E `[n_features, d_model]`.
    encoder: Matrix,
    /// D `[n_features, d_out]`.
    decoder: Matrix,
    /// Of gated dictionaries: the bias of the magnitude.
    encoder_bias: Shared<f32>,
    decoder_bias: Shared<f32>,
    threshold: Option<Shared<f32>>,
    gate: Option<SharedGate>,
    /// W `[d_out, d_model]`: W·x is part of the reconstruction.
    skip: Option<Matrix>,
    stats: Option<SharedStats>,
    /// ‖Dᵢ‖ of all features, computed when the settings ask for it: it reads the whole decoder.
    norms: Arc<OnceLock<Vec<f32>>>,
    outline: Arc<Outline>,
    stats_rows: Arc<OnceLock<Vec<FeatureStats>>>,
}

#[derive(Clone, Debug)]
struct SharedGate {
    bias: Shared<f32>,
    log_scale: Shared<f32>,
}

#[derive(Clone, Debug)]
struct SharedStats {
    density: Shared<f32>,
    max: Shared<f32>,
    mean: Shared<f32>,
}

impl Dictionary {
    /// Opens a dictionary of any family: one of our GGUF files, which is mapped and costs nothing until rows are read, or
    /// the directory or a file of another program ([`Family`]).
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) if it cannot be opened; [`Kind::Format`](crate::Kind::Format) if tensors or keys
    /// are missing, malformed or do not fit each other, or no family fits; [`Kind::Unsupported`](crate::Kind::Unsupported)
    /// for an activation, architecture or type that this version does not know.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, None)
    }

    /// The same, of a known family: for files that two families would claim.
    ///
    /// # Errors
    /// As [`Dictionary::open`].
    pub fn open_as(path: &Path, family: Option<Family>) -> Result<Self> {
        if is_ours(path, family) { gguf::open(path) } else { family::open(path, family) }
    }

    /// A dictionary from weights in memory.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if sizes do not fit each other, something that the activation needs
    /// is missing, or a bias or threshold is NaN.
    pub fn from_parts(parts: Parts) -> Result<Self> {
        parts::assemble(parts)
    }

    /// Width of the rows that it reads: of the residual stream.
    pub fn d_model(&self) -> usize {
        self.encoder.n_cols()
    }

    /// Width of the rows that it writes: of all but a few transcoders the same.
    pub fn d_out(&self) -> usize {
        self.decoder.n_cols()
    }

    /// Number of features.
    pub fn n_features(&self) -> usize {
        self.encoder.n_rows()
    }

    /// Where the dictionary comes from and belongs to.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// How it encodes.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The activation function.
    pub fn activation(&self) -> Activation {
        self.settings.activation
    }

    /// The layer whose output (`l_out-L`) it was trained on, if known; none if its features live at several
    /// ([`Dictionary::layers`]).
    pub fn layer(&self) -> Option<usize> {
        self.info.layer
    }

    /// The hook point that it reads, if known and one of those that plans know.
    pub fn point(&self) -> Option<HookPoint> {
        self.info.hook.parse().ok().or(self.info.layer.map(HookPoint::from))
    }

    /// The hook point at which its directions may be added: the one that it reads, or of a transcoder the residual stream
    /// that gets what it writes.
    pub fn point_out(&self) -> Option<HookPoint> {
        if self.settings.transcodes { self.info.layer_out.map(HookPoint::from) } else { self.point() }
    }

    /// The layer L at whose output (`l_out-L`) a decoder row may be added, if known: of most dictionaries the one that they
    /// read, of a transcoder or a dictionary of MLP outputs the layer whose output gets what it writes.
    pub fn layer_out(&self) -> Option<usize> {
        let same = || self.info.layer.filter(|_| !self.settings.transcodes);
        self.info.layer_out.or_else(same)
    }

    /// Whether it reads a place of the model that no hook point of a plan shows: then its features can be added at
    /// [`Dictionary::point_out`], but never be read.
    pub fn reads_elsewhere(&self) -> bool {
        self.point().is_none() && matches!(Place::of(&self.info.hook), Place::Added(_) | Place::Elsewhere)
    }

    /// The hook point in the naming of TransformerLens, such as `blocks.19.hook_resid_post`; empty if unknown.
    pub fn hook_point(&self) -> &str {
        &self.info.hook
    }

    /// How the weights are stored: `F32`, `F16`, `BF16`, `Q8_0`, or another type of ggml's, such as `Q4_K`.
    pub fn storage(&self) -> &'static str {
        self.encoder.type_name()
    }

    /// b_enc `[n_features]`; of gated dictionaries the bias of the magnitude.
    pub fn encoder_bias(&self) -> &[f32] {
        &self.encoder_bias
    }

    /// b_dec `[d_out]`, in the units of s(x).
    pub fn decoder_bias(&self) -> &[f32] {
        &self.decoder_bias
    }

    /// θ `[n_features]`, on the pre-activation, if the dictionary has one.
    pub fn thresholds(&self) -> Option<&[f32]> {
        self.threshold.as_deref()
    }

    /// Writes row Dᵢ as stored to `out` `[d_out]`.
    ///
    /// # Panics
    /// If there is no feature `i`, or `out` has another length.
    pub fn decoder_row(&self, i: usize, out: &mut [f32]) {
        self.decoder.decode_row(i, out);
    }

    /// Writes row Eᵢ as stored to `out` `[d_model]`.
    ///
    /// # Panics
    /// If there is no feature `i`, or `out` has another length.
    pub fn encoder_row(&self, i: usize, out: &mut [f32]) {
        self.encoder.decode_row(i, out);
    }

    /// ‖Dᵢ‖ as stored; reads one row.
    ///
    /// # Panics
    /// If there is no feature `i`.
    pub fn decoder_norm(&self, i: usize) -> f32 {
        self.decoder.norm(i)
    }

    /// Statistics of one feature; reads a few bytes.
    pub fn stats(&self, feature: usize) -> Option<FeatureStats> {
        let stats = self.stats.as_ref()?;
        let at = |values: &Shared<f32>| values.get(feature).copied();
        Some(FeatureStats { density: at(&stats.density)?, max: at(&stats.max)?, mean: at(&stats.mean)? })
    }

    /// Statistics of every feature, gathered at the first call.
    pub fn feature_stats(&self) -> Option<&[FeatureStats]> {
        self.stats.as_ref()?;
        let gather = || (0..self.n_features()).filter_map(|i| self.stats(i)).collect();
        Some(self.stats_rows.get_or_init(gather))
    }

    /// The same dictionary with other statistics, one per feature.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if their number is another.
    pub fn with_stats(mut self, stats: &[FeatureStats]) -> Result<Self> {
        self.stats = Some(parts::share_stats(stats, self.n_features())?);
        self.stats_rows = Arc::default();
        Ok(self)
    }

    /// The same dictionary with thresholds θ `[n_features]` on the pre-activation, such as those that let a TopK
    /// dictionary steer by slices.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if their number is another, or one is NaN.
    pub fn with_thresholds(mut self, thresholds: Vec<f32>) -> Result<Self> {
        parts::check_thresholds(&thresholds, self.n_features()).map_err(Error::argument)?;
        self.threshold = Some(thresholds.into());
        Ok(self)
    }

    /// The same dictionary with a skip connection W `[d_out, d_model]`, row-major: W·x is part of what it reconstructs.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if W has another size.
    pub fn with_skip(mut self, skip: Vec<f32>) -> Result<Self> {
        self.skip = Some(parts::matrix(skip, self.d_out(), self.d_model(), "skip connection")?);
        Ok(self)
    }

    /// Whether a linear function of the row is part of what it reconstructs.
    pub fn has_skip(&self) -> bool {
        self.skip.is_some()
    }

    /// The same dictionary with other information on its origin.
    #[must_use]
    pub fn with_info(mut self, info: Info) -> Self {
        self.info = info;
        self
    }

    /// The same dictionary for inputs that are multiplied by `scale` first: the c of
    /// [`Normalization::ExpectedAverage`], which SAELens keeps outside of its directories.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `scale` is no positive number, or the dictionary is normalised in
    /// another way.
    pub fn with_input_scale(mut self, scale: f32) -> Result<Self> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::argument(format!("input scale: expected a positive number, found {scale}")));
        }
        match self.settings.normalization {
            Normalization::None | Normalization::ExpectedAverage { .. } => {
                self.settings.normalization = Normalization::ExpectedAverage { scale };
                Ok(self)
            }
            other => {
                Err(Error::argument(format!("input scale: the dictionary normalises by {} already", other.name())))
            }
        }
    }

    /// Checks that the dictionary belongs to a model of `n_layer` blocks and width `d_model`. A model that merely has
    /// another `fingerprint` than the one that the dictionary was made from (another quantization, say) is worth a
    /// warning, which is returned.
    ///
    /// # Errors
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if the widths differ, or the model has no such layer.
    pub fn check_model(&self, d_model: usize, n_layer: usize, fingerprint: &str) -> Result<Option<String>> {
        if let Some(found) = [self.d_model(), self.d_out()].into_iter().find(|&found| found != d_model) {
            let name = self.info.title();
            return Err(Error::mismatch(format!("{name}: expected the model's width {d_model}, found {found}")));
        }
        let layers = self.info.layers.iter().copied().max();
        if let Some(layer) = self.info.layer.max(self.info.layer_out).max(layers).filter(|&l| l >= n_layer) {
            let name = self.info.title();
            return Err(Error::mismatch(format!(
                "{name}: made for layer {layer}, the model has layers 0 to {}",
                n_layer - 1
            )));
        }
        let of = &self.info.model_fingerprint;
        if of.is_empty() || of == fingerprint {
            return Ok(None);
        }
        let (name, model) = (self.info.title(), &self.info.model_name);
        Ok(Some(format!(
            "{name}: made from another model, \"{model}\" (fingerprint {of}, this model's is {fingerprint})"
        )))
    }

    /// Gives the memory of the mapped file back to the system: around each page that was read it maps neighbours along,
    /// up to 2 MB where the page cache holds large folios.
    fn release(&self) {
        self.encoder.release();
        self.decoder.release();
    }
}
