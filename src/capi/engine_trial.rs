use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::{Options, Report, finite, options, report, some, texts};
use super::dictionary::tiller_dictionary;
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::explanations::tiller_matches;
use super::guard::{ErrorOut, Out, guard, make};
use super::plan::{resolve, tiller_named, tiller_plan};
use super::progress::{reporter, tiller_progress};
use crate::error::Error;
use crate::eval::{output, trial};
use crate::plan::Route;

/// How the strength of a plan is searched. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_search {
    /// sizeof(tiller_search).
    pub size: u32,
    /// Halvings between the best factor and its next; 0 means 1.
    pub refine: u32,
    /// Largest perplexity, relative to the unsteered text, that still counts as fluent; 0 means 1.8.
    pub max_perplexity: f64,
    /// Smallest share of distinct word pairs, relative to the unsteered text, that still counts as fluent; 0 means 0.8.
    pub min_distinct: f64,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_search {
    const NAME: &'static str = "tiller_search";
}

/// What a search found: effects are ratios of steered over unsteered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_found {
    /// Set it to sizeof(tiller_found) before the call.
    pub size: u32,
    /// Factors that were tried.
    pub n_trials: u32,
    /// What to multiply the plan's strengths by; 0 if every factor broke the text.
    pub factor: f32,
    /// Always 0.
    pub reserved: u32,
    /// Words of the concept per 100 tokens.
    pub gain: f64,
    /// Perplexity under the unsteered model.
    pub perplexity: f64,
    /// Share of distinct word pairs.
    pub distinct: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_found {
    const NAME: &'static str = "tiller_found";
}

/// Searches how strong `plan` should be: the factor, from 0.6 to 4, by which its strengths make the model speak most of a
/// concept while the text stays fluent. Give the plan a strength of 1 multiple of each feature's mean activation, then
/// apply tiller_plan_scaled(). The concept is `n_words` words, and the first words of `matches` (may be NULL).
///
/// Writes and judges some hundred tokens a trial; progress counts trials. No plan is in force afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_find_strength(
    engine: Option<&mut tiller_engine>,
    plan: Option<&tiller_plan>,
    dictionaries: *const tiller_named,
    n: usize,
    words: *const *const c_char,
    n_words: usize,
    matches: Option<&tiller_matches>,
    given: *const tiller_search,
    progress: Option<&tiller_progress>,
    out: *mut tiller_found,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (engine, plan) = (&mut some(engine, "engine")?.0, &some(plan, "plan")?.0);
        // SAFETY: the header requires `n` structs, `n_words` C strings, a struct whose `size` is set, or NULL, and a
        // function that may be called.
        let (dictionaries, words, given, mut progress) = unsafe {
            (resolve(dictionaries, n)?, texts(words, n_words, "words")?, options(given)?, reporter(progress))
        };
        let mut search = trial::quick();
        if given.refine > 0 {
            search.refine = given.refine as usize;
        }
        for (given, place) in
            [(given.max_perplexity, &mut search.max_perplexity), (given.min_distinct, &mut search.min_distinct)]
        {
            if given != 0.0 {
                *place = f64::from(finite(given as f32, "tiller_search")?);
            }
        }
        let wanted = trial::wanted(&words.join(" "), matches.map_or(&[], |m| &m.list));
        if wanted.is_empty() {
            return Err(Error::argument("expected words of the concept, found none"));
        }
        let target = engine.target();
        let compile = |factor| Ok(Arc::new(plan.scaled(factor).compile(&dictionaries, &target, Route::Auto)?));
        let found = trial::find_strength(engine, &search, &wanted, &compile, &mut progress)?;
        let (factor, effect) = found.best.map_or((0.0, None), |best| (best.strength, Some(best.effect)));
        let value = tiller_found {
            size: 0,
            n_trials: found.trials.len() as u32,
            factor,
            reserved: 0,
            gain: effect.map_or(1.0, |e| e.gain),
            perplexity: effect.map_or(1.0, |e| e.perplexity),
            distinct: effect.map_or(1.0, |e| e.distinct),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, value) }
    })
}

/// How features are ranked by what they make the model say. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_output {
    /// sizeof(tiller_output).
    pub size: u32,
    /// Length of the vector that a feature is pushed by, relative to the row's; 0 means 0.3.
    pub push: f32,
    /// The smallest lift that is kept, relative to the best one's; 0 means 0.25.
    pub share: f32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_output {
    const NAME: &'static str = "tiller_output";
}

/// The at most `n_features` of `matches` that make the model speak most of `n_words` words when they are pushed, best
/// first, with their lift and their weight. Features that mean a concept need not be those that make the model say it
/// (arXiv 2505.20063): search more than you want, some 24, and rank them by this.
///
/// Reads some ten tokens a match; open the engine with several sequences, and they are read side by side; progress counts
/// readings. No plan is in force afterwards.
///
/// On success `*out` owns a new object, which is empty if no match makes the words likelier; free it with
/// tiller_matches_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_rank(
    engine: Option<&mut tiller_engine>,
    dictionary: Option<&tiller_dictionary>,
    matches: Option<&tiller_matches>,
    words: *const *const c_char,
    n_words: usize,
    n_features: usize,
    given: *const tiller_output,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_matches>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let engine = &mut some(engine, "engine")?.0;
        let (dictionary, matches) = (&some(dictionary, "dictionary")?.dictionary, &some(matches, "matches")?.list);
        // SAFETY: the header requires `n_words` C strings, a struct whose `size` is set, or NULL, and a function that may
        // be called.
        let (words, given, mut progress) =
            unsafe { (texts(words, n_words, "words")?, options(given)?, reporter(progress)) };
        let mut options = output::Output::default();
        for (given, place) in [(given.push, &mut options.push), (given.share, &mut options.share)] {
            if given != 0.0 {
                *place = finite(given, "tiller_output")?;
            }
        }
        let ranked = output::rank(engine, dictionary, matches, &words, n_features, &options, &mut progress)?;
        Ok(tiller_matches::from(ranked))
    })
}
