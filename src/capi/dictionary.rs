use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

use super::arguments::{Options, Report, choice, opt_text, options, path, report, slice, some, text};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::c_string;
use crate::dictionary::{Activation, Dictionary, Family, FeatureStats, Gate, Info, Loss, Parts, Settings};
use crate::error::{Error, Result};
use crate::file::gguf::GgmlType;

/// A dictionary of features over one point of the residual stream, mapped read-only: opening one of a gigabyte costs
/// milliseconds, and only the rows that are used are read.
///
/// Its life: tiller_dictionary_open(); tiller_dictionary_check_model(); use it in tiller_plan_compile(), or encode with
/// it; tiller_dictionary_free().
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_dictionary {
    pub(super) dictionary: Arc<Dictionary>,
    texts: [CString; 7],
}

impl From<Dictionary> for tiller_dictionary {
    fn from(dictionary: Dictionary) -> Self {
        let info = dictionary.info();
        let texts = [&info.name, &info.model_name, &info.model_fingerprint, &info.hook, &info.recipe, &info.hook_out];
        let [name, model, fingerprint, hook, recipe, hook_out] = texts.map(|text| c_string(text));
        let notes = c_string(&info.notes.join("\n"));
        Self { texts: [name, model, fingerprint, hook, recipe, notes, hook_out], dictionary: Arc::new(dictionary) }
    }
}

/// What a dictionary is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_dictionary_info {
    /// Set it to sizeof(tiller_dictionary_info) before the call.
    pub size: u32,
    /// 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated, 5 GroupMax.
    pub activation: u32,
    /// Width of the residual stream.
    pub d_model: u64,
    /// Number of features.
    pub n_features: u64,
    /// Features a row, of TopK, BatchTopK and GroupMax; else 0.
    pub k: u64,
    /// The block whose output it reads; -1 if unknown, or if each feature has its own: tiller_dictionary_feature_layer().
    pub layer: i32,
    /// 1 if it has statistics of its features.
    pub has_stats: u32,
    /// How its weights are stored: "F32", "F16", "BF16" or "Q8_0". Static.
    pub storage: *const c_char,
    /// A name for people. Valid, like those below, until the dictionary is freed; "" if unknown.
    pub name: *const c_char,
    /// The model it was trained on.
    pub model_name: *const c_char,
    /// That model's fingerprint.
    pub model_fingerprint: *const c_char,
    /// The hook point in the naming of TransformerLens, such as "blocks.19.hook_resid_post".
    pub hook_point: *const c_char,
    /// How it was trained.
    pub recipe: *const c_char,
    /// What a reader should know about an import, a line each.
    pub notes: *const c_char,
    /// Width of the rows that it writes: d_model of all but a few transcoders.
    pub d_out: u64,
    /// The block at whose output its directions may be added; -1 if unknown.
    pub layer_out: i32,
    /// 1 if it writes at another place than it reads.
    pub transcodes: u32,
    /// The hook point that a transcoder writes; else "".
    pub hook_point_out: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_dictionary_info {
    const NAME: &'static str = "tiller_dictionary_info";
}

/// What a feature did on the data that the dictionary was trained or measured on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_stats {
    /// Share of rows in which it was active.
    pub density: f32,
    /// Largest activation.
    pub max: f32,
    /// Mean of its positive activations.
    pub mean: f32,
}

/// A dictionary in memory. Matrices are row-major, one row of `d_model` floats a feature. Everything is copied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_dictionary_parts {
    /// sizeof(tiller_dictionary_parts).
    pub size: u32,
    /// 0 ReLU, 1 TopK, 2 BatchTopK, 3 JumpReLU, 4 gated, 5 GroupMax.
    pub activation: u32,
    /// Width of the residual stream.
    pub d_model: u64,
    /// Number of features.
    pub n_features: u64,
    /// Features a row, of TopK, BatchTopK and GroupMax.
    pub k: u64,
    /// n_features * d_model floats.
    pub encoder: *const f32,
    /// n_features * d_model floats.
    pub decoder: *const f32,
    /// n_features floats; of gated dictionaries the bias of the magnitude. NULL means zeros.
    pub encoder_bias: *const f32,
    /// d_model floats. NULL means zeros.
    pub decoder_bias: *const f32,
    /// n_features floats, or NULL: JumpReLU needs thresholds, TopK may bring them for slices.
    pub threshold: *const f32,
    /// n_features floats, of gated dictionaries.
    pub gate_bias: *const f32,
    /// n_features floats, of gated dictionaries: magnitudes are scaled by exp() of them.
    pub gate_log_scale: *const f32,
    /// n_features structs, or NULL.
    pub stats: *const tiller_stats,
    /// 1 leaves the decoder bias in the input instead of subtracting it.
    pub keep_decoder_bias: u32,
    /// 1 if `layer` is given.
    pub has_layer: u32,
    /// The block whose output it reads.
    pub layer: u32,
    /// Always 0.
    pub reserved: u32,
    /// A name for people, or NULL; so are the others.
    pub name: *const c_char,
    /// The model that it belongs to.
    pub model_name: *const c_char,
    /// That model's fingerprint.
    pub model_fingerprint: *const c_char,
    /// The hook point.
    pub hook_point: *const c_char,
    /// How it was trained.
    pub recipe: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first, numbers and pointers.
unsafe impl Options for tiller_dictionary_parts {
    const NAME: &'static str = "tiller_dictionary_parts";
}

impl tiller_dictionary_parts {
    /// # Safety
    /// Every pointer is NULL or holds what its field says.
    unsafe fn read(&self) -> Result<Parts> {
        let size = |n: u64, name: &str| {
            usize::try_from(n).map_err(|_| Error::argument(format!("{name} is {n}, more than memory can hold")))
        };
        let (d_model, n) = (size(self.d_model, "d_model")?, size(self.n_features, "n_features")?);
        let k = size(self.k, "k")?;
        let cells = n.checked_mul(d_model).ok_or_else(|| Error::argument("n_features * d_model is too large"))?;
        // SAFETY: the caller's contract, for this and all below.
        let floats = |pointer, len, name| unsafe { slice(pointer, len, name) }.map(<[f32]>::to_vec);
        let or_zeros = |p: *const f32, len, name| if p.is_null() { Ok(vec![0.0; len]) } else { floats(p, len, name) };
        let given = |p: *const f32, name| if p.is_null() { Ok(None) } else { floats(p, n, name).map(Some) };
        // SAFETY: the caller's contract.
        let string = |p, name| unsafe { opt_text(p, name) }.map(|text| text.unwrap_or_default().to_owned());
        let kinds = [
            Activation::Relu,
            Activation::TopK { k },
            Activation::BatchTopK { k },
            Activation::JumpRelu,
            Activation::Gated,
            Activation::GroupMax { k },
        ];
        let mut settings = Settings::new(choice(self.activation, &kinds, "activation")?);
        settings.apply_b_dec_to_input = self.keep_decoder_bias == 0;
        let gate = match (given(self.gate_bias, "gate_bias")?, given(self.gate_log_scale, "gate_log_scale")?) {
            (Some(bias), Some(log_scale)) => Some(Gate { bias, log_scale }),
            (None, None) => None,
            _ => return Err(Error::argument("gate_bias and gate_log_scale belong together; one is NULL")),
        };
        let stats = if self.stats.is_null() {
            None
        } else {
            // SAFETY: the caller's contract.
            let stats = unsafe { slice(self.stats, n, "stats") }?.iter();
            Some(stats.map(|s| FeatureStats { density: s.density, max: s.max, mean: s.mean }).collect())
        };
        let info = Info {
            name: string(self.name, "name")?,
            model_name: string(self.model_name, "model_name")?,
            model_fingerprint: string(self.model_fingerprint, "model_fingerprint")?,
            layer: (self.has_layer != 0).then_some(self.layer as usize),
            hook: string(self.hook_point, "hook_point")?,
            recipe: string(self.recipe, "recipe")?,
            ..Info::default()
        };
        Ok(Parts {
            d_model,
            encoder: floats(self.encoder, cells, "encoder")?,
            decoder: floats(self.decoder, cells, "decoder")?,
            encoder_bias: or_zeros(self.encoder_bias, n, "encoder_bias")?,
            decoder_bias: or_zeros(self.decoder_bias, d_model, "decoder_bias")?,
            threshold: given(self.threshold, "threshold")?,
            gate,
            stats,
            settings,
            info,
        })
    }
}

/// Opens a dictionary: one of our GGUF files, or the directory or a file of another program, which is told by its
/// contents.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_open(
    file: *const c_char,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Dictionary::open(unsafe { path(file, "file") }?).map(tiller_dictionary::from))
}

/// The same, of a known family: "tiller", "saelens", "gemma_scope", "llama_scope", "sparsify", "dictionary_learning",
/// "openai", "qwen_scope", "goodfire" or "transcoder"; NULL tells it by the contents. Where the files cannot be used as
/// they lie, a converted copy in the directory `cache` is made once and mapped from then on; NULL converts in memory.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_open_as(
    file: *const c_char,
    family: *const c_char,
    cache: *const c_char,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires C strings, or NULL for the last two.
        let (file, family) = unsafe { (path(file, "file")?, opt_text(family, "family")?) };
        let named = |name| {
            let known = Family::ALL.map(Family::name).join(", ");
            Family::from_name(name)
                .ok_or_else(|| Error::argument(format!("family: expected one of {known}, found {name:?}")))
        };
        let family = family.map(named).transpose()?;
        let opened = if cache.is_null() {
            Dictionary::open_as(file, family)
        } else {
            // SAFETY: as above.
            Dictionary::open_cached(file, family, unsafe { path(cache, "cache") }?)
        };
        opened.map(tiller_dictionary::from)
    })
}

/// Makes a dictionary from weights in memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_new(
    parts: *const tiller_dictionary_parts,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a struct whose `size` is set and whose pointers hold what their fields say.
        let parts = unsafe { options(parts)?.read() }?;
        Dictionary::from_parts(parts).map(tiller_dictionary::from)
    })
}

/// What the dictionary is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_get_info(
    dictionary: Option<&tiller_dictionary>,
    out: *mut tiller_dictionary_info,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let given = some(dictionary, "dictionary")?;
        let d = &given.dictionary;
        let [name, model_name, model_fingerprint, hook_point, recipe, notes, hook_point_out] = &given.texts;
        let number = |layer: Option<usize>| layer.and_then(|layer| i32::try_from(layer).ok()).unwrap_or(-1);
        let (activation, storage) = (d.activation(), d.storage());
        let value = tiller_dictionary_info {
            size: 0,
            activation: match activation {
                Activation::Relu => 0,
                Activation::TopK { .. } => 1,
                Activation::BatchTopK { .. } => 2,
                Activation::JumpRelu => 3,
                Activation::Gated => 4,
                Activation::GroupMax { .. } => 5,
            },
            d_model: d.d_model() as u64,
            n_features: d.n_features() as u64,
            k: activation.k().unwrap_or(0) as u64,
            layer: number(d.layer()),
            has_stats: d.stats(0).is_some().into(),
            storage: static_name(storage).as_ptr(),
            name: name.as_ptr(),
            model_name: model_name.as_ptr(),
            model_fingerprint: model_fingerprint.as_ptr(),
            hook_point: hook_point.as_ptr(),
            recipe: recipe.as_ptr(),
            notes: notes.as_ptr(),
            d_out: d.d_out() as u64,
            layer_out: number(d.layer_out()),
            transcodes: d.settings().transcodes.into(),
            hook_point_out: hook_point_out.as_ptr(),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, value) }
    })
}

fn static_name(storage: &str) -> &'static std::ffi::CStr {
    let known = [("F32", c"F32"), ("F16", c"F16"), ("BF16", c"BF16"), ("Q8_0", c"Q8_0")];
    known.into_iter().find(|(name, _)| *name == storage).map_or(c"", |(_, name)| name)
}

/// Number of features. 0 if `dictionary` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_n_features(dictionary: Option<&tiller_dictionary>) -> usize {
    dictionary.map_or(0, |d| d.dictionary.n_features())
}

/// Width of the residual stream. 0 if `dictionary` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_d_model(dictionary: Option<&tiller_dictionary>) -> usize {
    dictionary.map_or(0, |d| d.dictionary.d_model())
}

/// Width of the rows that it writes, d_model of all but a few transcoders. 0 if `dictionary` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_d_out(dictionary: Option<&tiller_dictionary>) -> usize {
    dictionary.map_or(0, |d| d.dictionary.d_out())
}

/// The block at whose output a feature lives: of learned features each has its own, of others all have the dictionary's. -1 if
/// unknown, or if there is no such feature.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_feature_layer(dictionary: Option<&tiller_dictionary>, feature: u32) -> i32 {
    let has = dictionary.filter(|d| (feature as usize) < d.dictionary.n_features());
    let layer = has.and_then(|d| d.dictionary.feature_layer(feature as usize));
    layer.and_then(|layer| i32::try_from(layer).ok()).unwrap_or(-1)
}

pub(super) fn check_feature(dictionary: &Dictionary, feature: u32) -> Result<usize> {
    let n = dictionary.n_features();
    let found = usize::try_from(feature).ok().filter(|&feature| feature < n);
    found.ok_or_else(|| Error::argument(format!("feature {feature}: the dictionary has {n}")))
}

/// What a feature did on data. TILLER_E_UNSUPPORTED if the dictionary has no statistics.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_stats(
    dictionary: Option<&tiller_dictionary>,
    feature: u32,
    out: Option<&mut tiller_stats>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        let found = dictionary.stats(check_feature(dictionary, feature)?);
        let FeatureStats { density, max, mean } =
            found.ok_or_else(|| Error::unsupported("the dictionary has no statistics of its features"))?;
        *some(out, "out")? = tiller_stats { density, max, mean };
        Ok(())
    })
}

/// Writes the dictionary as one of our GGUF files, its weights as `storage`: "F32", "F16", "BF16" or "Q8_0".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_save(
    dictionary: Option<&tiller_dictionary>,
    file: *const c_char,
    storage: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires C strings.
        let (file, storage) = unsafe { (path(file, "file")?, text(storage, "storage")?) };
        let kind = GgmlType::from_name(storage);
        let kind = kind.ok_or_else(|| Error::argument(format!("storage: no ggml type is called {storage:?}")))?;
        convert(&some(dictionary, "dictionary")?.dictionary, file, kind).map(drop)
    })
}

/// What a type of storage costs: the cosine between a row and what was stored of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_loss {
    /// Of the encoder's worst row.
    pub encoder_min: f32,
    /// Over all rows of the encoder.
    pub encoder_mean: f32,
    /// Of the decoder's worst row.
    pub decoder_min: f32,
    /// Over all rows of the decoder.
    pub decoder_mean: f32,
}

/// In any type that this build has a quantizer for.
fn convert(dictionary: &Dictionary, file: &Path, kind: GgmlType) -> Result<Loss> {
    #[cfg(feature = "engine")]
    return crate::engine::convert(dictionary, file, kind);
    #[cfg(not(feature = "engine"))]
    dictionary.convert(file, kind)
}

/// The same, and says in `*out` what the storage cost. Goes through the dictionary in bands, however large it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_convert(
    dictionary: Option<&tiller_dictionary>,
    file: *const c_char,
    storage: *const c_char,
    out: Option<&mut tiller_loss>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires C strings.
        let (file, storage) = unsafe { (path(file, "file")?, text(storage, "storage")?) };
        let kind = GgmlType::from_name(storage);
        let kind = kind.ok_or_else(|| Error::argument(format!("storage: no ggml type is called {storage:?}")))?;
        let out = some(out, "out")?;
        let Loss { encoder, decoder } = convert(&some(dictionary, "dictionary")?.dictionary, file, kind)?;
        *out = tiller_loss {
            encoder_min: encoder.min,
            encoder_mean: encoder.mean,
            decoder_min: decoder.min,
            decoder_mean: decoder.mean,
        };
        Ok(())
    })
}

/// Writes a directory that SAELens loads (SAE.load_from_disk). TILLER_E_UNSUPPORTED for what it has no name for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_save_saelens(
    dictionary: Option<&tiller_dictionary>,
    directory: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(dictionary, "dictionary")?.dictionary.save_saelens(unsafe { path(directory, "directory") }?))
}

/// Writes a directory that sparsify loads; it tells the module by the directory's name, such as "layers.10".
/// TILLER_E_UNSUPPORTED for what it has no name for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_save_sparsify(
    dictionary: Option<&tiller_dictionary>,
    directory: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(dictionary, "dictionary")?.dictionary.save_sparsify(unsafe { path(directory, "directory") }?))
}

/// Frees `dictionary`. What was made from it stays valid. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_dictionary_free(dictionary: Option<Box<tiller_dictionary>>) {
    drop(dictionary);
}
