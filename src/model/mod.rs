//! Floor 2: a GGUF language model seen from outside: what it is, its tokens, its unembedding.
//!
//! Nothing here runs the model. Any architecture will do, because llama.cpp's converter names things alike for all of
//! them: keys `<architecture>.block_count`, `.embedding_length`, …; tensors `token_embd.weight`, `output_norm.weight` and,
//! unless the unembedding is tied to the embedding, `output.weight`. Opening reads the header, some milliseconds with a
//! large vocabulary; rows are decoded when asked for.

mod fingerprint;
mod limits;
mod parts;
mod vocabulary;

use std::path::Path;
use std::sync::OnceLock;

pub use fingerprint::Kinship;
pub use vocabulary::{TokenKind, Vocabulary};

use crate::error::{Error, Result};
use crate::file::gguf::{Gguf, Tensor};

/// An open model file.
#[derive(Debug)]
pub struct Model {
    /// The file; of a model in several, all of them in order.
    parts: Vec<Gguf>,
    architecture: String,
    n_layer: usize,
    d_model: usize,
    context_length: usize,
    norm: Norm,
    vocabulary: Vocabulary,
    fingerprint: OnceLock<String>,
}

/// The norm in front of the unembedding.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Norm {
    Rms(f32),
    Layer(f32),
}

impl Model {
    /// Opens the model at `path`. The first part of a model in several files stands for the whole.
    ///
    /// # Errors
    /// As [`Gguf::open`], [`Kind::Format`](crate::Kind::Format) if the file is no language model or a part is not what it
    /// should be, [`Kind::Io`](crate::Kind::Io) if one is missing, [`Kind::Argument`](crate::Kind::Argument) for a part
    /// that is not the first.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_parts(parts::open(path)?)
    }

    /// Reads the model from a GGUF file that is open already.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file is no language model.
    pub fn from_gguf(gguf: Gguf) -> Result<Self> {
        Self::from_parts(vec![gguf])
    }

    fn from_parts(parts: Vec<Gguf>) -> Result<Self> {
        let gguf = &parts[0];
        let architecture = gguf.str("general.architecture")?.to_owned();
        if let Some(what) = no_model(&architecture) {
            let what =
                format_args!("expected a language model, found {what} (general.architecture = \"{architecture}\")");
            return Err(Error::format(gguf.path(), what));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        let blocks = gguf.usize(&key("block_count"))?;
        // Blocks that predict further tokens stand behind the others and are no part of the residual stream.
        let n_layer = blocks.saturating_sub(gguf.opt_usize(&key("nextn_predict_layers"))?.unwrap_or(0));
        let d_model = gguf.usize(&key("embedding_length"))?;
        if n_layer == 0 || d_model == 0 {
            let what =
                format_args!("expected at least one layer and a width, found {n_layer} layers of width {d_model}");
            return Err(Error::format(gguf.path(), what));
        }
        let context_length = gguf.opt_usize(&key("context_length"))?.unwrap_or(0);
        let rms = gguf.opt_f32(&key("attention.layer_norm_rms_epsilon"))?;
        let layer = gguf.opt_f32(&key("attention.layer_norm_epsilon"))?;
        let norm = match (rms, layer) {
            (None, Some(eps)) => Norm::Layer(eps),
            (rms, _) => Norm::Rms(rms.unwrap_or(DEFAULT_EPS)),
        };
        let vocabulary = Vocabulary::read(gguf)?;
        let fingerprint = OnceLock::new();
        let model = Self { parts, architecture, n_layer, d_model, context_length, norm, vocabulary, fingerprint };
        model.check()?;
        Ok(model)
    }

    /// Refuses a model on which llama.cpp would end the process: it asserts on some keys of a file, divides by others and
    /// sizes its memory by the rest. The limits are wide; a model that llama.cpp runs passes. 20 ms with a large vocabulary.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) naming the key or tensor, what was expected and what was found.
    pub fn check_limits(&self) -> Result<()> {
        limits::check(self)
    }

    /// Refuses an unembedding or a final norm whose shape contradicts the keys.
    fn check(&self) -> Result<()> {
        if let Some((_, t)) = self.unembedding() {
            let n = if self.vocabulary.is_empty() { t.n_rows() } else { self.vocabulary.len() };
            if t.shape != [self.d_model, n] {
                let (name, found) = (&t.name, &t.shape);
                let what = format_args!("tensor \"{name}\": expected shape [{}, {n}], found {found:?}", self.d_model);
                return Err(Error::format(self.path(), what));
            }
        }
        match self.tensor(OUTPUT_NORM) {
            Some((_, t)) if t.shape != [self.d_model] => {
                let found = &t.shape;
                let what = format_args!("tensor \"{OUTPUT_NORM}\": expected shape [{}], found {found:?}", self.d_model);
                Err(Error::format(self.path(), what))
            }
            _ => Ok(()),
        }
    }

    /// The file with its keys and tensors; of a model in several, the first, which has all the keys.
    pub fn gguf(&self) -> &Gguf {
        &self.parts[0]
    }

    /// The files of the model, in order: one, or its parts.
    pub fn parts(&self) -> &[Gguf] {
        &self.parts
    }

    fn tensor(&self, name: &str) -> Option<(&Gguf, &Tensor)> {
        parts::tensor(&self.parts, name)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.gguf().path()
    }

    /// The architecture: `llama`, `gemma3`, `qwen2`, …
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The model's name, or the file's where it has none.
    pub fn name(&self) -> &str {
        let named = self.gguf().get("general.name").and_then(|v| v.as_str()).filter(|name| !name.is_empty());
        named.or_else(|| self.path().file_stem()?.to_str()).unwrap_or("unnamed")
    }

    /// Number of layers; the residual stream after layer L is the host's `l_out-L`, L from 0 to `n_layer − 1`.
    pub fn n_layer(&self) -> usize {
        self.n_layer
    }

    /// Width of the residual stream.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// Number of tokens in the vocabulary; where the file holds no texts, rows of the unembedding.
    pub fn n_vocab(&self) -> usize {
        match self.vocabulary.len() {
            0 => self.unembedding().map_or(0, |(_, t)| t.n_rows()),
            n => n,
        }
    }

    /// Tokens that the model was trained to look back on; 0 where the file doesn't say.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Positions that the model has learned, one vector each (GPT-2, BERT), and cannot read beyond; none where positions
    /// are computed.
    pub fn learned_positions(&self) -> Option<usize> {
        self.tensor("position_embd.weight").map(|(_, t)| t.n_rows())
    }

    /// Whether the file says that attention looks both ways: such a model writes no text.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the key is no bool.
    pub fn is_encoder(&self) -> Result<bool> {
        Ok(self.gguf().opt_bool(&format!("{}.attention.causal", self.architecture))? == Some(false))
    }

    /// Whether the model was trained to make one vector of a text (an embedding model), not to go on with it.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the key is no integer.
    pub fn is_pooled(&self) -> Result<bool> {
        Ok(self.gguf().opt_u32(&format!("{}.pooling_type", self.architecture))?.is_some_and(|kind| kind != 0))
    }

    /// The name of the quantization, such as `Q4_K_M`; where the file doesn't say, the type that most of its bytes have.
    pub fn quantization(&self) -> &str {
        let stored = self.gguf().opt_u32("general.file_type").ok().flatten();
        if let Some(name) = stored.and_then(|n| FILE_TYPES.iter().find(|(id, _)| *id == n)) {
            return name.1;
        }
        let mut bytes: Vec<(usize, &str)> = Vec::new();
        for (_, t) in parts::tensors(&self.parts) {
            match bytes.iter_mut().find(|(_, name)| *name == t.kind.name()) {
                Some((n, _)) => *n = n.saturating_add(t.n_bytes),
                None => bytes.push((t.n_bytes, t.kind.name())),
            }
        }
        bytes.into_iter().max().map_or("unknown", |(_, name)| name)
    }

    /// The tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The text of a token as the file holds it (`Ġthe`, `▁the`); none if there is no such token.
    pub fn token_text(&self, id: i32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// The bytes that a token adds to a text (` the`); none if there is no such token.
    pub fn token_bytes(&self, id: i32) -> Option<Vec<u8>> {
        self.vocabulary.bytes(id)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<i32> {
        self.vocabulary.bos()
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<i32> {
        self.vocabulary.eos()
    }

    /// Whether tokenizing puts [`Model::bos`] in front.
    pub fn add_bos(&self) -> bool {
        self.vocabulary.add_bos()
    }

    /// Whether the unembedding is the embedding: there is no `output.weight`.
    pub fn tied_unembedding(&self) -> bool {
        self.tensor(OUTPUT).is_none()
    }

    fn unembedding(&self) -> Option<(&Gguf, &Tensor)> {
        self.tensor(OUTPUT).or_else(|| self.tensor(EMBEDDING))
    }

    /// The weight of the norm in front of the unembedding, `[d_model]`, as the graph multiplies by it. (Gemma's checkpoints
    /// store the weight less one; llama.cpp's converter has added the one already.)
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file has no such tensor.
    pub fn output_norm(&self) -> Result<Vec<f32>> {
        let Some((file, t)) = self.tensor(OUTPUT_NORM) else {
            return Err(Error::format(self.path(), format_args!("expected a tensor \"{OUTPUT_NORM}\", found none")));
        };
        let mut weight = vec![0.0; self.d_model];
        t.kind.dequantize(file.data(t), &mut weight).map_err(|e| self.in_tensor(e, t))?;
        Ok(weight)
    }

    /// What the final norm adds to the mean square before the root.
    pub fn rms_eps(&self) -> f32 {
        match self.norm {
            Norm::Rms(eps) | Norm::Layer(eps) => eps,
        }
    }

    /// Whether the final norm also takes the mean away (LayerNorm: GPT-2, Phi-2, …); modern models have RMSNorm.
    pub fn layer_norm(&self) -> bool {
        matches!(self.norm, Norm::Layer(_))
    }

    /// Writes the unembedding of token `id` to `row`, `[d_model]`: the direction of the (normed) residual stream that raises
    /// its logit. Decodes any type that ggml knows; without feature `engine`, F32, F16, BF16 and Q8_0.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for another length or an unknown token,
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a type that this build cannot decode,
    /// [`Kind::Format`](crate::Kind::Format) if the file has no unembedding.
    pub fn unembedding_row(&self, id: i32, row: &mut [f32]) -> Result<()> {
        let Some((file, t)) = self.unembedding() else {
            let what = format_args!("expected a tensor \"{OUTPUT}\" or \"{EMBEDDING}\", found neither");
            return Err(Error::format(self.path(), what));
        };
        if row.len() != self.d_model {
            return Err(Error::argument(format!("row: expected {} elements, found {}", self.d_model, row.len())));
        }
        let Some(bytes) = usize::try_from(id).ok().and_then(|i| file.row(t, i)) else {
            let last = t.n_rows().saturating_sub(1);
            return Err(Error::argument(format!("token: expected a number from 0 to {last}, found {id}")));
        };
        t.kind.dequantize(bytes, row).map_err(|e| self.in_tensor(e, t))
    }

    fn in_tensor(&self, error: Error, t: &Tensor) -> Error {
        error.context(format_args!("{}: tensor \"{}\"", self.path().display(), t.name))
    }

    /// Which model this is: 64 hexadecimal digits, to be compared by [`Kinship::of`]. The first 16 tell the build
    /// (architecture, sizes, tokens), the next 16 the checkpoint (the values of norms and biases, which quantizers leave
    /// alone), the rest the file (a sample of every tensor). Computed once, in some milliseconds.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint
            .get_or_init(|| fingerprint::fingerprint(&self.parts, &self.architecture, self.n_layer, self.d_model))
    }
}

const OUTPUT: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT_NORM: &str = "output_norm.weight";
/// What a file without the key means: most models' value.
const DEFAULT_EPS: f32 = 1e-5;

/// What a file of this architecture is, if it is no language model.
fn no_model(architecture: &str) -> Option<&'static str> {
    match architecture {
        "sae" => Some("a dictionary"),
        "controlvector" => Some("a control vector"),
        "clip" => Some("an image encoder"),
        "adapter" => Some("an adapter"),
        "imatrix" => Some("an importance matrix"),
        _ => None,
    }
}

/// llama.cpp's numbers for `general.file_type`.
const FILE_TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];
