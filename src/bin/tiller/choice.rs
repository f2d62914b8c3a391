//! From what a user asks for to a plan with its dictionaries, in one way for `run` and `plan`: a plan's file, learned features,
//! or features of dictionaries at a strength that is given or searched.

mod kept;
mod strength;

use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::{Engine, Generate};
use tiller::model::Model;
use tiller::plan::{Compiled, Op, Plan, Route};
use tiller::{Error, Result};

use crate::open;
use crate::output::Out;
use crate::plan::named_dictionary;
use crate::steer;
use crate::wish::{Chosen, Named, Wish};
use kept::Kept;
pub(crate) use strength::prompt_tokens;

/// What to steer by.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wanted {
    /// A dictionary: FILE, or NAME=FILE where there are several, also of several layers
    #[arg(long, value_name = "[NAME=]FILE")]
    pub(crate) dictionary: Vec<String>,
    /// Do this: learned features (FILE) or an instruction, which is learned at its first use and kept; :S multiplies its strength
    #[arg(long, value_name = "FILE|TEXT[:S]", conflicts_with_all = ["words", "prompted", "dictionary"])]
    pub(crate) steer: Vec<String>,
    /// Turn against this; as --steer
    #[arg(long, value_name = "FILE|TEXT[:S]", conflicts_with_all = ["words", "prompted", "dictionary"])]
    pub(crate) avoid: Vec<String>,
    #[command(flatten)]
    pub(crate) wish: Wish,
    /// How strongly, in the unit; auto searches the strength that speaks most of the words and stays fluent
    #[arg(long, default_value = "auto", value_name = "S|auto", allow_negative_numbers = true)]
    pub(crate) strength: String,
}

/// How the text will be written: a strength is searched for that.
#[derive(Clone, Debug)]
pub(crate) struct Writing<'a> {
    /// None for no one prompt.
    pub(crate) prompt: Option<&'a str>,
    pub(crate) chat: bool,
    pub(crate) generate: Generate,
}

/// What steers, and where it came from.
pub(crate) struct Choice {
    pub(crate) plan: Plan,
    pub(crate) compiled: Arc<Compiled>,
    /// The dictionaries that the plan names.
    pub(crate) dictionaries: Vec<Named>,
    /// Features that were chosen for a wish.
    pub(crate) chosen: Vec<Chosen>,
    /// Their strength.
    pub(crate) strength: Option<f32>,
}

impl Wanted {
    /// Whether anything steers.
    pub(crate) fn is_given(&self) -> bool {
        !(self.steer.is_empty() && self.avoid.is_empty()) || self.wish.is_given()
    }

    /// The dictionaries; with a model, they have to fit it.
    pub(crate) fn dictionaries(&self, model: Option<&Model>, out: &Out) -> Result<Vec<Named>> {
        let mut all: Vec<Named> = Vec::new();
        for (name, path) in self.dictionary.iter().map(|text| named_dictionary(text)) {
            if all.iter().any(|(known, ..)| *known == name) {
                return Err(Error::argument(format!("--dictionary: {name:?} names two dictionaries"))
                    .hinted("name each: --dictionary middle=FILE --dictionary upper=FILE"));
            }
            let dictionary = match model {
                Some(model) => open::dictionary(path, model, out)?,
                None => Arc::new(Dictionary::open(path)?),
            };
            all.push((name, dictionary, path.to_owned()));
        }
        Ok(all)
    }

    /// A strength that was given; none for `auto`.
    pub(crate) fn given_strength(&self) -> Result<Option<f32>> {
        match self.strength.as_str() {
            "auto" => Ok(None),
            text => {
                let number = text.parse().ok().filter(|s: &f32| s.is_finite());
                let wrong = || Error::argument(format!("--strength: expected a number or auto, found {text:?}"));
                number.map(Some).ok_or_else(wrong)
            }
        }
    }

    /// What these ask for, on the engine's model; none if nothing is asked for.
    pub(crate) fn choose(&self, engine: &mut Engine, writing: &Writing<'_>, out: &Out) -> Result<Option<Choice>> {
        if !(self.steer.is_empty() && self.avoid.is_empty()) {
            let steering = steer::resolve(engine, &self.steer, &self.avoid, out)?;
            return Choice::new(engine, steering.plan, steering.dictionaries).map(Some);
        }
        if !self.wish.is_given() {
            return match self.dictionary.first() {
                Some(_) => Err(Error::argument("--dictionary alone steers nothing: add --words, --prompted or --plan")),
                None => Ok(None),
            };
        }
        if self.dictionary.is_empty() {
            return Err(Error::argument("--words and --prompted need --dictionary FILE"));
        }
        let model = Model::open(engine.path())?;
        let dictionaries = self.dictionaries(Some(&model), out)?;
        let given = self.given_strength()?;
        let kept = Kept::of(self, writing, &model)?;
        let (chosen, strength) = match (given.is_none().then(|| kept.read()).flatten(), given) {
            (Some(known), _) => known,
            (None, given) => {
                let chosen = self.wish.choose(&dictionaries, Some(&mut *engine), out)?;
                match (given, self.wish.op) {
                    (Some(strength), _) => (chosen, strength),
                    (None, op) => {
                        let strength = match op {
                            Op::Ablate => 0.0,
                            _ => strength::search(&self.wish, writing, engine, (&dictionaries, &chosen), out)?,
                        };
                        if let Err(error) = kept.write(&chosen, strength) {
                            out.note(format!("warning: {}; the search is not kept", error.message()));
                        }
                        (chosen, strength)
                    }
                }
            }
        };
        let choice = Choice::new(engine, self.wish.plan(&chosen, strength), dictionaries)?;
        let strength = (self.wish.op != Op::Ablate).then_some(strength);
        Ok(Some(Choice { chosen, strength, ..choice }))
    }

    /// The files that these read.
    pub(crate) fn inputs(&self) -> Vec<PathBuf> {
        let dictionaries = self.dictionary.iter().map(|text| named_dictionary(text).1.to_owned());
        dictionaries.chain(self.wish.explanations.clone()).collect()
    }
}

impl Choice {
    /// A plan and the dictionaries that it names.
    pub(crate) fn new(engine: &Engine, plan: Plan, dictionaries: Vec<Named>) -> Result<Self> {
        let compiled = compile(engine, &plan, &dictionaries)?;
        Ok(Self { plan, compiled, dictionaries, chosen: Vec::new(), strength: None })
    }

    /// The plan in a file, with the dictionaries that are given.
    pub(crate) fn open(engine: &Engine, path: &Path, wanted: &Wanted, out: &Out) -> Result<Self> {
        let dictionaries = wanted.dictionaries(Some(&Model::open(engine.path())?), out)?;
        Self::new(engine, Plan::open(path)?, dictionaries)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "features": features_json(&self.chosen), "strength": self.strength, "plan": self.plan,
            "fingerprint": self.compiled.fingerprint,
        })
    }
}

/// Chosen features as JSON; of several dictionaries, each says which.
pub(crate) fn features_json(chosen: &[Chosen]) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for (name, matches) in chosen {
        all.extend(matches.iter().map(|m| {
            let mut json = crate::wish::feature_json(m);
            if !name.is_empty() {
                json["dictionary"] = name.as_str().into();
            }
            json
        }));
    }
    all
}

fn compile(engine: &Engine, plan: &Plan, dictionaries: &[Named]) -> Result<Arc<Compiled>> {
    let named: Vec<(&str, Arc<Dictionary>)> =
        dictionaries.iter().map(|(name, dictionary, _)| (name.as_str(), dictionary.clone())).collect();
    Ok(Arc::new(plan.compile(&named, &engine.target(), Route::Auto)?))
}
