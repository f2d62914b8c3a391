//! What steers a chat: plans, control vectors and words, each with its strength, and one strength over all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::model::Model;
use tiller::plan::{Compiled, Op, Plan, Route, Rule, Strength, Unit, Vector};
use tiller::{Error, Result};

use crate::open::{self, Rank, Wish};
use crate::output::Out;
use crate::plan::named_dictionary;

/// What steers.
pub(super) struct Lever {
    dictionaries: Vec<(String, PathBuf, Arc<Dictionary>)>,
    explanations: Option<PathBuf>,
    parts: Vec<Part>,
    /// Multiplies the strength of every part.
    pub(super) strength: f32,
}

/// What one request made.
struct Part {
    /// The request in words.
    what: String,
    plan: Plan,
}

impl Lever {
    /// Opens the dictionaries `FILE` or `NAME=FILE`.
    pub(super) fn open(model: &Path, given: &[String], explanations: Option<PathBuf>, out: &Out) -> Result<Self> {
        let mut dictionaries = Vec::with_capacity(given.len());
        if !given.is_empty() {
            let opened = Model::open(model)?;
            for (name, path) in given.iter().map(|text| named_dictionary(text)) {
                dictionaries.push((name, path.to_owned(), open::dictionary(path, &opened, out)?));
            }
        }
        Ok(Self { dictionaries, explanations, parts: Vec::new(), strength: 1.0 })
    }

    /// Takes a plan's rules in place of all there were.
    pub(super) fn load(&mut self, path: &Path) -> Result<()> {
        self.parts = vec![Part { what: format!("the plan {}", path.display()), plan: opened(path)? }];
        self.strength = 1.0;
        Ok(())
    }

    /// Steers by nothing any more.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.strength = 1.0;
    }

    /// Adds what `request`, TEXT or FILE and a strength behind a colon, asks for; `avoid` turns it against that.
    ///
    /// This is the one place where a request becomes rules.
    pub(super) fn add(&mut self, request: &str, avoid: bool, engine: &mut Engine, out: &Out) -> Result<()> {
        let (text, strength) = split(request)?;
        let sign = if avoid { -1.0 } else { 1.0 };
        let plan = match Path::new(text) {
            path if is_a(path, "json") => {
                if avoid {
                    return Err(Error::argument(format!("{text}: a plan is followed or not, it cannot be avoided")));
                }
                scaled(&opened(path)?, strength.unwrap_or(1.0))
            }
            path if is_a(path, "gguf") => {
                let strength = Strength::raw(sign * strength.unwrap_or(1.0));
                Plan::new([Rule::vector(Vector::file(path, 0), strength)])
            }
            _ => self.words(text, strength, avoid, engine, out)?,
        };
        let what = format!("{}{request}", if avoid { "avoiding " } else { "" });
        self.parts.push(Part { what, plan });
        // What cannot be compiled is told now, and steers nothing.
        self.compile(engine).map(drop).inspect_err(|_| _ = self.parts.pop())
    }

    /// The features of the dictionary that mean words.
    fn words(&self, text: &str, strength: Option<f32>, avoid: bool, engine: &mut Engine, out: &Out) -> Result<Plan> {
        let [(name, path, dictionary)] = self.dictionaries.as_slice() else {
            let n = self.dictionaries.len();
            let what = format!("{text:?} is no file, and steering by words needs one --dictionary; found {n}");
            return Err(Error::argument(what).hinted("give the chat --dictionary FILE, or steer by a plan: /plan FILE"));
        };
        let op = match strength {
            Some(strength) if avoid && strength != 1.0 => Op::Scale,
            _ if avoid => Op::Ablate,
            _ => Op::MinClamp,
        };
        let wish = Wish {
            words: Some(text.to_owned()),
            explanations: self.explanations.clone(),
            features: 6,
            rank: if avoid { Rank::Words } else { Rank::Output },
            op,
            unit: Unit::Activation,
        };
        let plan = engine.plan().cloned();
        engine.set_plan(None)?;
        let matches = wish.choose(Some(path), Some(dictionary), Some(&mut *engine), out);
        engine.set_plan(plan)?;
        let matches = matches?;
        if !out.json() {
            open::features_table(&matches, out)?;
        }
        // Scaling by 1 − S takes the share S away.
        let strength = if avoid { 1.0 - strength.unwrap_or(1.0) } else { strength.unwrap_or(1.0) };
        let mut rule = wish.rule(&matches, strength);
        rule.dictionary = Some(name.clone()).filter(|name| !name.is_empty());
        Ok(Plan::new([rule]))
    }

    /// All rules, at the strength in force.
    pub(super) fn plan(&self) -> Plan {
        Plan::new(self.parts.iter().flat_map(|part| scaled(&part.plan, self.strength).rules))
    }

    /// The plan, ready for the engine; `None` if nothing steers.
    pub(super) fn compile(&self, engine: &Engine) -> Result<Option<Arc<Compiled>>> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        let named: Vec<(&str, Arc<Dictionary>)> =
            self.dictionaries.iter().map(|(name, _, dictionary)| (name.as_str(), dictionary.clone())).collect();
        Ok(Some(Arc::new(self.plan().compile(&named, &engine.target(), Route::Auto)?)))
    }

    /// What steers, in words.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.what.as_str()).collect()
    }
}

/// TEXT and S of `TEXT:S`. A colon with no number behind it belongs to the text.
fn split(request: &str) -> Result<(&str, Option<f32>)> {
    let request = request.trim();
    let (text, strength) = match request.rsplit_once(':').and_then(|(text, s)| Some((text, s.trim().parse().ok()?))) {
        Some((text, strength)) => (text.trim(), Some(strength)),
        None => (request, None),
    };
    if strength.is_some_and(|s: f32| !s.is_finite()) {
        return Err(Error::argument(format!("{request}: expected a finite strength behind the colon")));
    }
    if text.is_empty() {
        return Err(Error::argument("expected what to steer by: words, or a file"));
    }
    Ok((text, strength))
}

/// The plan in a file. Its paths lead from here as they did from its directory: several plans become one.
fn opened(path: &Path) -> Result<Plan> {
    let mut plan = Plan::open(path)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    for rule in &mut plan.rules {
        if let Some(Vector::File { file, .. }) = &mut rule.vector {
            *file = directory.join(&*file);
        }
        if let Some(file) = &mut rule.propagate {
            *file = directory.join(&*file);
        }
    }
    // Without the directory that the paths now hold.
    Ok(Plan::new(plan.rules))
}

/// A file with this ending: one that is there, or a path that no words would be.
fn is_a(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending)) && !path.to_string_lossy().contains(' ')
        || path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending))
}

/// The plan with every strength times `by`. Of `scale`, which leaves a feature alone at 1, the distance from there grows.
fn scaled(plan: &Plan, by: f32) -> Plan {
    let mut plan = plan.clone();
    for rule in &mut plan.rules {
        if let Some(strength) = &mut rule.strength {
            strength.value = if rule.op == Op::Scale { 1.0 + by * (strength.value - 1.0) } else { by * strength.value };
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_the_last_colon_is_the_strength() {
        for (request, expected) in [
            ("the sea", ("the sea", None)),
            ("the sea: 1.5", ("the sea", Some(1.5))),
            ("sea.gguf:-2", ("sea.gguf", Some(-2.0))),
            ("a:b", ("a:b", None)),
            ("C:\\sea.gguf:1", ("C:\\sea.gguf", Some(1.0))),
        ] {
            assert_eq!(split(request).unwrap(), expected, "{request}");
        }
        assert!(split(" :2").is_err() && split("sea:inf").is_err() && split("sea:nan").is_err());
    }

    #[test]
    fn scaling_by_nothing_leaves_features_alone() {
        let rule = |op, s: f32| Rule::new(op, [3], Strength::raw(s));
        let plan = Plan::new([rule(Op::MinClamp, 2.0), rule(Op::Scale, 0.2), Rule::new(Op::Ablate, [1], None)]);
        let value = |plan: &Plan, i: usize| plan.rules[i].strength.as_ref().map(|s| s.value);
        let (none, twice) = (scaled(&plan, 0.0), scaled(&plan, 2.0));
        assert_eq!((value(&none, 0), value(&none, 1)), (Some(0.0), Some(1.0)));
        assert_eq!((value(&twice, 0), value(&twice, 1), value(&twice, 2)), (Some(4.0), Some(-0.6), None));
    }
}
