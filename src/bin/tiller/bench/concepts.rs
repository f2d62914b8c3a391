//! Does steering by words work? For every concept of the suite and every estimator: choose features by the concept's words,
//! find the strength on some prompts, write continuations on others, count *other* words of the concept.
//!
//! | case | value, baseline |
//! |---|---|
//! | `gain/<estimator>/<concept>` | held-out words per 100 tokens, steered and unsteered |
//! | `perplexity/<estimator>/<concept>` | perplexity of what was written, judged by the unsteered model |
//! | `distinct/<estimator>/<concept>` | share of distinct word pairs |
//! | `broken/<estimator>/<concept>` | share of texts that loop or are gibberish; its ratio is the difference of the two |
//! | `…/random/<concept>` | the same with random features that raise the row by vectors of the same length |
//! | `…/<estimator>/median` | medians over the concepts |
//!
//! A concept whose words choose no feature, or that no strength moves without breaking the text, counts as not steered:
//! gain 1.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::eval::concepts::{Concept, Search, Suite};
use tiller::eval::fluency::Broken;
use tiller::eval::gain::{Gain, Gauge, Options, SearchBy};
use tiller::eval::output::Output;
use tiller::eval::trial::{SEQUENCES, drafts};
use tiller::explain::Explanations;
use tiller::model::Model;
use tiller::{Error, Result};

use super::{Args, Line, Lines, TOKENS, median, model_name};
use crate::open;
use crate::wish::Rank;

/// A suite has some dozen concepts.
const MAX_SUITE_BYTES: u64 = 16 << 20;

/// What stays the same over concepts.
struct Bench<'a> {
    args: &'a Args,
    model: String,
    dictionary: Arc<Dictionary>,
    gauge: Gauge,
    engine: Engine,
    texts: Option<std::fs::File>,
}

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let (Some(path), Some(dictionary)) = (args.model.first(), &args.dictionary) else {
        return Err(Error::argument("bench --what concepts needs --model and --dictionary"));
    };
    let suite = suite(args)?;
    let dictionary = open::dictionary(dictionary, &Model::open(path)?, lines.out)?;
    let files = if args.explanations.is_empty() {
        args.dictionary.iter().map(|path| path.with_extension("jsonl")).collect()
    } else {
        args.explanations.clone()
    };
    let options = Options {
        features: args.features,
        output: (args.rank == Rank::Output).then(Output::default),
        search: SearchBy::Texts {
            search: Search { max_perplexity: args.max_perplexity, ..Search::default() },
            drafts: drafts(40).into_iter().skip(1).collect(),
        },
        drafts: drafts(args.max_tokens.unwrap_or(TOKENS)).to_vec(),
    };
    let mut engine = args.machine.engine(path, 4096, SEQUENCES)?;
    let gauge = Gauge::new(&mut engine, &suite, options)?;
    let texts = args.texts.as_ref().map(|path| std::fs::File::create(path).map_err(|e| Error::io("create", path, e)));
    let mut bench = Bench { args, model: model_name(path), dictionary, gauge, engine, texts: texts.transpose()? };
    files.iter().try_for_each(|file| bench.estimator(file, &suite, lines))
}

pub(super) fn suite(args: &Args) -> Result<Suite> {
    let mut suite = match &args.suite {
        Some(path) => {
            let text = tiller::file::read_text(path, MAX_SUITE_BYTES)?;
            Suite::from_json(&text, &path.display().to_string())?
        }
        None => Suite::built_in()?,
    };
    match args.concepts.as_slice() {
        [] => {}
        [n] if n.parse::<usize>().is_ok() => suite.concepts.truncate(n.parse().unwrap_or(usize::MAX)),
        names => {
            if let Some(name) = names.iter().find(|name| suite.concepts.iter().all(|c| &c.name != *name)) {
                let known: Vec<_> = suite.concepts.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::argument(format!(
                    "--concepts: expected some of {}, found {name:?}",
                    known.join(", ")
                )));
            }
            suite.concepts.retain(|concept| names.contains(&concept.name));
        }
    }
    Ok(suite)
}

impl Bench<'_> {
    fn estimator(&mut self, file: &Path, suite: &Suite, lines: &mut Lines<'_>) -> Result<()> {
        let explanations = Explanations::load(file)?;
        explanations.check(&self.dictionary).map_err(|e| e.context(file.display()))?;
        let estimator = explanations.header().estimator.name();
        let mut ratios: [Vec<f64>; 3] = Default::default();
        for concept in &suite.concepts {
            let mut bar = lines.out.bar(&concept.name, "trials");
            let (engine, dictionary) = (&mut self.engine, &self.dictionary);
            let gain = self.gauge.gain(engine, dictionary, &explanations, concept, &mut |step| bar.step(step))?;
            drop(bar);
            tell(concept, &gain, lines);
            let made = self.report(estimator, concept, &gain, lines)?;
            ratios.iter_mut().zip(made).for_each(|(all, ratio)| all.push(ratio));
            if estimator == "data" && gain.strength().is_some() {
                let control = self.gauge.control(&mut self.engine, &self.dictionary, concept, &gain)?;
                self.report("random", concept, &control, lines)?;
            }
        }
        for (what, ratios) in ["gain", "perplexity", "distinct"].into_iter().zip(ratios) {
            let ratio = median(&ratios);
            let (case, model) = (format!("{what}/{estimator}/median"), self.model.clone());
            let n = ratios.len();
            let (value, baseline) = (ratio, 1.0);
            lines.push(Line {
                bench: "concepts",
                case,
                model,
                value,
                unit: "ratio",
                baseline,
                ratio,
                n,
                interval: None,
            })?;
        }
        Ok(())
    }

    /// Reports gain, perplexity and distinct pairs, as ratios.
    fn report(&mut self, estimator: &str, concept: &Concept, gain: &Gain, lines: &mut Lines<'_>) -> Result<[f64; 3]> {
        let (with, without) = (&gain.steered, &gain.unsteered);
        let all = [
            ("gain", with.per_100(), without.per_100(), "held-out words per 100 tokens"),
            ("perplexity", with.perplexity(), without.perplexity(), "perplexity"),
            ("distinct", with.distinct(), without.distinct(), "share of word pairs"),
        ];
        // A share of texts, whose unsteered counterpart is 0 as a rule: no ratio.
        let (case, model) = (format!("broken/{estimator}/{}", concept.name), self.model.clone());
        let (value, baseline, n) = (with.broken(), without.broken(), gain.texts.len());
        let (unit, ratio) = ("share of texts that loop or are gibberish", value - baseline);
        lines.push(Line { bench: "concepts", case, model, value, unit, baseline, ratio, n, interval: None })?;
        for (what, value, baseline, unit) in all {
            let case = format!("{what}/{estimator}/{}", concept.name);
            let (model, ratio, n) = (self.model.clone(), value / baseline, gain.texts.len());
            lines.push(Line { bench: "concepts", case, model, value, unit, baseline, ratio, n, interval: None })?;
        }
        self.keep(estimator, concept, gain)?;
        Ok(all.map(|(_, value, baseline, _)| value / baseline))
    }

    fn keep(&mut self, estimator: &str, concept: &Concept, gain: &Gain) -> Result<()> {
        let (Some(file), Some(path)) = (&mut self.texts, &self.args.texts) else { return Ok(()) };
        for text in &gain.texts {
            let fluency = text.fluency(Some(gain.unsteered.perplexity()));
            let line = json!({
                "estimator": estimator, "concept": concept.name, "text": text.text, "tokens": text.n_tokens,
                "perplexity": text.perplexity(), "distinct_2": fluency.distinct_2(),
                "longest_repeat": fluency.longest_repeat, "broken": fluency.broken().map(Broken::name),
            });
            writeln!(file, "{line}").map_err(|e| Error::io("write", Path::new(path), e))?;
        }
        Ok(())
    }
}

/// Tells people what was chosen.
fn tell(concept: &Concept, gain: &Gain, lines: &Lines<'_>) {
    let mut text = format!("{}:", concept.name);
    for m in &gain.matches {
        let words: Vec<&str> = m.words.iter().take(5).map(|(word, _)| word.as_str()).collect();
        text += &format!(" {} ({})", m.feature, words.join(" "));
    }
    text += &match (gain.matches.is_empty(), gain.strength()) {
        (true, _) => format!(" no feature means {}", concept.words.join(" ")),
        (_, Some(strength)) => format!(" at {strength:.2}"),
        (_, None) => "; no strength leaves the text fluent".into(),
    };
    lines.out.note(text);
}
