//! What steers a chat: plans, learned features, control vectors and instructions, each with its strength, and one strength
//! over all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::model::Model;
use tiller::plan::{Compiled, Op, Plan, Route, Vector};
use tiller::{Error, Result};

use crate::open;
use crate::output::Out;
use crate::plan::named_dictionary;
use crate::steer;

/// What steers.
pub(super) struct Lever {
    /// By the names that rules use, with their files.
    dictionaries: Vec<(String, PathBuf, Arc<Dictionary>)>,
    /// The name of the only one that the user gave: a plan need not say it, also when others have come.
    only: Option<String>,
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
    pub(super) fn open(model: &Path, given: &[String], out: &Out) -> Result<Self> {
        let mut dictionaries = Vec::with_capacity(given.len());
        if !given.is_empty() {
            let opened = Model::open(model)?;
            for (name, path) in given.iter().map(|text| named_dictionary(text)) {
                dictionaries.push((name, path.to_owned(), open::dictionary(path, &opened, out)?));
            }
        }
        let only = match dictionaries.as_slice() {
            [(name, ..)] => Some(name.clone()),
            _ => None,
        };
        Ok(Self { dictionaries, only, parts: Vec::new(), strength: 1.0 })
    }

    /// Takes a plan's rules in place of all there were.
    pub(super) fn load(&mut self, path: &Path, engine: &Engine) -> Result<()> {
        let new = vec![Part { what: format!("the plan {}", path.display()), plan: opened(path)? }];
        let old = (std::mem::replace(&mut self.parts, new), std::mem::replace(&mut self.strength, 1.0));
        // What cannot be compiled changes nothing.
        self.compile(engine).map(drop).inspect_err(|_| (self.parts, self.strength) = old)
    }

    /// Steers by nothing any more.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.strength = 1.0;
    }

    /// Adds what `request`, TEXT or FILE and a strength behind a colon, asks for; `avoid` turns it against that. An
    /// instruction is learned at its first use, for which the engine steers by nothing.
    pub(super) fn add(&mut self, request: &str, avoid: bool, engine: &mut Engine, out: &Out) -> Result<()> {
        let (text, strength) = split(request)?;
        let what = format!("{}{request}", if avoid { "avoiding " } else { "" });
        let n_before = self.dictionaries.len();
        let plan = if is_plan(Path::new(text)) {
            if avoid {
                return Err(Error::argument(format!("{text}: a plan is followed or not, it cannot be avoided")));
            }
            scaled(&opened(Path::new(text))?, strength)
        } else {
            engine.set_plan(None)?;
            let (wish, none) = ([request.to_owned()], []);
            let made = if avoid {
                steer::resolve(engine, &none, &wish, out)?
            } else {
                steer::resolve(engine, &wish, &none, out)?
            };
            let mut plan = made.plan;
            for (name, dictionary, path) in made.dictionaries {
                let own = self.free_name();
                let rules = plan.rules.iter_mut();
                let named = |rule: &&mut tiller::plan::Rule| rule.dictionary.as_deref().unwrap_or_default() == name;
                rules.filter(|rule| rule.vector.is_none()).filter(named).for_each(|rule| {
                    rule.dictionary = Some(own.clone());
                });
                self.dictionaries.push((own, path, dictionary));
            }
            plan
        };
        self.parts.push(Part { what, plan });
        // What cannot be compiled is told now, and steers nothing.
        self.compile(engine).map(drop).inspect_err(|_| {
            self.parts.pop();
            self.dictionaries.truncate(n_before);
        })
    }

    /// A name that no dictionary has, and that `--dictionary NAME=FILE` takes.
    fn free_name(&self) -> String {
        let taken = |name: &String| self.dictionaries.iter().any(|(taken, ..)| taken == name);
        (1..).map(|n| format!("learned-{n}")).find(|name| !taken(name)).unwrap_or_default()
    }

    /// The dictionaries that the plan names, with their files.
    pub(super) fn named(&self) -> Vec<(&str, &Path)> {
        let plan = self.plan();
        let used = |name: &str| plan.rules.iter().any(|rule| rule.dictionary.as_deref() == Some(name));
        let all = self.dictionaries.iter().map(|(name, path, _)| (name.as_str(), path.as_path()));
        all.filter(|(name, _)| used(name)).collect()
    }

    /// All rules, at the strength in force.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.parts.iter().flat_map(|part| scaled(&part.plan, self.strength).rules));
        if self.dictionaries.len() > 1 {
            let unnamed = plan.rules.iter_mut().filter(|rule| rule.vector.is_none() && rule.dictionary.is_none());
            unnamed.for_each(|rule| rule.dictionary.clone_from(&self.only));
        }
        plan
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

    /// The features that steer, by dictionary.
    pub(super) fn features(&self) -> Vec<(Arc<Dictionary>, Vec<u32>)> {
        let mut all = Vec::new();
        for rule in self.parts.iter().flat_map(|part| &part.plan.rules).filter(|rule| rule.vector.is_none()) {
            let name = rule.dictionary.as_deref();
            let known = self.dictionaries.iter().find(|(known, ..)| name.is_none_or(|name| name == known));
            let Some((.., dictionary)) = known else { continue };
            let features = match rule.features.is_all() {
                true => (0..dictionary.n_features() as u32).collect(),
                false => rule.features.iter().map(|feature| feature.id).collect(),
            };
            all.push((dictionary.clone(), features));
        }
        all
    }

    /// What steers, in words.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.what.as_str()).collect()
    }
}

/// TEXT and S of `TEXT:S`. A colon with no number behind it belongs to the text.
fn split(request: &str) -> Result<(&str, f32)> {
    let (text, strength) = steer::split(request);
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

/// A file of JSON: one that is there, or a path that no words would be.
fn is_plan(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json") && (path.is_file() || !path.to_string_lossy().contains(' '))
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
    use tiller::plan::{Rule, Strength};

    use super::*;

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
