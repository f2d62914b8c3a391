use super::activations::tiller_activations;
use super::arguments::{Options, options, slice, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::explanations::{tiller_explanations, tiller_vocabulary};
use super::guard::{ErrorOut, Out, make};
use super::model::tiller_model;
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::activations::Activations;
use crate::error::Result;
use crate::explain::baselines::SPANS;
use crate::explain::harvested::{self, Data};

/// How features are explained by counting. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_explain {
    /// sizeof(tiller_explain).
    pub size: u32,
    /// Tokens of a window; 0 means 32.
    pub window: u32,
    /// Of more rows than this, windows spread evenly over the text are taken; 0 takes all.
    pub max_rows: u64,
    /// Words kept per feature; 0 means 50.
    pub top: u32,
    /// Windows in which a feature and a word must come together to count at all; 0 means 3.
    pub min_together: u32,
    /// Threads; 0 means 1. The answer does not depend on it.
    pub threads: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_explain {
    const NAME: &'static str = "tiller_explain";
}

impl tiller_explain {
    fn options(&self) -> Data {
        let mut options = Data::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        options.window = or(self.window, options.window);
        options.max_rows = usize::try_from(self.max_rows).unwrap_or(usize::MAX);
        options.count.top = or(self.top, options.count.top);
        options.count.min_together =
            if self.min_together == 0 { options.count.min_together } else { self.min_together };
        options.count.threads = or(self.threads, options.count.threads);
        options
    }
}

/// The directories of several handles, opened once more: to Rust they are one slice.
///
/// # Safety
/// `rows` holds `n_rows` live handles.
unsafe fn opened(rows: *const *const tiller_activations, n_rows: usize) -> Result<Vec<Activations>> {
    // SAFETY: the caller's contract.
    let rows = unsafe { slice(rows, n_rows, "rows") }?.iter();
    // SAFETY: as above.
    let rows = rows.map(|p| some(unsafe { p.as_ref() }, "rows"));
    rows.map(|a| Activations::open(a?.rows.directory())).collect()
}

/// The `n_words` most frequent words of harvested text (`n_rows` directories).
///
/// On success `*out` owns a new object; free it with tiller_vocabulary_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_vocabulary_harvested(
    rows: *const *const tiller_activations,
    n_rows: usize,
    model: Option<&tiller_model>,
    n_words: usize,
    out: Out<'_, tiller_vocabulary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` live handles.
        let rows = unsafe { opened(rows, n_rows) }?;
        harvested::vocabulary(&rows, &some(model, "model")?.model, n_words).map(tiller_vocabulary)
    })
}

/// Explains the features of `dictionary` by the words of `vocabulary` that go together with them in harvested text
/// (`n_rows` directories): by mutual information, counted over windows. The default estimator; see tiller_engine_explain() for the others.
/// Progress counts rows.
///
/// On success `*out` owns a new object; free it with tiller_explanations_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explain_data(
    rows: *const *const tiller_activations,
    n_rows: usize,
    model: Option<&tiller_model>,
    dictionary: Option<&tiller_dictionary>,
    vocabulary: Option<&tiller_vocabulary>,
    given: *const tiller_explain,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_explanations>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` live handles.
        let (rows, model) = (unsafe { opened(rows, n_rows) }?, &some(model, "model")?.model);
        let (dictionary, vocabulary) =
            (&some(dictionary, "dictionary")?.dictionary, &some(vocabulary, "vocabulary")?.0);
        // SAFETY: the header requires a struct whose `size` is set, or NULL, and a function that may be called.
        let (given, mut progress) = unsafe { (options(given)?, reporter(progress)) };
        let found = harvested::data(&rows, model, dictionary, vocabulary, &given.options(), &mut progress)?;
        Ok(tiller_explanations(found))
    })
}

/// The baseline TopAct: explains the features of `dictionary` by the words of the `n_spans` (0 means 20) pieces of harvested
/// text (`n_rows` directories) on which each fires most. `spans`, unless NULL, receives the pieces themselves, a line of
/// JSON each: "feature", "row", "activation", "text". Progress counts rows.
///
/// On success `*out` owns a new object; free it with tiller_explanations_free(), and `*spans` with tiller_text_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explain_spans(
    rows: *const *const tiller_activations,
    n_rows: usize,
    model: Option<&tiller_model>,
    dictionary: Option<&tiller_dictionary>,
    vocabulary: Option<&tiller_vocabulary>,
    n_spans: u32,
    threads: u32,
    progress: Option<&tiller_progress>,
    spans: Out<'_, tiller_text>,
    out: Out<'_, tiller_explanations>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` live handles.
        let (rows, model) = (unsafe { opened(rows, n_rows) }?, &some(model, "model")?.model);
        let (dictionary, vocabulary) =
            (&some(dictionary, "dictionary")?.dictionary, &some(vocabulary, "vocabulary")?.0);
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let (n, threads) = (if n_spans == 0 { SPANS } else { n_spans as usize }, threads.max(1) as usize);
        let (found, made) = harvested::top_act(&rows, model, dictionary, vocabulary, n, threads, &mut progress)?;
        if let Some(spans) = spans {
            let text = harvested::spans_jsonl(&found, model);
            spans.write(Some(Box::new(tiller_text::from(text.as_str()))));
        }
        Ok(tiller_explanations(made))
    })
}
