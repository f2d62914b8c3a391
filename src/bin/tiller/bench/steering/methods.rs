//! What each method does to the prompts of a task.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use tiller::dictionary::Dictionary;
use tiller::engine::{Engine, Generate, Message};
use tiller::eval::concepts::{Continuation, Effect, Search, Tally, search_strength};
use tiller::eval::output::{self, Output};
use tiller::explain::{Explanations, Match};
use tiller::num::{norm, rng};
use tiller::plan::{Compiled, Feature, Op, Plan, Route, Rule, Selector, Strength};
use tiller::{Error, Result};

use super::super::{Args, TOKENS};
use super::Suite;
use super::learned::{Found, Shelf};
use super::prompts::{ask, other_talk, put};
use super::records::{Record, Text};
use super::tasks::{Setting, Task};
use crate::output::Out;
use crate::wish::turned;

/// Prompts that each random direction is tried on.
const NULL_PROMPTS: usize = 4;
/// Random directions side by side: their sequences and rules stay within what an engine and a plan hold.
const NULLS_AT_ONCE: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Unsteered,
    Asked,
    Words,
    Prompted,
    Delta,
    Constant,
    Gated,
    Learned,
    Both,
    Random,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unsteered => "unsteered",
            Self::Asked => "asked",
            Self::Words => "words",
            Self::Prompted => "prompted",
            Self::Delta => "delta",
            Self::Constant => "constant",
            Self::Gated => "gated",
            Self::Learned => "learned",
            Self::Both => "both",
            Self::Random => "random",
        }
    }
}

/// A model, and what was learned.
pub(super) struct Workbench<'a> {
    engine: Engine,
    /// Its fingerprint.
    model: String,
    dictionary: Option<(Arc<Dictionary>, Explanations)>,
    args: &'a Args,
    out: &'a Out,
    /// How texts are written: greedy, or as in a conversation.
    pub(super) sampling: Generate,
    pub(super) max_tokens: usize,
    /// Random directions that each task draws.
    nulls: usize,
    shelf: Shelf<'a>,
    /// Other talk, for [`Setting::Later`].
    talk: Vec<Message>,
}

/// A strength that was searched, its plan, and the seconds that took.
type Dose = (Option<f32>, Arc<Compiled>, f64);

impl<'a> Workbench<'a> {
    pub(super) fn new(
        engine: Engine,
        model: &str,
        dictionary: Option<(PathBuf, Arc<Dictionary>)>,
        args: &'a Args,
        (nulls, out): (usize, &'a Out),
    ) -> Result<Self> {
        let explained = |(path, dictionary): (PathBuf, Arc<Dictionary>)| {
            let file = args.explanations.first().cloned().unwrap_or_else(|| path.with_extension("jsonl"));
            Ok((dictionary, Explanations::load(&file)?))
        };
        let dictionary = dictionary.map(explained).transpose()?;
        Ok(Self {
            engine,
            model: model.to_owned(),
            dictionary,
            args,
            out,
            sampling: Generate::default(),
            max_tokens: TOKENS,
            nulls,
            shelf: Shelf::new(model, args.keep.as_deref(), args.machine.threads, out),
            talk: Vec::new(),
        })
    }

    pub(super) fn has_template(&self) -> bool {
        self.engine.chat(&[Message::user("Hi")], true).is_ok()
    }

    pub(super) fn methods(&self, suite: Suite) -> Vec<Method> {
        Method::of(suite, self.dictionary.is_some())
    }

    /// What `method` does on the prompts of a task; `None` where it has nothing to do it with.
    pub(super) fn measure(&mut self, task: &Task, setting: Setting, method: Method) -> Result<Option<Record>> {
        let prompts = task.prompts(setting).to_vec();
        let plain = self.prompts(&prompts, setting)?;
        let found = match method {
            Method::Unsteered => (None, None, 0.0),
            Method::Asked => {
                let asked = self.asked(task, setting)?;
                let (texts, ms) = self.write(None, &prompts, &asked, &plain)?;
                return Ok(Some(self.record(task, setting, method, (None, 0.0, ms), vec![texts])));
            }
            Method::Random => return self.random(task, setting, &prompts, &plain),
            Method::Constant => self.constant(task)?.map_or((None, None, f64::NAN), some),
            Method::Gated => self.gated(task)?.map_or((None, None, f64::NAN), some),
            Method::Learned => self.as_chosen(task)?.map_or((None, None, f64::NAN), some),
            Method::Both => self.both(task)?.map_or((None, None, f64::NAN), some),
            Method::Delta => self.delta(task, setting)?.map_or((None, None, f64::NAN), some),
            Method::Words => self.words(task, setting)?.map_or((None, None, f64::NAN), some),
            Method::Prompted => self.prompted(task, setting)?.map_or((None, None, f64::NAN), some),
        };
        let (strength, plan, seconds) = found;
        if plan.is_none() && method != Method::Unsteered {
            return Ok(None);
        }
        let (texts, ms) = self.write(plan.as_ref(), &prompts, &plain, &plain)?;
        Ok(Some(self.record(task, setting, method, (strength, seconds, ms), vec![texts])))
    }

    fn record(
        &self,
        task: &Task,
        setting: Setting,
        method: Method,
        (strength, seconds, ms): (Option<f32>, f64, f64),
        groups: Vec<Vec<Text>>,
    ) -> Record {
        Record {
            model: self.model.clone(),
            max_tokens: self.max_tokens,
            setting: setting.name().to_owned(),
            method: method.name().to_owned(),
            task: task.kept_as(method).to_owned(),
            strength,
            seconds,
            ms,
            groups,
        }
    }

    /// What the task's instruction does to the model; the reason if it does nothing.
    fn learn(&mut self, task: &Task) -> Result<Found> {
        self.shelf.get(&self.engine, &task.instruction)
    }

    fn prompts(&mut self, prompts: &[String], setting: Setting) -> Result<Vec<Vec<i32>>> {
        let talk = self.talk(setting)?;
        prompts.iter().map(|prompt| put(&self.engine, setting, &talk, prompt)).collect()
    }

    /// The prompts with the instruction, where the learner found that it does most.
    fn asked(&mut self, task: &Task, setting: Setting) -> Result<Vec<Vec<i32>>> {
        let place = self.learn(task)?.map_or_else(|_| "appended".to_owned(), |made| made.report.place.clone());
        let (told, talk) = (&task.instruction, self.talk(setting)?);
        task.prompts(setting).iter().map(|prompt| ask(&self.engine, setting, &talk, prompt, (told, &place))).collect()
    }

    /// What was talked of before the message; nothing but in [`Setting::Later`].
    fn talk(&mut self, setting: Setting) -> Result<Vec<Message>> {
        if setting != Setting::Later {
            return Ok(Vec::new());
        }
        if self.talk.is_empty() {
            self.talk = other_talk(&mut self.engine)?;
        }
        Ok(self.talk.clone())
    }

    fn compile(&self, plan: &Plan, dictionary: Option<&Arc<Dictionary>>) -> Result<Arc<Compiled>> {
        let named: Vec<(&str, Arc<Dictionary>)> = dictionary.map(|d| ("", d.clone())).into_iter().collect();
        Ok(Arc::new(plan.compile(&named, &self.engine.target(), Route::Auto)?))
    }

    /// The constant form at its own best strength.
    fn constant(&mut self, task: &Task) -> Result<Option<Dose>> {
        let Ok(made) = self.learn(task)? else { return Ok(None) };
        let Some(vector) = &made.vector else { return Ok(None) };
        let rules =
            vector.directions().iter().map(|(&layer, v)| Rule::vector(v.clone(), Strength::raw(1.0)).at_layer(layer));
        let plan = self.compile(&Plan::new(rules), None)?;
        Ok(Some((made.report.constant, plan, made.report.seconds)))
    }

    /// The form and the strength that the learner chose.
    fn as_chosen(&mut self, task: &Task) -> Result<Option<Dose>> {
        let Ok(made) = self.learn(task)? else { return Ok(None) };
        let plan = self.compile(&made.report.plan, Some(&made.dictionary))?;
        Ok(Some((Some(made.report.strength), plan, made.report.seconds)))
    }

    /// The task and its partner at once, each as the learner chose.
    fn both(&mut self, task: &Task) -> Result<Option<Dose>> {
        let Some(partner) = &task.partner else { return Ok(None) };
        let (Ok(own), Ok(other)) = (self.learn(task)?, self.learn(partner)?) else { return Ok(None) };
        let dictionaries = [("own", own.dictionary.clone()), ("other", other.dictionary.clone())];
        let rules = [(&own, "own"), (&other, "other")].map(|(made, name)| {
            let rules = made.report.plan.rules.iter().cloned();
            rules.map(|rule| rule.of(name)).collect::<Vec<_>>()
        });
        let plan = Plan::new(rules.concat()).compile(&dictionaries, &self.engine.target(), Route::Auto)?;
        Ok(Some((None, Arc::new(plan), 0.0)))
    }

    /// The gated form at its own best strength.
    fn gated(&mut self, task: &Task) -> Result<Option<Dose>> {
        let Ok(made) = self.learn(task)? else { return Ok(None) };
        let Some(strength) = made.report.gated else { return Ok(None) };
        let plan = Plan::new([Rule::all(Op::Amplify, Strength::raw(strength))]);
        let plan = self.compile(&plan, Some(&made.dictionary))?;
        Ok(Some((Some(strength), plan, made.report.seconds)))
    }

    /// The difference that asking makes at two thirds of the depth: increments of the layers up to there add up to it.
    fn delta(&mut self, task: &Task, setting: Setting) -> Result<Option<Dose>> {
        let Ok(made) = self.learn(task)? else { return Ok(None) };
        let Some(vector) = &made.vector else { return Ok(None) };
        let layer = (2 * self.engine.n_layer()) / 3;
        let mut sum = vec![0f32; self.engine.d_model()];
        for (_, direction) in vector.directions().range(..=layer) {
            sum.iter_mut().zip(direction).for_each(|(s, v)| *s += v);
        }
        if norm(&sum) == 0.0 {
            return Ok(None);
        }
        let strengths = vec![0.5, 1.0, 1.5, 2.5, 4.0];
        let plan = |bench: &Self, strength: f32| {
            let rule = Rule::vector(sum.clone(), Strength::raw(strength)).at_layer(layer);
            bench.compile(&Plan::new([rule]), None)
        };
        self.search(task, setting, strengths, &plan).map(Some)
    }

    /// Features of the dictionary by the concept's words.
    fn words(&mut self, task: &Task, setting: Setting) -> Result<Option<Dose>> {
        let start = Instant::now();
        let Some((dictionary, explanations)) = &self.dictionary else { return Ok(None) };
        let words: Vec<&str> = task.words.iter().map(String::as_str).collect();
        let (n, options) = (self.args.features, Output::default());
        let mut bar = self.out.bar(&task.name, "readings");
        let matches =
            output::choose(&mut self.engine, dictionary, explanations, &words, n, Some(&options), &mut |step| {
                bar.step(step)
            })?;
        drop(bar);
        let features = matches.iter().map(|m: &Match| Feature::new(m.feature, m.weight)).collect();
        self.features(task, setting, features, start)
    }

    /// Features of the dictionary that asking turns up and that do most of what it does.
    fn prompted(&mut self, task: &Task, setting: Setting) -> Result<Option<Dose>> {
        let start = Instant::now();
        let Some((dictionary, _)) = &self.dictionary else { return Ok(None) };
        let (told, dictionaries) = (&task.instruction, [dictionary.clone()]);
        let mut bar = self.out.bar(&task.name, "answers");
        let mut step = |step: tiller::progress::Step<'_>| bar.step(step);
        let turned = turned(&mut self.engine, told, &dictionaries, self.args.features, &mut step)?;
        drop(bar);
        let all = turned.into_iter().flatten().map(|turned| Feature::new(turned.feature, 1.0));
        self.features(task, setting, all.collect(), start)
    }

    /// Features of the dictionary at the strength that is best for them.
    fn features(
        &mut self,
        task: &Task,
        setting: Setting,
        features: Vec<Feature>,
        start: Instant,
    ) -> Result<Option<Dose>> {
        let Some((dictionary, _)) = self.dictionary.clone().filter(|_| !features.is_empty()) else { return Ok(None) };
        let plan = |bench: &Self, strength: f32| {
            let rule = Rule::new(Op::MinClamp, features.iter().cloned(), Strength::activation(strength));
            bench.compile(&Plan::new([rule]), Some(&dictionary))
        };
        let (strength, plan, _) = self.search(task, setting, Search::default().strengths, &plan)?;
        Ok(Some((strength, plan, start.elapsed().as_secs_f64())))
    }

    /// The strength that says most of the words that choose, and stays fluent, on prompts of its own; the weakest if none is.
    fn search(
        &mut self,
        task: &Task,
        setting: Setting,
        strengths: Vec<f32>,
        plan: &dyn Fn(&Self, f32) -> Result<Arc<Compiled>>,
    ) -> Result<Dose> {
        let start = Instant::now();
        let prompts = task.search_prompts(setting).to_vec();
        let tokens = self.prompts(&prompts, setting)?;
        let tally = |texts: Vec<Text>, usual| {
            Tally::beside(&texts.into_iter().map(continuation).collect::<Vec<_>>(), &task.words, usual)
        };
        let unsteered = tally(self.write(None, &prompts, &tokens, &tokens)?.0, None);
        let search = Search { strengths, ..Search::default() };
        let found = search_strength(&search, &mut |strength| {
            let plan = plan(self, strength)?;
            let texts = self.write(Some(&plan), &prompts, &tokens, &tokens)?.0;
            let steered = tally(texts, Some(unsteered.perplexity()));
            Ok(Effect::between(&steered, &unsteered))
        })?;
        let best = found.best.or(found.trials.first().copied());
        let strength = best.ok_or_else(|| Error::numeric("no strength could be tried"))?.strength;
        Ok((Some(strength), plan(self, strength)?, start.elapsed().as_secs_f64()))
    }

    /// This task's share of the random directions, each as long as the constant form's at every layer: each has sequences of
    /// its own.
    fn random(
        &mut self,
        task: &Task,
        setting: Setting,
        prompts: &[String],
        plain: &[Vec<i32>],
    ) -> Result<Option<Record>> {
        let Ok(made) = self.learn(task)? else { return Ok(None) };
        let Some(vector) = &made.vector else { return Ok(None) };
        let n = NULL_PROMPTS.min(prompts.len());
        // Every task draws others.
        let seed =
            task.name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()) & 0xffff_ffff);
        let (mut groups, mut all_ms) = (Vec::with_capacity(self.nulls), Vec::new());
        while groups.len() < self.nulls {
            let wave = NULLS_AT_ONCE.min(self.nulls - groups.len());
            let mut rules = Vec::new();
            for i in 0..wave {
                let mut rng = rng(seed + (groups.len() + i) as u64);
                let own = || Selector::default().include_first(true).sequences((i * n..(i + 1) * n).map(|s| s as i32));
                for (&layer, direction) in vector.directions() {
                    let random: Vec<f32> = direction.iter().map(|_| gauss(&mut rng)).collect();
                    let scale = norm(direction) / norm(&random).max(f32::MIN_POSITIVE);
                    rules.push(Rule::vector(random, Strength::raw(scale)).at_layer(layer).select(own()));
                }
            }
            let plan = self.compile(&Plan::new(rules), None)?;
            let texts: Vec<String> = prompts.iter().take(n).cycle().take(wave * n).cloned().collect();
            let tokens: Vec<Vec<i32>> = plain.iter().take(n).cycle().take(wave * n).cloned().collect();
            let (written, ms) = self.write(Some(&plan), &texts, &tokens, &tokens)?;
            groups.extend(written.chunks(n).map(<[Text]>::to_vec));
            all_ms.push(ms);
        }
        let ms = all_ms.iter().sum::<f64>() / all_ms.len() as f64;
        Ok(Some(self.record(task, setting, Method::Random, (None, 0.0, ms), groups)))
    }

    /// Goes on from `given` under a plan, side by side; the model without plan and instruction judges the texts behind `plain`.
    fn write(
        &mut self,
        plan: Option<&Arc<Compiled>>,
        prompts: &[String],
        given: &[Vec<i32>],
        plain: &[Vec<i32>],
    ) -> Result<(Vec<Text>, f64)> {
        let generate = Generate { max_tokens: self.max_tokens, ..self.sampling.clone() };
        self.engine.set_plan(plan.cloned())?;
        let start = Instant::now();
        let written = self.engine.generate_while(given, &generate, &mut || !crate::interrupt::asked());
        let seconds = start.elapsed().as_secs_f64();
        let hooked = self.engine.finish();
        self.engine.set_plan(None)?;
        let written = written?;
        hooked.ok()?;
        if crate::interrupt::asked() {
            return Err(Error::cancelled());
        }
        let mut texts = Vec::with_capacity(written.len());
        for ((made, plain), prompt) in written.iter().zip(plain).zip(prompts) {
            let tokens = made.tokens();
            let nll = match tokens {
                [] => 0.0,
                _ => self.engine.score(&[plain.as_slice(), tokens].concat(), plain.len())?.nll,
            };
            texts.push(Text { prompt: prompt.clone(), text: made.text().to_owned(), tokens: tokens.len(), nll });
        }
        let n: usize = texts.iter().map(|text| text.tokens).sum();
        Ok((texts, 1e3 * seconds / n.max(1) as f64))
    }
}

fn some((strength, plan, seconds): Dose) -> (Option<f32>, Option<Arc<Compiled>>, f64) {
    (strength, Some(plan), seconds)
}

pub(super) fn continuation(text: Text) -> Continuation {
    Continuation { text: text.text, n_tokens: text.tokens, nll: text.nll }
}

/// A number of the standard normal distribution (Box and Muller 1958).
fn gauss(rng: &mut impl Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random_range(f32::EPSILON..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}
