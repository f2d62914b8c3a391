//! Any dictionary to one of our GGUF files, row by row.
//!
//! The source may be larger than memory: it is read in bands ([`Matrix::each_row`]), each row is packed into the type asked
//! for, and what packing does to it is measured on the way. A 1 GB SAELens dictionary converts with some 100 MB resident.

use std::path::Path;

use half::{bf16, f16};

use super::encode::safe_norm;
use super::gguf::{ARCHITECTURE, VERSION};
use super::matrix::Matrix;
use super::{Dictionary, Normalization};
use crate::error::{Error, Result};
use crate::file::Sink;
use crate::file::gguf::{Array, GgmlType, Writer};
use crate::num::{Q8_0_LEN, Row, dot, norm, quantize_q8_0};

/// How much of a matrix survived: the cosine between a row and what was stored of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    /// Of the worst row.
    pub min: f32,
    /// Over all rows.
    pub mean: f32,
}

/// What a conversion did to the two matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Of the encoder's rows.
    pub encoder: Fidelity,
    /// Of the decoder's rows.
    pub decoder: Fidelity,
}

/// Packs a row: appends its bytes, and replaces the row by what these bytes decode to.
pub type Pack<'a> = &'a mut dyn FnMut(&mut [f32], &mut Vec<u8>) -> Result<()>;

impl Dictionary {
    /// Writes the dictionary as one of our GGUF files, its weights as `kind`: F32, F16, BF16 or Q8_0. A rescaling by
    /// decoder norms is folded into the weights on the way, which changes no activation.
    ///
    /// # Errors
    /// As [`Dictionary::convert`].
    pub fn save_gguf(&self, path: &Path, kind: GgmlType) -> Result<()> {
        self.convert(path, kind).map(drop)
    }

    /// The same, and returns what the type cost. Reads the source once (the decoder twice if it is rescaled), in bands of
    /// 64 MB.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for another type, or Q8_0 if a width is no multiple of 32;
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn convert(&self, path: &Path, kind: GgmlType) -> Result<Loss> {
        self.check_blocks(kind)?;
        if !matches!(kind, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0) {
            let name = kind.label();
            let what = format!("{name} needs ggml's quantizers (feature `engine`): choose F32, F16, BF16 or Q8_0");
            return Err(Error::argument(what));
        }
        self.convert_with(path, kind, &mut |row, bytes| {
            pack(kind, row, bytes);
            Ok(())
        })
    }

    /// [`Dictionary::convert`] to any type of ggml's, packed by `pack`: with feature `engine`, `engine::convert` gives it
    /// ggml's own quantizers, and dictionaries of any type that ggml decodes are read.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if a width is no whole number of the type's blocks;
    /// [`Kind::Io`](crate::Kind::Io); what `pack` returns.
    pub fn convert_with(&self, path: &Path, kind: GgmlType, pack: Pack<'_>) -> Result<Loss> {
        self.check_blocks(kind)?;
        save(self, path, kind, pack)
    }

    /// Whether rows are whole blocks of `kind`.
    fn check_blocks(&self, kind: GgmlType) -> Result<()> {
        let block = kind.block_len();
        let wrong = [self.d_model(), self.d_out()].into_iter().find(|width| !width.is_multiple_of(block));
        let Some(width) = wrong else { return Ok(()) };
        let others = if width.is_multiple_of(32) { "Q8_0, Q5_0, Q4_0 (blocks of 32) or F16" } else { "F16" };
        let name = kind.label();
        let what = format!("{name} needs a width that is a multiple of {block}, found {width}: choose {others}");
        Err(Error::argument(what))
    }
}

fn save(d: &Dictionary, path: &Path, kind: GgmlType, pack: Pack<'_>) -> Result<Loss> {
    let (n, width, d_out) = (d.n_features(), d.d_model(), d.d_out());
    // Sums over rows, worst rows: of encoder, decoder, skip.
    let mut tallies = [Tally::new(), Tally::new(), Tally::new()];
    let [encoder, decoder, skip] = &mut tallies;
    let norms: Option<Vec<f32>> =
        d.settings.rescale_by_decoder_norm.then(|| d.decoder.norms().into_iter().map(safe_norm).collect());
    let folded = |i: usize| norms.as_ref().map_or(1.0, |norms| norms[i]);
    let bias: Vec<f32> = d.encoder_bias.iter().enumerate().map(|(i, b)| b * folded(i)).collect();
    let pack = std::cell::RefCell::new(pack);
    let mut file = Writer::new();
    set_keys(&mut file, d);
    file.tensor_with("enc.weight", &[width, n], kind, |out| put(&d.encoder, folded, &pack, encoder, out));
    file.tensor_with("dec.weight", &[d_out, n], kind, |out| put(&d.decoder, |i| 1.0 / folded(i), &pack, decoder, out));
    if let Some(matrix) = &d.skip {
        file.tensor_with("skip.weight", &[width, d_out], kind, |out| put(matrix, |_| 1.0, &pack, skip, out));
    }
    let mut vector = |name, values: &[f32]| {
        file.tensor(name, &[values.len()], GgmlType::F32, bytemuck::cast_slice::<f32, u8>(values).to_vec());
    };
    vector("enc.bias", &bias);
    vector("dec.bias", &d.decoder_bias);
    if let Some(threshold) = &d.threshold {
        vector("threshold", threshold);
    }
    if let Some(gate) = &d.gate {
        // The gate opens where z + b_gate > 0: its bias grows with z.
        let bias: Vec<f32> = gate.bias.iter().enumerate().map(|(i, b)| b * folded(i)).collect();
        vector("gate.bias", &bias);
        vector("gate.log_scale", &gate.log_scale);
    }
    if let Some(stats) = &d.stats {
        vector("stats.density", &stats.density);
        vector("stats.max", &stats.max);
        vector("stats.mean", &stats.mean);
    }
    file.write(path)?;
    Ok(Loss { encoder: tallies[0].fidelity(), decoder: tallies[1].fidelity() })
}

fn set_keys(file: &mut Writer<'_>, d: &Dictionary) {
    let (settings, info) = (&d.settings, &d.info);
    file.set("general.architecture", ARCHITECTURE);
    file.set("sae.version", VERSION);
    file.set("sae.activation", settings.activation.name());
    if let Some(k) = settings.activation.k() {
        file.set("sae.k", k as u64);
    }
    file.set("sae.apply_b_dec_to_input", settings.apply_b_dec_to_input);
    file.set("sae.normalization", settings.normalization.name());
    if let Normalization::ExpectedAverage { scale } = settings.normalization {
        file.set("sae.input_scale", scale);
    }
    file.set("sae.rescale_by_decoder_norm", false);
    file.set("sae.center_input", settings.center_input);
    if settings.transcodes {
        file.set("sae.transcodes", true);
    }
    let texts = [
        ("general.name", &info.name),
        ("sae.model.name", &info.model_name),
        ("sae.model.fingerprint", &info.model_fingerprint),
        ("sae.hook", &info.hook),
        ("sae.hook_out", &info.hook_out),
        ("sae.recipe", &info.recipe),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        file.set(key, text.as_str());
    }
    for (key, layer) in [("sae.layer", info.layer), ("sae.layer_out", info.layer_out)] {
        if let Some(layer) = layer {
            file.set(key, layer as u64);
        }
    }
    if let Some(l0) = info.l0 {
        file.set("sae.l0", l0);
    }
    if !info.layers.is_empty() {
        // Beyond 32 bits there is no model; the reader then finds no such layer in it.
        let layers: Vec<u32> = info.layers.iter().map(|&layer| u32::try_from(layer).unwrap_or(u32::MAX)).collect();
        file.set("sae.layers", Array::numbers(&layers));
    }
    if let Some(learned) = &info.learned {
        let texts = [
            ("sae.learned.instruction", learned.instruction.as_str()),
            ("sae.learned.explanation", &learned.explanation),
            ("sae.learned.form", learned.form.name()),
            ("sae.learned.doses", &learned.doses),
        ];
        texts.into_iter().for_each(|(key, text)| file.set(key, text));
        file.set("sae.learned.strength", learned.strength);
        learned.avoid.into_iter().for_each(|avoid| file.set("sae.learned.avoid", avoid));
    }
    if let Some(notes) = Array::strings(&info.notes).filter(|_| !info.notes.is_empty()) {
        file.set("sae.notes", notes);
    }
}

/// Puts every row, times its factor, into the file.
fn put(
    matrix: &Matrix,
    factor: impl Fn(usize) -> f32,
    pack: &std::cell::RefCell<Pack<'_>>,
    tally: &mut Tally,
    out: &mut Sink<'_>,
) -> Result<()> {
    let (mut row, mut packed, mut bytes) = (vec![0f32; matrix.n_cols()], Vec::new(), Vec::new());
    matrix.each_row(|i, stored| {
        stored.decode(&mut row);
        let factor = factor(i);
        row.iter_mut().for_each(|v| *v *= factor);
        packed.clone_from(&row);
        bytes.clear();
        (pack.borrow_mut())(&mut packed, &mut bytes)?;
        tally.add(&row, &packed);
        out.put(&bytes)
    })
}

/// Packs a row natively.
fn pack(kind: GgmlType, row: &mut [f32], bytes: &mut Vec<u8>) {
    let halves = |row: &mut [f32], bytes: &mut Vec<u8>, to: fn(f32) -> u16, from: fn(u16) -> f32| {
        for v in row {
            let half = to(*v);
            bytes.extend_from_slice(&half.to_le_bytes());
            *v = from(half);
        }
    };
    match kind {
        GgmlType::F16 => halves(row, bytes, |v| f16::from_f32(v).to_bits(), |v| f16::from_bits(v).to_f32()),
        GgmlType::BF16 => halves(row, bytes, |v| bf16::from_f32(v).to_bits(), |v| bf16::from_bits(v).to_f32()),
        GgmlType::Q8_0 if row.len().is_multiple_of(Q8_0_LEN) => {
            quantize_q8_0(row, bytes);
            Row::Q8_0(bytes).decode(row);
        }
        _ => bytes.extend_from_slice(bytemuck::cast_slice(row)),
    }
}

/// Cosines so far.
struct Tally {
    min: f32,
    sum: f64,
    n: usize,
}

impl Tally {
    fn new() -> Self {
        Self { min: 1.0, sum: 0.0, n: 0 }
    }

    /// A row of zeros that stays one is kept perfectly.
    fn add(&mut self, row: &[f32], stored: &[f32]) {
        let (a, b) = (norm(row), norm(stored));
        let cosine = match a == 0.0 && b == 0.0 {
            true => 1.0,
            false if row == stored => 1.0,
            false => (dot(row, stored) / (a * b)).min(1.0),
        };
        // NaN, of a row with infinities, counts as lost.
        let cosine = if cosine.is_nan() { -1.0 } else { cosine };
        self.min = self.min.min(cosine);
        self.sum += f64::from(cosine);
        self.n += 1;
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity { min: self.min, mean: (self.sum / self.n.max(1) as f64) as f32 }
    }
}
