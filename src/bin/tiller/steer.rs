//! From what a user wants, in words or as files, to a plan: `--steer sea.gguf:1.5 --steer "write like a lawyer" --avoid code`.
//!
//! A file is used as it is; an instruction is learned at its first use and kept in the cache, under the model's fingerprint, the
//! text and the learner's version, so that the second use costs nothing.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tiller::choose::learn::{self, Outcome, Request};
use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::eval::trial;
use tiller::file::gguf::{GgmlType, Gguf};
use tiller::model::Model;
use tiller::plan::{Plan, Rule, Strength, Vector};
use tiller::{Error, Result};

use crate::fetch::cache_dir;
use crate::open::{self, Machine};
use crate::output::Out;
use crate::wish::Named;

/// A plan, and the dictionaries that it names.
#[derive(Default)]
pub(crate) struct Steering {
    /// One rule for each wish, in order.
    pub(crate) plan: Plan,
    /// By the names in the plan, with their files.
    pub(crate) dictionaries: Vec<Named>,
}

/// The plan that does what `steer` says and turns against what `avoid` says. A wish is the file of learned features or of a
/// control vector, or an instruction; behind a colon stands a factor of its strength.
pub(crate) fn resolve(engine: &Engine, steer: &[String], avoid: &[String], out: &Out) -> Result<Steering> {
    let model = Model::open(engine.path())?;
    let mut all = Steering::default();
    for (text, sign) in steer.iter().map(|text| (text, 1.0)).chain(avoid.iter().map(|text| (text, -1.0))) {
        let (what, factor) = split(text);
        let flag = if sign > 0.0 { "--steer" } else { "--avoid" };
        let rule =
            all.rule(engine, &model, what, sign * factor, out).map_err(|e| e.context(format!("{flag} {what:?}")))?;
        all.plan.rules.push(rule);
    }
    // A plan that speaks of one dictionary need not name it: it works with that file under any name.
    if let [only] = all.dictionaries.as_mut_slice() {
        only.0.clear();
        all.plan.rules.iter_mut().for_each(|rule| rule.dictionary = None);
    }
    Ok(all)
}

/// What is wished for, and how strongly.
pub(crate) fn split(text: &str) -> (&str, f32) {
    let factor = |(what, number): (&'_ str, &str)| {
        Some((what.len(), number.trim().parse().ok().filter(|f: &f32| f.is_finite())?))
    };
    match text.rsplit_once(':').and_then(factor) {
        Some((end, factor)) => (text[..end].trim(), factor),
        None => (text.trim(), 1.0),
    }
}

impl Steering {
    fn rule(&mut self, engine: &Engine, model: &Model, what: &str, factor: f32, out: &Out) -> Result<Rule> {
        let path = Path::new(what);
        let is_file = path.exists() || path.extension().is_some_and(|e| e == "gguf");
        if is_file && Gguf::open(path)?.str("general.architecture")? == "controlvector" {
            return Ok(Rule::vector(
                Vector::file(std::path::absolute(path).unwrap_or(path.into()), 0),
                Strength::raw(factor),
            ));
        }
        let (path, name) = match is_file {
            true => (path.to_owned(), path.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
            false => (learned(engine, model, what, factor < 0.0, out)?, what.to_owned()),
        };
        let dictionary = open::dictionary(&path, model, out)?;
        let Some(learned) = &dictionary.info().learned else {
            let error =
                Error::mismatch(format!("{}: expected features that were learned, found a dictionary", path.display()));
            return Err(error.hinted("name a concept of a dictionary with --dictionary FILE --words \"…\""));
        };
        if factor < 0.0 && learned.avoid.is_none() {
            out.note(format!(
                "warning: {}: how strongly it may be turned against was not measured; `tiller learn --avoid` does",
                path.display()
            ));
        }
        let rule = Rule::learned(learned, factor);
        let known = self.dictionaries.iter().find(|(.., known)| *known == path).map(|(name, ..)| name.clone());
        let name = match known {
            Some(name) => name,
            None => {
                let name = self.free_name(&name);
                self.dictionaries.push((name.clone(), dictionary, path));
                name
            }
        };
        Ok(rule.of(name))
    }

    /// A short name that no dictionary has yet, of letters, digits and lines: one that `--dictionary NAME=FILE` takes.
    fn free_name(&self, text: &str) -> String {
        let signs = |c: char| if c.is_alphanumeric() { c.to_lowercase().next().unwrap_or('-') } else { '-' };
        let name: String = text.chars().take(32).map(signs).collect();
        let name = name.trim_matches('-');
        let name = if name.is_empty() { "learned" } else { name };
        let taken = |name: &str| self.dictionaries.iter().any(|(taken, ..)| taken == name);
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }
}

/// The file of an instruction's features: from the cache, or learned now.
fn learned(engine: &Engine, model: &Model, what: &str, avoid: bool, out: &Out) -> Result<PathBuf> {
    let request = Request { avoid, ..Request::new(learn::instruction(what)) };
    request.check()?;
    let directory = cache_dir()?.join("learned");
    let path = directory.join(format!("{}.gguf", key(model, &request)));
    if path.is_file() && Dictionary::open(&path).is_ok() {
        return Ok(path);
    }
    std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
    out.note(format!("learning {:?}; the next time it is there at once", request.instruction));
    let made = learn(engine, request, out)?;
    let report = &made.report;
    out.note(format!(
        "learned: {} × {:.2}, {:.0} % of what asking does, perplexity {:.2}× (asked {:.2}×)",
        report.form,
        report.strength,
        100.0 * report.score.effect,
        report.score.perplexity,
        report.score.asked_perplexity
    ));
    if !report.fluent {
        out.note("warning: at every strength that was tried the text breaks more than without steering");
    }
    made.dictionary.save_gguf(&path, GgmlType::F32)?;
    Ok(path)
}

/// Learns for an engine's model, with an engine of its own: many answers side by side, of a copy that reads faster, while
/// the user's keeps what it has read.
pub(crate) fn learn(engine: &Engine, request: Request, out: &Out) -> Result<Outcome> {
    let machine = Machine { threads: engine.options().threads, gpu_layers: engine.options().gpu_layers };
    let copy = open::learner(engine.path(), None, &machine, out)?;
    let request = Request { counts_as: copy.as_ref().map(|_| engine.path().to_owned()), ..request };
    let mut own = machine.engine(copy.as_deref().unwrap_or(engine.path()), 0, trial::SEQUENCES)?;
    let mut bar = out.bar("learn", "answers");
    learn::learn(&mut own, &request, &mut |step| bar.step(step))
}

/// What features are kept under: all that decides what they are.
fn key(model: &Model, request: &Request) -> String {
    let mut hash = Sha256::new();
    for part in [model.fingerprint(), &learn::VERSION.to_string(), &serde_json::to_string(request).unwrap_or_default()]
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_stands_behind_the_last_colon() {
        assert_eq!(split("sea.gguf:1.5"), ("sea.gguf", 1.5));
        assert_eq!(split("write like a lawyer"), ("write like a lawyer", 1.0));
        assert_eq!(split("Answer so: short"), ("Answer so: short", 1.0));
        assert_eq!(split("Answer so: short:-0.5"), ("Answer so: short", -0.5));
        assert_eq!(split("x:inf"), ("x:inf", 1.0));
    }

    #[test]
    fn names_are_short_and_unique() {
        let mut all = Steering::default();
        assert_eq!(all.free_name("Talk about the sea."), "talk-about-the-sea");
        assert_eq!(all.free_name("…"), "learned");
        let parts = tiller::dictionary::Parts {
            d_model: 1,
            encoder: vec![1.0],
            decoder: vec![1.0],
            encoder_bias: vec![0.0],
            decoder_bias: vec![0.0],
            threshold: None,
            gate: None,
            stats: None,
            settings: tiller::dictionary::Settings::new(tiller::dictionary::Activation::Relu),
            info: tiller::dictionary::Info::default(),
        };
        let dictionary = std::sync::Arc::new(Dictionary::from_parts(parts).unwrap());
        all.dictionaries.push(("sea".into(), dictionary, PathBuf::new()));
        assert_eq!(all.free_name("Sea"), "sea-2");
    }
}
