use std::ffi::c_char;

use super::activations::tiller_activations;
use super::arguments::{
    Options, Report, choice, expect_len, options, path, paths, report, slice_mut, some, text, texts,
};
use super::diagnosis::tiller_diagnosis;
use super::dictionary::tiller_dictionary;
use super::engine::{engine_options, tiller_engine, tiller_engine_options};
use super::error::tiller_status;
use super::explanations::{tiller_explanations, tiller_vocabulary};
use super::guard::{ErrorOut, Out, guard, make};
use super::model::tiller_model;
use super::mpc::tiller_concepts;
use super::progress::{reporter, tiller_progress};
use crate::engine::{Document, documents};
use crate::error::{Error, Result};
use crate::eval::drift::{self, Drift};
use crate::eval::mpc::{Relation, read_words};
use crate::eval::self_test::{self, SelfTest};
use crate::explain::lens::{Condition, Lens, Mode};
use crate::explain::{harvested, tuned};
use crate::hook_point::HookPoint;

/// Rows that the map of the tuned lens is fitted on, at most.
const MAP_ROWS: usize = 200_000;

/// How features are explained through the unembedding. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_lens {
    /// sizeof(tiller_lens).
    pub size: u32,
    /// What ranks words: 0 mutual information, 1 as the paper prints it (a trap), 2 the logit lens.
    pub mode: u32,
    /// How p(feature | word) is found: 0 softmax over the features, 1 Bayes' rule.
    pub condition: u32,
    /// Words kept per feature; 0 means 50.
    pub top: u32,
    /// Threads; 0 means 1.
    pub threads: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_lens {
    const NAME: &'static str = "tiller_lens";
}

/// Explains the features of `dictionary` by reading their directions through the final norm and the unembedding of
/// `model`, which `engine` runs. `from` and `to` are NULL, or the rows of the dictionary's layer and of the last one for
/// the same text: then a linear map between the two stands in front of the lens. See tiller_explain_data() for the
/// default estimator.
///
/// On success `*out` owns a new object; free it with tiller_explanations_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_explain(
    engine: Option<&tiller_engine>,
    model: Option<&tiller_model>,
    dictionary: Option<&tiller_dictionary>,
    vocabulary: Option<&tiller_vocabulary>,
    from: Option<&tiller_activations>,
    to: Option<&tiller_activations>,
    given: *const tiller_lens,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_explanations>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let (engine, model) = (&some(engine, "engine")?.0, &some(model, "model")?.model);
        let (dictionary, vocabulary) =
            (&some(dictionary, "dictionary")?.dictionary, &some(vocabulary, "vocabulary")?.0);
        // SAFETY: the header requires a struct whose `size` is set, or NULL, and a function that may be called.
        let (given, mut progress) = unsafe { (options(given)?, reporter(progress)) };
        let default = Lens::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        let lens = Lens {
            mode: choice(given.mode, &[Mode::Mi, Mode::Literal, Mode::Logit], "tiller_lens.mode")?,
            condition: choice(given.condition, &[Condition::Softmax, Condition::Bayes], "tiller_lens.condition")?,
            top: or(given.top, default.top),
            threads: or(given.threads, default.threads),
        };
        let tokenize = |word: &str| engine.tokenize(word, false);
        let map = match (from, to) {
            (None, None) => None,
            (Some(from), Some(to)) => {
                let (rows, ridge) = (MAP_ROWS, tuned::DEFAULT_RIDGE);
                Some(harvested::tuned_map(&from.rows, &to.rows, rows, ridge, lens.threads, &mut progress)?)
            }
            _ => return Err(Error::argument("from and to belong together; one is NULL")),
        };
        let map = map.as_deref();
        let found = harvested::lens(model, dictionary, vocabulary, &tokenize, map, &lens, &mut progress);
        found.map(tiller_explanations)
    })
}

/// How much text a self-test uses. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_self_test {
    /// sizeof(tiller_self_test).
    pub size: u32,
    /// Tokens for L0, FVU and dead features; 0 means 60,000.
    pub max_tokens: u32,
    /// Tokens for the cross-entropies; 0 means 8,000.
    pub score_tokens: u32,
    /// Longest window, in tokens; 0 means 256.
    pub window: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_self_test {
    const NAME: &'static str = "tiller_self_test";
}

/// What a dictionary does on text.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_self_tested {
    /// Set it to sizeof(tiller_self_tested) before the call.
    pub size: u32,
    /// How many things there are to know that tiller_model_check() says in words.
    pub n_warnings: u32,
    /// Rows shown.
    pub n_rows: u64,
    /// Rows set apart for their length, the ones at position 0 not among them.
    pub n_sinks: u64,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// Share of features that no row activated.
    pub dead_share: f64,
    /// Mean norm of the rows.
    pub mean_norm: f64,
    /// Cross-entropy of the model as it is, in nats a token.
    pub clean: f64,
    /// With the reconstruction in place of the residual stream.
    pub reconstructed: f64,
    /// With zero in place of the residual stream.
    pub zero: f64,
    /// (zero - reconstructed) / (zero - clean).
    pub recovered: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_self_tested {
    const NAME: &'static str = "tiller_self_tested";
}

impl From<&SelfTest> for tiller_self_tested {
    fn from(t: &SelfTest) -> Self {
        Self {
            size: 0,
            n_warnings: t.warnings.len() as u32,
            n_rows: t.quality.n_rows,
            n_sinks: t.quality.n_sinks,
            l0: t.quality.l0,
            fvu: t.quality.fvu,
            dead_share: t.quality.dead_share,
            mean_norm: t.quality.mean_norm,
            clean: t.cross_entropy.clean,
            reconstructed: t.cross_entropy.reconstructed,
            zero: t.cross_entropy.zero,
            recovered: t.cross_entropy.recovered(),
        }
    }
}

/// Tests `dictionary` on the engine's model over text files, as tiller_engine_harvest() reads them. A plan in force is set
/// aside meanwhile. Progress counts tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_self_test(
    engine: Option<&mut tiller_engine>,
    dictionary: Option<&tiller_dictionary>,
    files: *const *const c_char,
    n_files: usize,
    given: *const tiller_self_test,
    progress: Option<&tiller_progress>,
    out: *mut tiller_self_tested,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (engine, dictionary) = (&mut some(engine, "engine")?.0, &some(dictionary, "dictionary")?.dictionary);
        // SAFETY: the header requires `n_files` C strings.
        let files = unsafe { paths(files, n_files, "files") }?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL, and a function that may be called.
        let (options, mut progress) = unsafe { (test_options(given)?, reporter(progress)) };
        let tested = self_test::self_test(engine, dictionary, &documents(&files)?, &options, &mut progress)?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_self_tested::from(&tested)) }
    })
}

/// How much text, with defaults.
///
/// # Safety
/// As [`options`].
unsafe fn test_options(given: *const tiller_self_test) -> Result<self_test::Options> {
    // SAFETY: the caller's contract.
    let given = unsafe { options(given) }?;
    let default = self_test::Options::default();
    let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
    Ok(self_test::Options {
        max_tokens: or(given.max_tokens, default.max_tokens),
        score_tokens: or(given.score_tokens, default.score_tokens),
        window: or(given.window, default.window),
    })
}

/// Whether `dictionary` fits the engine's model, and if not, what is most likely wrong: on the first few hundred tokens of
/// text files, as tiller_engine_harvest() reads them. A plan in force is set aside meanwhile. Progress counts alternatives.
///
/// On success `*out` owns a new object; free it with tiller_diagnosis_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_diagnose(
    engine: Option<&mut tiller_engine>,
    dictionary: Option<&tiller_dictionary>,
    files: *const *const c_char,
    n_files: usize,
    given: *const tiller_self_test,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_diagnosis>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let (engine, dictionary) = (&mut some(engine, "engine")?.0, &some(dictionary, "dictionary")?.dictionary);
        // SAFETY: the header requires `n_files` C strings.
        let files = unsafe { paths(files, n_files, "files") }?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL, and a function that may be called.
        let (options, mut progress) = unsafe { (test_options(given)?, reporter(progress)) };
        let found = self_test::diagnose(engine, dictionary, &documents(&files)?, &options, &mut progress)?;
        Ok(tiller_diagnosis(found))
    })
}

/// The rows of the last token of `n_texts` texts, at a hook point such as "blocks.19.hook_resid_post": `n` = `n_texts` ×
/// d_model floats. A text longer than a batch is refused. For contrastive vectors let every text end with its answer.
/// Progress counts texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_last_rows(
    engine: Option<&mut tiller_engine>,
    input: *const *const c_char,
    n_texts: usize,
    hook: *const c_char,
    progress: Option<&tiller_progress>,
    rows: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let engine = &mut some(engine, "engine")?.0;
        // SAFETY: the header requires `n_texts` C strings, and one more.
        let (input, hook) = unsafe { (texts(input, n_texts, "texts")?, text(hook, "hook")?) };
        expect_len(n, n_texts * engine.d_model(), "rows")?;
        let input: Vec<Document> = input.into_iter().map(|text| Document::Text(text.to_owned())).collect();
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let found = engine.last_rows(&input, hook.parse::<HookPoint>()?, &mut progress)?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(rows, n, "rows") }?.copy_from_slice(&found);
        Ok(())
    })
}

/// Reads the words of relations with the engine's model, each alone behind a space, and takes the row of its last token at
/// a hook point such as "blocks.19.hook_resid_post". `pairs` is a file with a relation, a word and its counterpart to a
/// line, between tabs, or NULL for the 27 relations that come along. Progress counts words.
///
/// On success `*out` owns a new object; free it with tiller_concepts_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_concepts(
    engine: Option<&mut tiller_engine>,
    pairs: *const c_char,
    hook: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_concepts>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let engine = &mut some(engine, "engine")?.0;
        // SAFETY: the header requires C strings, the first of which may be NULL.
        let (pairs, hook) =
            unsafe { (if pairs.is_null() { None } else { Some(path(pairs, "pairs")?) }, text(hook, "hook")?) };
        let relations = pairs.map_or_else(Relation::built_in, Relation::load)?;
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let all = read_words(engine, &relations, hook.parse()?, &mut progress)?;
        Ok(tiller_concepts { d_model: engine.d_model(), all })
    })
}

/// What one quantization of a model makes of a dictionary.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_drifted {
    /// Set it to sizeof(tiller_drifted) before the call, in each struct of an array.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// Cross-entropy of the model as it is, in nats a token.
    pub clean: f64,
    /// Share of the cross-entropy that the reconstruction recovers, as in tiller_self_tested.
    pub recovered: f64,
    /// Share of the active features of a token that are others than with the first model, 1 - |A and B| / |A or B|.
    pub changed: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_drifted {
    const NAME: &'static str = "tiller_drifted";
}

impl From<&Drift> for tiller_drifted {
    fn from(d: &Drift) -> Self {
        let (quality, cross_entropy) = (&d.test.quality, &d.test.cross_entropy);
        Self {
            size: 0,
            reserved: 0,
            l0: quality.l0,
            fvu: quality.fvu,
            clean: cross_entropy.clean,
            recovered: cross_entropy.recovered(),
            changed: d.changed,
        }
    }
}

/// Measures `dictionary` on several quantizations of one model, over text files as tiller_engine_harvest() reads them; the
/// first of the `n_models` is what the others are compared with. Each is opened with `engine` (or NULL) and closed again.
/// Fills `out`, `n_models` structs. Progress counts tokens and names the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_drift(
    dictionary: Option<&tiller_dictionary>,
    models: *const *const c_char,
    n_models: usize,
    files: *const *const c_char,
    n_files: usize,
    engine: *const tiller_engine_options,
    given: *const tiller_self_test,
    progress: Option<&tiller_progress>,
    out: *mut tiller_drifted,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        // SAFETY: the header requires so many C strings.
        let (models, files) = unsafe { (paths(models, n_models, "models")?, paths(files, n_files, "files")?) };
        // SAFETY: the header requires structs whose `size` is set, or NULL, and a function that may be called.
        let (engine, given, mut progress) =
            unsafe { (engine_options(engine)?, test_options(given)?, reporter(progress)) };
        if models.is_empty() {
            return Err(Error::argument("expected models, found none"));
        }
        if out.is_null() || !out.is_aligned() {
            return Err(Error::argument("out: expected an array of tiller_drifted, found NULL or another address"));
        }
        // Structs of an older header are shorter, and lie closer to each other.
        // SAFETY: the first struct's `size`, which the header requires to be set; not NULL and aligned by the check above.
        let step = unsafe { out.cast::<u32>().read() } as usize;
        let found = drift::drift(&models, dictionary, &documents(&files)?, &engine, &given, &mut progress)?;
        for (i, drift) in found.iter().enumerate() {
            // SAFETY: the header requires as many structs as models, and there is one result a model.
            unsafe { report(out.byte_add(i * step), tiller_drifted::from(drift)) }?;
        }
        Ok(())
    })
}
