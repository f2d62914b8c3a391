//! A wish that dictionaries fulfil: a concept in words, or an instruction that turns features, and what to do with them.

use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::choose::learn::instruction;
use tiller::choose::prompted::{self, Turned};
use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::eval::concepts::Search;
use tiller::eval::output::{self, Output};
use tiller::eval::trial;
use tiller::explain::{Explanations, Find, Match};
use tiller::plan::{Feature, Op, Plan, Rule, Strength, Unit};
use tiller::progress::Progress;
use tiller::{Error, Result};

use crate::output::Out;

/// How words become features and features rules.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wish {
    /// The concept, in words: "war army soldiers"
    #[arg(long, value_name = "WORDS")]
    pub(crate) words: Option<String>,
    /// In place of the words: the features that this instruction turns in the model's own answers and that bring them about,
    /// such as "Talk about the sea."
    #[arg(long, value_name = "TEXT", conflicts_with = "words")]
    pub(crate) prompted: Option<String>,
    /// What the dictionary's features mean; by default the file beside each dictionary that ends in .jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) explanations: Option<PathBuf>,
    /// How many features to steer, at most, of all dictionaries together
    #[arg(short = 'n', long, default_value_t = 6, value_name = "N")]
    pub(crate) features: usize,
    /// What ranks the features that mean the words
    #[arg(long, default_value = "output")]
    pub(crate) rank: Rank,
    /// What to do with them: min_clamp, add, add_active, clamp, scale, ablate, amplify, calibrate, calibrate_spread, max_clamp
    #[arg(long, default_value = "min_clamp", value_parser = op)]
    pub(crate) op: Op,
    /// What a strength of 1 is: activation (the feature's mean), raw, norm (the row's length)
    #[arg(long, default_value = "activation", value_parser = unit)]
    pub(crate) unit: Unit,
}

/// What ranks the features that mean the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rank {
    /// How much likelier the model finds the words when the feature is pushed
    Output,
    /// How well the feature's explanation fits the words
    Words,
}

fn op(text: &str) -> std::result::Result<Op, String> {
    let known = Op::ALL.iter().copied().find(|op| op.name() == text);
    known
        .ok_or_else(|| format!("expected one of {}", Op::ALL.iter().map(|op| op.name()).collect::<Vec<_>>().join(", ")))
}

fn unit(text: &str) -> std::result::Result<Unit, String> {
    match text {
        "raw" => Ok(Unit::Raw),
        "activation" => Ok(Unit::Activation),
        "norm" => Ok(Unit::Norm),
        _ => Err("expected raw, activation or norm".into()),
    }
}

/// A dictionary by the name that rules use, with its file.
pub(crate) type Named = (String, Arc<Dictionary>, PathBuf);

/// Features of one dictionary, by its name.
pub(crate) type Chosen = (String, Vec<Match>);

impl Wish {
    /// Whether there is one.
    pub(crate) fn is_given(&self) -> bool {
        self.words.is_some() || self.prompted.is_some()
    }

    /// The features of `dictionaries` that fulfil the wish, best first: by their explanations alone, by what they make `judge`
    /// say, or by what turns them.
    pub(crate) fn choose(&self, dictionaries: &[Named], judge: Option<&mut Engine>, out: &Out) -> Result<Vec<Chosen>> {
        match (&self.prompted, judge) {
            (Some(told), Some(engine)) => self.turned(told, dictionaries, engine, out),
            (Some(_), None) => Err(Error::argument("--prompted needs the model that is told: --model FILE")),
            (None, judge) => self.meant(dictionaries, judge, out),
        }
    }

    /// The explanations of a dictionary, or those that are given without one.
    fn explanations(&self, named: Option<&Named>, out: &Out) -> Result<Explanations> {
        let path = match (&self.explanations, named) {
            (Some(path), _) => path.clone(),
            (None, Some((.., file))) => file.with_extension("jsonl"),
            (None, None) => return Err(Error::argument("--words needs --explanations FILE")),
        };
        let explanations = Explanations::load(&path)?;
        if let Some((_, dictionary, _)) = named {
            let doubt = explanations.check(dictionary).map_err(|e| e.context(path.display()))?;
            if let Some(doubt) = doubt {
                out.note(format!("warning: {}: {doubt}", path.display()));
            }
        }
        Ok(explanations)
    }

    /// Features that mean the words.
    fn meant(&self, dictionaries: &[Named], mut judge: Option<&mut Engine>, out: &Out) -> Result<Vec<Chosen>> {
        let words = self.words.as_deref().unwrap_or_default();
        if self.explanations.is_some() && dictionaries.len() > 1 {
            return Err(Error::argument("--explanations are of one dictionary, found several --dictionary"));
        }
        let mut all = Vec::new();
        let mut nothing = None;
        for named in dictionaries.iter().map(Some).chain(dictionaries.is_empty().then_some(None)) {
            let explanations = self.explanations(named, out)?;
            let found = match (&mut judge, named) {
                (Some(engine), Some((_, dictionary, _))) if self.rank == Rank::Output => {
                    choose_by_output(engine, dictionary, &explanations, words, self.features, out)
                }
                _ => choose(&explanations, words, self.features, out),
            };
            match found {
                Ok(found) => all.push((named.map_or_else(String::new, |(name, ..)| name.clone()), found)),
                // Of several dictionaries, one may have nothing.
                Err(error) if error.kind() == tiller::Kind::Unsupported => nothing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match nothing {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(best(all, self.features)),
        }
    }

    /// Features that the instruction turns; those without explanations have no words.
    fn turned(&self, told: &str, dictionaries: &[Named], engine: &mut Engine, out: &Out) -> Result<Vec<Chosen>> {
        if dictionaries.is_empty() {
            return Err(Error::argument("--prompted needs --dictionary FILE"));
        }
        let all: Vec<Arc<Dictionary>> = dictionaries.iter().map(|(_, dictionary, _)| dictionary.clone()).collect();
        let mut bar = out.bar("answers", "steps");
        let turned = turned(engine, told, &all, self.features, &mut |step| bar.step(step))?;
        drop(bar);
        let mut chosen = Vec::with_capacity(dictionaries.len());
        for (named, turned) in dictionaries.iter().zip(turned) {
            let explanations = match named.2.with_extension("jsonl").is_file() || self.explanations.is_some() {
                true => Some(self.explanations(Some(named), out)?),
                false => None,
            };
            let found = turned.iter().map(|turned| {
                let known = explanations.as_ref().and_then(|all| all.get(turned.feature));
                Match { score: turned.change, lift: turned.lift, ..Match::of(turned.feature, known) }
            });
            chosen.push((named.0.clone(), found.collect()));
        }
        match chosen.iter().all(|(_, matches): &Chosen| matches.is_empty()) {
            true => Err(Error::unsupported(format!("no feature of the dictionaries does what {told:?} does"))
                .hinted(learn_it(told, Some(engine.path())))),
            false => Ok(chosen),
        }
    }

    /// What a search for the strength counts.
    pub(crate) fn wanted(&self, chosen: &[Chosen]) -> Vec<String> {
        let matches: Vec<Match> = chosen.iter().flat_map(|(_, matches)| matches.iter().cloned()).collect();
        trial::wanted(self.words.as_deref().unwrap_or_default(), &matches)
    }

    /// The wish as it was written.
    pub(crate) fn text(&self) -> &str {
        self.prompted.as_deref().or(self.words.as_deref()).unwrap_or_default()
    }

    /// The plan that steers the chosen features with `strength`: a rule for each dictionary.
    pub(crate) fn plan(&self, chosen: &[Chosen], strength: f32) -> Plan {
        let strength = match self.op {
            Op::Ablate => None,
            Op::Scale | Op::Amplify => Some(Strength::raw(strength)),
            _ => Some(Strength::new(strength, self.unit)),
        };
        // Of what is taken away, a feature that matters less does not lose more.
        let feature = |m: &Match| Feature::new(m.feature, if self.suppresses() { 1.0 } else { m.weight });
        let rule = |(name, matches): &Chosen| {
            let mut rule = Rule::new(self.op, matches.iter().map(feature), strength);
            rule.note = Some(self.text().to_owned());
            if name.is_empty() { rule } else { rule.of(name) }
        };
        Plan::new(chosen.iter().filter(|(_, matches)| !matches.is_empty()).map(rule))
    }

    /// Whether the operator makes the model speak less of the words.
    pub(crate) fn suppresses(&self) -> bool {
        matches!(self.op, Op::Ablate | Op::MaxClamp)
    }

    /// The strengths of a search, from one that hardly acts to the strongest; and what each is in the rule.
    pub(crate) fn search(&self) -> (Search, fn(f32) -> f32) {
        let quick = trial::quick();
        match self.op {
            // The cap falls from the usual activation to none.
            Op::MaxClamp => (Search { strengths: vec![0.25, 0.5, 0.75, 1.0], suppress: true, ..quick }, |t| 1.0 - t),
            // A factor of 1 does nothing.
            Op::Scale => (quick, |t| 1.0 + t),
            _ => (quick, |t| t),
        }
    }
}

/// The `n` features of dictionaries that an instruction turns and that do most of what it does.
pub(crate) fn turned(
    engine: &mut Engine,
    told: &str,
    dictionaries: &[Arc<Dictionary>],
    n: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Turned>>> {
    let density = Find::default().max_density;
    let pairs = prompted::pairs(engine, told, prompted::ANSWERS, prompted::MAX_TOKENS, progress)?;
    let turned = prompted::turned(engine, dictionaries, &pairs, density, progress)?;
    prompted::acting(engine, dictionaries, &pairs, &turned, n, progress)
}

/// The best `n` of several dictionaries' features, by what each makes likelier; features share a push as those of one do.
fn best(mut all: Vec<Chosen>, n: usize) -> Vec<Chosen> {
    let lift = |m: &Match| m.lift.unwrap_or(m.score);
    let squares = |matches: &[Match]| matches.iter().map(|m| lift(m).powi(2)).sum::<f32>().sqrt();
    let own: Vec<f32> = all.iter().map(|(_, matches)| squares(matches)).collect();
    let mut lifts: Vec<f32> = all.iter().flat_map(|(_, matches)| matches.iter().map(lift)).collect();
    if all.len() < 2 || lifts.is_empty() {
        return all;
    }
    lifts.sort_by(|a, b| b.total_cmp(a));
    let least = lifts[n.clamp(1, lifts.len()) - 1];
    all.iter_mut().for_each(|(_, matches)| matches.retain(|m| lift(m) >= least));
    let together = all.iter().map(|(_, matches)| squares(matches).powi(2)).sum::<f32>().sqrt();
    for ((_, matches), own) in all.iter_mut().zip(own) {
        matches.iter_mut().for_each(|m| m.weight *= own / together.max(f32::MIN_POSITIVE));
    }
    all
}

/// The `n` features that mean all of `words`, best first.
pub(crate) fn choose(explanations: &Explanations, words: &str, n: usize, out: &Out) -> Result<Vec<Match>> {
    let words = known(explanations, words, out);
    some_feature(explanations.find(&words, n)?, &words, None)
}

/// The words one by one, with a warning about those that no explanation holds.
fn known<'w>(explanations: &Explanations, words: &'w str, out: &Out) -> Vec<&'w str> {
    let words: Vec<&str> = words.split_whitespace().collect();
    for word in explanations.unknown_words(&words) {
        let near = explanations.suggestions(&word, 3);
        let near = if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) };
        out.note(format!("warning: no feature is explained by {word}{near}"));
    }
    words
}

fn some_feature(found: Vec<Match>, words: &[&str], model: Option<&Path>) -> Result<Vec<Match>> {
    if found.is_empty() {
        let words = words.join(" ");
        let what = format!("no feature means {words:?}: the explanations hold none of these words");
        return Err(Error::unsupported(what).hinted(learn_it(&words, model)));
    }
    Ok(found)
}

/// What helps where a dictionary has nothing for the words.
pub(crate) fn learn_it(words: &str, model: Option<&Path>) -> String {
    let model = model.map_or_else(|| "MODEL".into(), |path| path.display().to_string());
    format!("learn it: tiller learn {model} {:?} --out learned.gguf", instruction(words))
}

/// The `n` features that mean all of `words` and make the model say them most, best first.
fn choose_by_output(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    explanations: &Explanations,
    words: &str,
    n: usize,
    out: &Out,
) -> Result<Vec<Match>> {
    let words = known(explanations, words, out);
    let mut bar = out.bar("output scores", "readings");
    let options = Output::default();
    let found =
        output::choose(engine, dictionary, explanations, &words, n, Some(&options), &mut |step| bar.step(step))?;
    drop(bar);
    let found = some_feature(found, &words, Some(engine.path()))?;
    if found.iter().any(|m| m.lift.is_none()) {
        let what = format!("no feature that means {:?} makes the model say it", words.join(" "));
        let hint = format!(
            "{}; or take the features all the same: --rank words",
            learn_it(&words.join(" "), Some(engine.path()))
        );
        return Err(Error::unsupported(what).hinted(hint));
    }
    Ok(found)
}

/// The chosen features as a table.
pub(crate) fn features_table(chosen: &[Chosen], out: &Out) -> Result<()> {
    let several = chosen.len() > 1;
    let columns: Vec<&str> = several.then_some("dictionary").into_iter().chain(FEATURES).collect();
    let row = |(name, m): (&String, &Match)| {
        several.then(|| name.clone()).into_iter().chain(feature_row(m)).collect::<Vec<_>>()
    };
    out.table(&columns, chosen.iter().flat_map(|(name, matches)| matches.iter().map(move |m| row((name, m)))))
}

/// The columns of [`feature_row`].
const FEATURES: [&str; 6] = ["feature", "score", "lift", "fires on", "mean", "words"];

/// One feature as a row of a table.
fn feature_row(m: &Match) -> Vec<String> {
    let words: Vec<&str> = m.words.iter().take(10).map(|(word, _)| word.as_str()).collect();
    let words = words.join(" ");
    vec![
        m.feature.to_string(),
        format!("{:.3}", m.score),
        m.lift.map_or_else(String::new, |lift| format!("{lift:.2}")),
        m.density.map_or_else(String::new, |d| format!("{:.2} %", 100.0 * d)),
        m.mean.map_or_else(String::new, |mean| format!("{mean:.2}")),
        m.label.as_ref().map_or(words.clone(), |label| format!("[{label}] {words}")),
    ]
}

/// One feature as JSON.
pub(crate) fn feature_json(m: &Match) -> serde_json::Value {
    serde_json::json!({
        "feature": m.feature, "score": m.score, "weight": m.weight, "matched": m.matched,
        "lift": m.lift, "density": m.density, "mean": m.mean, "label": m.label, "words": m.words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_features_of_several_dictionaries_share_one_push() {
        let lifted = |feature, lift: f32, weight| Match { lift: Some(lift), weight, ..Match::of(feature, None) };
        // As one dictionary weighs them: by the lift over the root of the sum of squares.
        let one = ("a".to_owned(), vec![lifted(1, 4.0, 0.8), lifted(2, 3.0, 0.6)]);
        let other = ("b".to_owned(), vec![lifted(7, 12.0, 12.0 / 148f32.sqrt()), lifted(8, 2.0, 2.0 / 148f32.sqrt())]);
        let best = best(vec![one.clone(), other], 3);
        assert_eq!(best.iter().map(|(_, matches)| matches.len()).collect::<Vec<_>>(), [2, 1]);
        let weights: Vec<f32> = best.iter().flat_map(|(_, matches)| matches.iter().map(|m| m.weight)).collect();
        assert!(weights.iter().zip([4.0, 3.0, 12.0]).all(|(w, lift)| (w - lift / 13.0).abs() < 1e-6), "{weights:?}");
        assert_eq!(super::best(vec![one.clone()], 1), [one]);
    }
}
