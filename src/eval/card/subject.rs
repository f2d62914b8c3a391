//! The plan that a card is about, with all that it names: opened, checked, compiled.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::report::File;
use super::request::Request;
use crate::dictionary::{Dictionary, Learned};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::explain::Explanations;
use crate::file::gguf::Gguf;
use crate::hook_point::HookPoint;
use crate::model::Model;
use crate::plan::{Compiled, Op, Plan, Route, Rule, Strength, Vector};

/// A plan and its dictionaries.
pub(super) struct Subject {
    pub(super) plan: Plan,
    pub(super) dictionaries: Vec<Assets>,
    pub(super) file: File,
    pub(super) notes: Vec<String>,
}

/// A dictionary with what is known of its features.
pub(super) struct Assets {
    pub(super) name: String,
    pub(super) dictionary: Arc<Dictionary>,
    pub(super) explanations: Option<Explanations>,
    pub(super) path: PathBuf,
}

impl Subject {
    pub(super) fn open(engine: &Engine, model: &Model, request: &Request) -> Result<Self> {
        let mut all =
            Self { plan: Plan::default(), dictionaries: Vec::new(), file: file(&request.plan), notes: Vec::new() };
        for named in &request.dictionaries {
            let explanations = named.explanations.as_deref();
            all.add(model, &named.name, &named.file, explanations)?;
        }
        let plan =
            if is_gguf(&request.plan)? { all.features(model, &request.plan)? } else { Plan::open(&request.plan)? };
        all.plan = if request.factor == 1.0 { plan } else { plan.scaled(request.factor) };
        all.file.fingerprint = all.compile(engine, &all.plan, Route::Auto)?.fingerprint.clone();
        Ok(all)
    }

    fn add(&mut self, model: &Model, name: &str, path: &Path, explanations: Option<&Path>) -> Result<()> {
        let dictionary = Dictionary::open(path)?;
        let checked = dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint());
        if let Some(doubt) = checked.map_err(|e| e.context(path.display()))? {
            self.notes.push(format!("{}: {doubt}", path.display()));
        }
        let beside = path.with_extension("jsonl");
        let beside =
            explanations.or_else(|| (!dictionary.is_layered() && beside.is_file()).then_some(beside.as_path()));
        let explanations = beside.map(Explanations::load).transpose()?;
        if let Some(explanations) = &explanations
            && let Some(doubt) = explanations.check(&dictionary).map_err(|e| e.context(path.display()))?
        {
            self.notes.push(doubt);
        }
        let (name, dictionary) = (name.to_owned(), Arc::new(dictionary));
        self.dictionaries.push(Assets { name, dictionary, explanations, path: path.to_owned() });
        Ok(())
    }

    /// The plan that uses a file of learned features, or a control vector, as it is.
    fn features(&mut self, model: &Model, path: &Path) -> Result<Plan> {
        if Gguf::open(path)?.str("general.architecture")? == "controlvector" {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            return Ok(Plan::new([Rule::vector(Vector::file(whole, 0), Strength::raw(1.0))]));
        }
        let name = if self.dictionaries.is_empty() { "" } else { "learned" };
        self.add(model, name, path, None)?;
        let dictionary = self.dictionaries.last().map(|assets| assets.dictionary.clone());
        let learned = dictionary.as_ref().and_then(|dictionary| dictionary.info().learned.as_ref());
        let learned = learned.ok_or_else(|| {
            Error::mismatch(format!("{}: expected a plan or learned features, found a dictionary", path.display()))
                .hinted("write a plan with `tiller plan --words \"…\"`, and give the dictionary with --dictionary")
        })?;
        let rule = Rule::learned(learned, 1.0);
        Ok(Plan::new([if name.is_empty() { rule } else { rule.of(name) }]))
    }

    pub(super) fn compile(&self, engine: &Engine, plan: &Plan, route: Route) -> Result<Arc<Compiled>> {
        let named: Vec<(&str, Arc<Dictionary>)> =
            self.dictionaries.iter().map(|a| (a.name.as_str(), a.dictionary.clone())).collect();
        Ok(Arc::new(plan.compile(&named, &engine.target(), route)?))
    }

    /// The same plan with other rules: paths in them lead where they led.
    pub(super) fn with(&self, rules: Vec<Rule>) -> Plan {
        let mut plan = self.plan.clone();
        plan.rules = rules;
        plan
    }

    /// The dictionary of a rule.
    pub(super) fn assets(&self, rule: &Rule) -> Option<&Assets> {
        match (&rule.dictionary, self.dictionaries.as_slice()) {
            _ if rule.vector.is_some() => None,
            (Some(name), all) => all.iter().find(|assets| assets.name == *name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// What a rule's dictionary was learned from.
    pub(super) fn learned(&self, rule: &Rule) -> Option<&Learned> {
        self.assets(rule)?.dictionary.info().learned.as_ref()
    }

    /// The plan with one rule for each place where a rule acts, and that place.
    pub(super) fn places(&self, engine: &Engine) -> Result<Vec<(Rule, HookPoint)>> {
        let mut all = Vec::new();
        for rule in &self.plan.rules {
            let points = |rule: &Rule| -> Result<Vec<HookPoint>> {
                let compiled = self.compile(engine, &self.with(vec![rule.clone()]), Route::Callback)?;
                Ok(compiled.points.keys().copied().collect())
            };
            let layered = self.assets(rule).filter(|assets| assets.dictionary.is_layered() && rule.features.is_all());
            if let Some(assets) = layered {
                for feature in 0..assets.dictionary.n_features() as u32 {
                    let one = Rule::new(rule.op, [feature], rule.strength);
                    let one = Rule { features: one.features, ..rule.clone() };
                    all.extend(points(&one)?.into_iter().map(|point| (one.clone(), point)));
                }
                continue;
            }
            for point in points(rule)? {
                let is_file = matches!(rule.vector, Some(Vector::File { .. }));
                let one = if is_file { rule.clone().at_layer(point.layer()) } else { rule.clone() };
                all.push((one, point));
            }
        }
        Ok(all)
    }

    /// A rule in words.
    pub(super) fn describe(&self, rule: &Rule) -> String {
        let strength = rule.strength.map_or_else(String::new, |s| {
            let unit = format!("{:?}", s.unit).to_lowercase();
            let factor = matches!(rule.op, Op::Scale | Op::Amplify) || unit == "raw";
            if factor { format!(" × {}", s.value) } else { format!(" × {} ({unit})", s.value) }
        });
        let what = match (&rule.vector, self.learned(rule)) {
            (Some(_), _) => "a direction".to_owned(),
            (None, Some(learned)) => format!("{:?}", learned.instruction),
            (None, None) if rule.features.is_all() => "all features".to_owned(),
            (None, None) => match rule.features.len() {
                1 => format!("feature {}", rule.features[0].id),
                n => format!("{n} features"),
            },
        };
        let gate = if rule.gate.is_some() { ", gated" } else { "" };
        format!("{} {what}{strength}{gate}", rule.op.name())
    }
}

fn is_gguf(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    crate::file::open(path)?.take(4).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    Ok(head == b"GGUF")
}

/// A file's place and length.
pub(super) fn file(path: &Path) -> File {
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    File { file: path.display().to_string(), bytes, ..File::default() }
}

/// SHA-256 of a file, in hex.
pub(super) fn digest(path: &Path) -> Result<String> {
    let (mut file, mut hash, mut buffer) = (crate::file::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io("read", path, e))? {
            0 => break,
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
