//! Does steering by words work? For every concept of the suite and every estimator: choose features by the concept's words,
//! find the strength on some prompts, write continuations on others, count *other* words of the concept.
//!
//! | case | value, baseline |
//! |---|---|
//! | `gain/<estimator>/<concept>` | held-out words per 100 tokens, steered and unsteered |
//! | `perplexity/<estimator>/<concept>` | perplexity of what was written, judged by the unsteered model |
//! | `distinct/<estimator>/<concept>` | share of distinct word pairs |
//! | `…/random/<concept>` | the same with random features that raise the row by vectors of the same length |
//! | `…/<estimator>/median` | medians over the concepts |
//!
//! A concept whose words choose no feature, or that no strength moves without breaking the text, counts as not steered:
//! gain 1.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use serde_json::json;
use tiller::dictionary::Dictionary;
use tiller::eval::concepts::{Concept, Continuation, Found, Search, Suite, Tally};
use tiller::eval::trial::{Comparison, SEQUENCES, drafts, wanted};
use tiller::explain::{Explanations, Match};
use tiller::model::Model;
use tiller::num::rng;
use tiller::plan::{Compiled, Feature, Op, Plan, Route, Rule, Strength};
use tiller::{Error, Kind, Result};

use super::{Args, Line, Lines, median, model_name};
use crate::open::{self, Rank};

/// The built-in concepts.
const SUITE: &str = include_str!("../../../../examples/concepts.json");

/// What stays the same over concepts.
struct Bench<'a> {
    args: &'a Args,
    model: String,
    dictionary: Arc<Dictionary>,
    n_layer: usize,
    d_model: usize,
    search: Search,
    texts: Option<std::fs::File>,
}

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let (Some(path), Some(dictionary)) = (args.model.first(), &args.dictionary) else {
        return Err(Error::argument("bench --what concepts needs --model and --dictionary"));
    };
    let suite = suite(args)?;
    let opened = open::dictionary(dictionary, &Model::open(path)?, lines.out)?;
    let files =
        if args.explanations.is_empty() { vec![dictionary.with_extension("jsonl")] } else { args.explanations.clone() };
    let mut engine = args.machine.engine(path, 4096, SEQUENCES)?;
    let mut judge = args.machine.engine(path, 4096, SEQUENCES)?;
    let texts = args.texts.as_ref().map(|path| std::fs::File::create(path).map_err(|e| Error::io("create", path, e)));
    let mut bench = Bench {
        args,
        model: model_name(path),
        n_layer: engine.n_layer(),
        d_model: engine.d_model(),
        dictionary: opened,
        search: Search { max_perplexity: args.max_perplexity, ..Search::default() },
        texts: texts.transpose()?,
    };
    let mut searching = Comparison::new(&mut engine, suite.search_prompts.clone(), &drafts(40))?;
    let mut scoring = Comparison::new(&mut judge, suite.prompts.clone(), &drafts(args.max_tokens))?;
    for file in &files {
        bench.estimator(file, &suite, &mut searching, &mut scoring, lines)?;
    }
    Ok(())
}

fn suite(args: &Args) -> Result<Suite> {
    let mut suite = match &args.suite {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
            Suite::from_json(&text, &path.display().to_string())?
        }
        None => Suite::from_json(SUITE, "the built-in concepts")?,
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
    fn estimator(
        &mut self,
        file: &Path,
        suite: &Suite,
        searching: &mut Comparison<'_>,
        scoring: &mut Comparison<'_>,
        lines: &mut Lines<'_>,
    ) -> Result<()> {
        let explanations = Explanations::load(file)?;
        explanations.check_size(self.dictionary.n_features()).map_err(|e| e.context(file.display()))?;
        let estimator = explanations.header().estimator.name();
        let mut ratios: [Vec<f64>; 3] = Default::default();
        for concept in &suite.concepts {
            let chosen = self.choose(&explanations, concept, searching, lines)?;
            let plan = match &chosen {
                Some((matches, strength)) => Some(self.steer(matches, *strength)?),
                None => None,
            };
            let made = self.report(estimator, concept, plan.as_ref(), scoring, lines)?;
            ratios.iter_mut().zip(made).for_each(|(all, ratio)| all.push(ratio));
            if let (Some((matches, strength)), "data") = (&chosen, estimator) {
                let plan = self.random(matches, *strength)?;
                self.report("random", concept, Some(&plan), scoring, lines)?;
            }
        }
        for (what, ratios) in ["gain", "perplexity", "distinct"].into_iter().zip(ratios) {
            let ratio = median(&ratios);
            let (case, model) = (format!("{what}/{estimator}/median"), self.model.clone());
            let n = ratios.len();
            lines.push(Line {
                bench: "concepts",
                case,
                model,
                value: ratio,
                unit: "ratio",
                baseline: 1.0,
                ratio,
                n,
            })?;
        }
        Ok(())
    }

    /// The features of a concept and the strength that the search finds; `None` if there is none.
    fn choose(
        &self,
        explanations: &Explanations,
        concept: &Concept,
        searching: &mut Comparison<'_>,
        lines: &Lines<'_>,
    ) -> Result<Option<(Vec<Match>, f32)>> {
        let words = concept.words.join(" ");
        let chosen = match self.args.rank {
            Rank::Words => open::choose(explanations, &words, self.args.features, lines.out),
            Rank::Output => {
                let (n, dictionary) = (self.args.features, &self.dictionary);
                open::choose_by_output(searching.engine(), dictionary, explanations, &words, n, lines.out)
            }
        };
        let matches = match chosen {
            Ok(matches) => matches,
            Err(error) if error.kind() == Kind::Unsupported => {
                lines.out.note(format!("{}: {error}", concept.name));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bar = lines.out.bar(&format!("{} strength", concept.name), "trials");
        let target = wanted(&words, &matches);
        let found =
            searching.search(&self.search, &target, &|s| self.steer(&matches, s), &mut |step| bar.step(step))?;
        drop(bar);
        self.tell(concept, &matches, &found, lines);
        Ok(found.best.map(|best| (matches, best.strength)))
    }

    /// Tells people what was chosen.
    fn tell(&self, concept: &Concept, matches: &[Match], found: &Found, lines: &Lines<'_>) {
        let mut text = format!("{}:", concept.name);
        for m in matches {
            let words: Vec<&str> = m.words.iter().take(5).map(|(word, _)| word.as_str()).collect();
            text += &format!(" {} ({})", m.feature, words.join(" "));
        }
        match &found.best {
            Some(best) => text += &format!(" at {:.2}", best.strength),
            None => text += "; no strength leaves the text fluent",
        }
        lines.out.note(text);
    }

    fn compile(&self, rule: Rule) -> Result<Arc<Compiled>> {
        let given = [("d", self.dictionary.clone())];
        Ok(Arc::new(Plan::new([rule]).compile(&given, self.n_layer, self.d_model, Route::Auto)?))
    }

    fn steer(&self, matches: &[Match], strength: f32) -> Result<Arc<Compiled>> {
        let features = matches.iter().map(open::feature);
        self.compile(Rule::new(Op::MinClamp, features, Some(Strength::activation(strength))))
    }

    /// Random features, as many, each raised to a vector of the same length as its counterpart. Features that hardly ever
    /// fire are not drawn.
    fn random(&self, matches: &[Match], strength: f32) -> Result<Arc<Compiled>> {
        let d = &self.dictionary;
        let fires = |i: u32| d.stats(i as usize).is_none_or(|s| s.density > 1e-4 && s.density < 0.1);
        let mut random = rng(u64::from(matches.first().map_or(0, |m| m.feature)));
        let mut features: Vec<Feature> = Vec::new();
        for m in matches {
            let mut draws = (0..10_000).map(|_| random.random_range(0..d.n_features() as u32));
            let taken = |id: u32| matches.iter().any(|m| m.feature == id) || features.iter().any(|f| f.id == id);
            let id = draws.find(|&id| fires(id) && !taken(id));
            let id = id.ok_or_else(|| Error::unsupported("the dictionary has no other features that fire"))?;
            let mean = d.stats(m.feature as usize).map_or(1.0, |s| s.mean);
            let length = strength * m.weight * mean * d.decoder_norm(m.feature as usize);
            features.push(Feature { id, weight: length / d.decoder_norm(id as usize) });
        }
        self.compile(Rule::new(Op::MinClamp, features, Some(Strength::raw(1.0))))
    }

    /// Writes under `plan` and reports gain, perplexity and distinct pairs, as ratios.
    fn report(
        &mut self,
        estimator: &str,
        concept: &Concept,
        plan: Option<&Arc<Compiled>>,
        scoring: &mut Comparison<'_>,
        lines: &mut Lines<'_>,
    ) -> Result<[f64; 3]> {
        let steered = match plan {
            Some(plan) => scoring.steered(plan)?,
            None => scoring.unsteered().to_vec(),
        };
        let unsteered = Tally::of(scoring.unsteered(), &concept.held_out);
        let with = Tally::of(&steered, &concept.held_out);
        self.keep(estimator, concept, &steered)?;
        let all = [
            ("gain", with.per_100(), unsteered.per_100(), "held-out words per 100 tokens"),
            ("perplexity", with.perplexity(), unsteered.perplexity(), "perplexity"),
            ("distinct", with.distinct(), unsteered.distinct(), "share of word pairs"),
        ];
        for (what, value, baseline, unit) in all {
            let case = format!("{what}/{estimator}/{}", concept.name);
            let (model, ratio, n) = (self.model.clone(), value / baseline, steered.len());
            lines.push(Line { bench: "concepts", case, model, value, unit, baseline, ratio, n })?;
        }
        Ok(all.map(|(_, value, baseline, _)| value / baseline))
    }

    fn keep(&mut self, estimator: &str, concept: &Concept, texts: &[Continuation]) -> Result<()> {
        let (Some(file), Some(path)) = (&mut self.texts, &self.args.texts) else { return Ok(()) };
        for text in texts {
            let line =
                json!({"estimator": estimator, "concept": concept.name, "text": text.text, "tokens": text.n_tokens});
            writeln!(file, "{line}").map_err(|e| Error::io("write", Path::new(path), e))?;
        }
        Ok(())
    }
}
