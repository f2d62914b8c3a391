//! From a plan and its dictionaries to what the hot path of each hook point needs.
//!
//! Every name, default and unit is resolved here, once: a rule becomes an [`Action`] with its own dense rows. Adds of any
//! number of features collapse to one vector. Cost: one pass over the rows of the features that are named, and a hash.

use super::apply::{Action, Change, Condition, Edit, PointOps};
use super::check::MAX_FEATURES;
use super::control_vector::ControlVector;
use super::encoder::Encoder;
use super::row::SequenceSet;
use super::rule::{Feature, Op, Rule, Unit, Vector};
use super::select::Rows;
use super::selector::{Gate, Scope, Selector, Sequences};
use super::target::Target;
use super::watch::{self, Bench, Judged, Watcher};
use super::{Plan, digest, propagate};
use crate::dictionary::{Dictionary, Normalization};
use crate::error::{Error, Result};
use crate::file::zeros;
use crate::hook_point::HookPoint;
use crate::num::{axpy, is_bearable, norm};
use crate::train::temporal::Temporal;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Which way a plan takes into the graph.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Route {
    /// Unconditional adds on layers from 1 become a control vector, unless another rule stands in front of them on their
    /// layer; everything else goes to the callback.
    #[default]
    Auto,
    /// Everything goes to the callback.
    Callback,
    /// Everything becomes a control vector; a rule that cannot is an error.
    ControlVector,
}

/// A plan, ready for the hot path.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the callback does, by hook point; points without rules are absent.
    pub points: BTreeMap<HookPoint, PointOps>,
    /// What the graph adds by itself.
    pub control_vector: Option<ControlVector>,
    /// What the plan's verdicts need.
    pub(super) bench: Arc<Bench>,
    /// SHA-256, in hex, of everything that decides what the plan does to the residual stream: two plans with equal
    /// fingerprints may share KV and prefix caches, whatever their names, notes, key order, dictionary files or route.
    pub fingerprint: String,
    /// What the caller should know, such as codes that are approximated; one sentence each, naming the rule.
    pub warnings: Vec<String>,
    /// Layers of the model that the plan was compiled for.
    pub n_layer: usize,
    /// Width of that model's residual stream.
    pub d_model: usize,
}

impl Compiled {
    /// The plan does nothing.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.control_vector.is_none()
    }

    /// Whether it has monitors.
    pub fn watches(&self) -> bool {
        self.points.values().any(|ops| !ops.watchers.is_empty())
    }
}

/// What is done at each hook point, in order.
type Actions = BTreeMap<HookPoint, Vec<Action>>;

/// What rules may refer to.
pub(super) struct World<'a> {
    dictionaries: &'a [(&'a str, Arc<Dictionary>)],
    n_layer: usize,
    pub(super) d_model: usize,
    encoders: Shared<Encoder>,
    decoders: Shared<Vec<f32>>,
    /// The plan's monitors.
    watchers: Vec<(HookPoint, Watcher)>,
}

/// What rules share that name the same features in the same order, by dictionary and features.
type Shared<T> = RefCell<HashMap<(*const Dictionary, Vec<u32>), Arc<T>>>;

impl Plan {
    /// Resolves the plan against dictionaries, by the names that its rules use, and a model.
    ///
    /// # Errors
    /// What [`Plan::check`] finds; [`Kind::Argument`](crate::Kind::Argument) for two dictionaries of one name;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a site that the architecture does not have;
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) for names, features, layers and widths that do not exist or do not fit, units
    /// of activation without statistics, and rules that a forced control vector cannot carry; what reading a vector's file
    /// gives. All name the plan's file and the rule.
    pub fn compile(&self, dictionaries: &[(&str, Arc<Dictionary>)], target: &Target, route: Route) -> Result<Compiled> {
        self.check()?;
        let mut names = HashSet::new();
        if let Some((name, _)) = dictionaries.iter().find(|(name, _)| !names.insert(name)) {
            return Err(Error::argument(format!("dictionaries: the name \"{name}\" is given twice")));
        }
        let (encoders, decoders) = (Shared::default(), Shared::default());
        let (n_layer, d_model) = (target.n_layer, target.d_model);
        let mut world = World { dictionaries, n_layer, d_model, encoders, decoders, watchers: Vec::new() };
        world.watchers = watch::watchers(&self.monitors, &world).map_err(|e| self.named(e))?;
        let mut actions = Actions::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let resolved = self.resolve_rule(index, rule, &world);
            let here = |e: Error| self.named(e.context(format!("rules[{index}]")));
            for (point, action) in resolved.map_err(here)? {
                target.check(point).map_err(here)?;
                actions.entry(point).or_default().push(action);
            }
        }
        let warnings = warnings(&actions, &world.watchers);
        let mut watchers = std::mem::take(&mut world.watchers);
        for (i, (point, _)) in watchers.iter().enumerate() {
            target.check(*point).map_err(|e| self.named(e.context(format!("monitors[{i}]"))))?;
        }
        let fingerprint = digest::fingerprint(&mut actions, &mut watchers);
        let (actions, control_vector) = self.route(actions, d_model, route).map_err(|e| self.named(e))?;
        let bench = Arc::new(Bench::of(&self.verdicts, &self.monitors, watchers.iter().map(|(_, watcher)| watcher)));
        let mut points = BTreeMap::new();
        let ops = |point| PointOps::new(point, d_model, bench.clone());
        for (point, actions) in actions {
            points.entry(point).or_insert_with(|| ops(point)).actions = actions;
        }
        for (point, watcher) in watchers {
            points.entry(point).or_insert_with(|| ops(point)).watchers.push(watcher);
        }
        Ok(Compiled { points, control_vector, bench, fingerprint, warnings, n_layer, d_model })
    }

    /// Moves into a control vector what `route` wants there.
    fn route(&self, mut actions: Actions, d_model: usize, route: Route) -> Result<(Actions, Option<ControlVector>)> {
        if route == Route::Callback {
            return Ok((actions, None));
        }
        let mut vector = ControlVector::new(d_model);
        for (&point, list) in &mut actions {
            let layer = point.layer();
            let possible = layer > 0 && point.resid_post().is_some();
            // The graph adds before the callback sees the row, so only adds at the head of the list keep their order.
            let fits = |a: &&Action| possible && self.rules[a.rule].is_unconditional_add() && a.edit.is_constant();
            let head = list.iter().take_while(fits).count();
            for action in list.drain(..head) {
                if let Edit::Constant(direction) = &action.edit {
                    vector.add(layer, direction).map_err(|e| e.context(format!("rules[{}]", action.rule)))?;
                }
            }
            if let (Route::ControlVector, Some(left)) = (route, list.first()) {
                return Err(self.not_a_control_vector(point, left));
            }
        }
        actions.retain(|_, list| !list.is_empty());
        let any = vector.layers().is_some();
        Ok((actions, any.then_some(vector)))
    }

    /// Why a rule cannot be carried by a control vector.
    fn not_a_control_vector(&self, point: HookPoint, action: &Action) -> Error {
        let index = action.rule;
        let rule = &self.rules[index];
        let why = match rule {
            _ if rule.op != Op::Add => format!("`{}` reads the row", rule.op.name()),
            _ if point.resid_post().is_none() => format!("it acts on `{}`", point.site().name()),
            _ if point.layer() == 0 => "it is on layer 0".into(),
            _ if rule.gate.is_some() => "it has a gate".into(),
            _ if rule.when.is_some() => "it has a condition".into(),
            _ if rule.norm_preserve => "it preserves the norm".into(),
            _ if rule.strength.is_some_and(|s| s.unit == Unit::Norm) => {
                "its strength is relative to the row's norm".into()
            }
            _ if matches!(action.edit, Edit::Normalized(..)) => "its dictionary normalises every row".into(),
            _ if rule.select.include_first == Some(false) => "it spares the first row".into(),
            _ => "it selects rows".into(),
        };
        Error::mismatch(format!(
            "rules[{index}]: a control vector carries only unconditional adds on layers from 1, and {why}; leave the route to the library"
        ))
    }

    /// The actions of one rule: one, or one a direction of a vector file.
    fn resolve_rule(&self, index: usize, rule: &Rule, world: &World) -> Result<Vec<(HookPoint, Action)>> {
        let edits = match &rule.vector {
            Some(vector) => self.vector_edits(rule, vector, world)?,
            None => {
                let temporal = rule.propagate.as_ref().map(|file| Temporal::open(&self.resolve(file)));
                let temporal = temporal.transpose().map_err(|e| e.context("propagate"))?;
                match &temporal {
                    Some(model) if model.features().is_empty() => vec![propagate::latents(rule, model, world)?],
                    model => feature_edits(rule, world, model.as_ref())?,
                }
            }
        };
        let constant = rule.is_unconditional_add() && edits.iter().all(|(_, edit)| edit.is_constant());
        let rows = rows(&rule.select, constant)?;
        let when = rule.when.as_ref().map(|when| Judged::of(when, &self.monitors));
        let mut actions = Vec::with_capacity(edits.len());
        for (point, edit) in edits {
            let condition = match &rule.gate {
                Some(gate) => Some(condition(gate, rule, point, world).map_err(|e| e.context("gate"))?),
                None => None,
            };
            if let Some(when) = &when {
                watch::check_order(rule, point, when, (&self.monitors, &world.watchers))?;
            }
            let norm_preserve = rule.norm_preserve || rule.op == Op::CalibrateSpread;
            let (rows, when) = (rows.clone(), when.clone());
            actions.push((point, Action { rule: index, identity: 0, rows, condition, when, edit, norm_preserve }));
        }
        Ok(actions)
    }

    /// What a rule on a plain direction adds, and where.
    fn vector_edits(&self, rule: &Rule, vector: &Vector, world: &World) -> Result<Vec<(HookPoint, Edit)>> {
        let strength = rule.strength.unwrap_or(super::Strength::raw(0.0));
        let edit = |layer: usize, direction: &[f32]| {
            world.check_layer(layer)?;
            let point = HookPoint::new(rule.hook.unwrap_or_default(), layer);
            if direction.len() != world.d_model {
                let (expected, found) = (world.d_model, direction.len());
                return Err(Error::mismatch(format!("vector: the model's width is {expected}, found {found} numbers")));
            }
            let mut scaled = vec![0.0; direction.len()];
            match strength.unit {
                Unit::Norm => {
                    axpy(1.0 / length(direction, "vector")?, direction, &mut scaled);
                    scaled.iter_mut().for_each(|v| *v *= strength.value);
                    Ok((point, Edit::Relative(finite(scaled)?)))
                }
                Unit::Raw | Unit::Activation => {
                    axpy(strength.value, direction, &mut scaled);
                    Ok((point, Edit::Constant(finite(scaled)?)))
                }
            }
        };
        match (vector, rule.layer) {
            (Vector::Values(values), Some(layer)) => Ok(vec![edit(layer, values)?]),
            (Vector::Values(_), None) => Err(Error::argument("layer: an inline vector needs one, found none")),
            (Vector::File { file, shift }, layer) => {
                let path = self.resolve(file);
                let file = ControlVector::open(&path)?;
                let mut edits = Vec::new();
                for (&from, direction) in file.directions() {
                    let to = i64::try_from(from).ok().and_then(|n| n.checked_add(i64::from(*shift)));
                    let to = to.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
                        Error::mismatch(format!("vector.shift: {shift} moves direction.{from} in front of layer 0"))
                    })?;
                    if layer.is_none_or(|layer| layer == to) {
                        edits.push(edit(to, direction).map_err(|e| e.context(path.display()))?);
                    }
                }
                match layer {
                    Some(layer) if edits.is_empty() => {
                        Err(Error::mismatch(format!("layer: {} has no direction for layer {layer}", path.display())))
                    }
                    _ => Ok(edits),
                }
            }
        }
    }
}

/// What a rule on features does, and where: at one hook point, or of learned features at the layer of each.
fn feature_edits(rule: &Rule, world: &World, temporal: Option<&Temporal>) -> Result<Vec<(HookPoint, Edit)>> {
    let (name, dictionary) = world.dictionary(rule.dictionary.as_deref())?;
    let all: Vec<Feature>;
    let features: &[Feature] = if rule.features.is_all() {
        let n = dictionary.n_features();
        if n > MAX_FEATURES {
            let what = format!("features: all of dictionary \"{name}\" are {n}, expected at most {MAX_FEATURES}");
            return Err(Error::mismatch(what));
        }
        all = (0..n as u32).map(Feature::from).collect();
        &all
    } else {
        &rule.features
    };
    let ids: Vec<u32> = features.iter().map(|f| f.id).collect();
    world.check_features(name, dictionary, &ids, "features")?;
    // A named feature may be added anywhere; all of a file act where they live.
    let named_place = rule.op == Op::Add && rule.layer.is_some() && !rule.features.is_all();
    if !dictionary.is_layered() || named_place {
        return Ok(vec![feature_edit(rule, features, (name, dictionary), world, temporal)?]);
    }
    if temporal.is_some() {
        return Err(Error::mismatch(format!(
            "propagate: the features of dictionary \"{name}\" live at several layers"
        )));
    }
    let mut by_layer: BTreeMap<usize, Vec<Feature>> = BTreeMap::new();
    for feature in features {
        let layer = dictionary.feature_layer(feature.id as usize).ok_or_else(|| {
            Error::mismatch(format!("features: dictionary \"{name}\" does not say the layer of feature {}", feature.id))
        })?;
        by_layer.entry(layer).or_default().push(*feature);
    }
    if let Some(layer) = rule.layer {
        let whole = by_layer.len();
        by_layer.retain(|at, _| *at == layer);
        if by_layer.is_empty() || (by_layer.len() < whole && !rule.features.is_all()) {
            let which = if rule.features.is_all() { "none of the features" } else { "not every feature of the rule" };
            return Err(Error::mismatch(format!("layer: {which} of dictionary \"{name}\" lives at layer {layer}")));
        }
    }
    let edit = |features: &Vec<Feature>| feature_edit(rule, features, (name, dictionary), world, None);
    by_layer.values().map(edit).collect()
}

/// What a rule does with features of one layer, and where.
fn feature_edit(
    rule: &Rule,
    features: &[Feature],
    (name, dictionary): (&str, &Arc<Dictionary>),
    world: &World,
    temporal: Option<&Temporal>,
) -> Result<(HookPoint, Edit)> {
    if rule.op != Op::Add {
        world.check_reads(name, dictionary, rule.op.name(), true)?;
    }
    // Where codes are read, and where directions are added: the same place, but for transcoders.
    let own = match features.first().filter(|_| dictionary.is_layered()) {
        Some(feature) => dictionary.feature_point(feature.id as usize),
        None if rule.op == Op::Add => dictionary.point_out(),
        None => dictionary.point(),
    };
    let Some(layer) = rule.layer.or(own.map(HookPoint::layer)) else {
        return Err(Error::mismatch(format!("layer: dictionary \"{name}\" does not say its layer, so the rule must")));
    };
    let site = rule.hook.or(own.map(HookPoint::site)).unwrap_or_default();
    let point = HookPoint::new(site, layer);
    // A direction may be added anywhere, but codes are only codes where the encoder was trained.
    if let Some(own) = own.filter(|own| *own != point && rule.op != Op::Add) {
        let op = rule.op.name();
        return Err(Error::mismatch(if own.site() == point.site() {
            format!("layer: `{op}` needs dictionary \"{name}\" on its layer {}, found {layer}", own.layer())
        } else {
            format!("hook: `{op}` needs dictionary \"{name}\" at its hook point {own}, found {point}")
        }));
    }
    world.check_layer(layer)?;
    let ids: Vec<u32> = features.iter().map(|f| f.id).collect();
    let d = world.d_model;
    let decoder = match temporal {
        Some(model) => {
            let mut decoder = zeros(ids.len() * d, "directions of a plan")?;
            propagate::directions(model, dictionary, &ids, &mut decoder)?;
            Arc::new(decoder)
        }
        None => world.decoder(dictionary, &ids)?,
    };
    let strength = rule.strength.unwrap_or(super::Strength::raw(0.0));
    let means = match strength.unit {
        Unit::Activation => means(name, dictionary, &ids, "strength.unit", "features")?,
        Unit::Raw | Unit::Norm => vec![1.0; ids.len()],
    };
    let mut strengths = Vec::with_capacity(ids.len());
    for (i, feature) in features.iter().enumerate() {
        let row = &decoder[i * d..][..d];
        let unit = match strength.unit {
            Unit::Norm => 1.0 / length(row, &format!("features[{i}]: the decoder row of feature {}", feature.id))?,
            Unit::Raw | Unit::Activation => means[i],
        };
        let s = strength.value * feature.weight;
        strengths.push(match rule.op {
            // A weight is a share of what a rule does: of a feature with less of it, less changes.
            Op::Scale => feature.weight * (strength.value - 1.0),
            Op::Ablate => -1.0,
            _ => s * unit,
        });
    }
    let strengths = finite(strengths)?;
    let relative = strength.unit == Unit::Norm;
    let change = match rule.op {
        Op::Add => {
            let mut sum = vec![0.0; d];
            // Where one unit of a code is the same in every row, any row tells it.
            let unit = if relative || !is_uniform(dictionary) { 1.0 } else { dictionary.undo(&sum).scale };
            decoder.chunks_exact(d).zip(&strengths).for_each(|(row, &s)| axpy(s * unit, row, &mut sum));
            let sum = finite(sum)?;
            return Ok((
                point,
                match relative {
                    true => Edit::Relative(sum),
                    false if is_uniform(dictionary) => Edit::Constant(sum),
                    false => Edit::Normalized(sum, dictionary.clone()),
                },
            ));
        }
        Op::AddActive => Change::ByIfActive,
        Op::Scale | Op::Amplify | Op::Ablate => Change::Times,
        Op::Clamp => Change::To,
        Op::MinClamp | Op::Calibrate => Change::AtLeast,
        Op::MaxClamp => Change::AtMost,
        Op::CalibrateSpread => Change::Spread,
    };
    let encoder = world.encoder(dictionary, &ids)?;
    Ok((point, Edit::Codes { encoder, decoder, change, strengths, relative }))
}

/// Which rows a selector takes, every default resolved; `constant`: the first row too, if it says nothing.
pub(super) fn rows(select: &Selector, constant: bool) -> Result<Rows> {
    Ok(Rows {
        phase: select.phase,
        from: position(select.from.unwrap_or(0)),
        to: select.to.map_or(i32::MAX, position),
        first: select.include_first.unwrap_or(constant),
        sequences: match &select.sequences {
            Sequences::All => None,
            Sequences::Only(ids) if ids.is_empty() => Some(SequenceSet::default()),
            Sequences::Only(ids) => Some(SequenceSet::of(ids.iter().copied()).ok_or_else(|| {
                Error::argument(format!("select.sequences: expected ids from 0 to 255, found {ids:?}"))
            })?),
        },
    })
}

fn condition(gate: &Gate, rule: &Rule, point: HookPoint, world: &World) -> Result<Condition> {
    let (name, dictionary) = world.dictionary(gate.dictionary.as_deref().or(rule.dictionary.as_deref()))?;
    world.check_reads(name, dictionary, "a gate", false)?;
    world.check_features(name, dictionary, &gate.features, "features")?;
    let points = gate.features.iter().map(|&feature| dictionary.feature_point(feature as usize));
    if let Some(own) = points.flatten().find(|own| *own != point) {
        return Err(Error::mismatch(match (own.resid_post(), point.resid_post()) {
            (Some(own), Some(layer)) => {
                format!("dictionary: \"{name}\" is for layer {own}, the rule acts on layer {layer}")
            }
            _ => format!("dictionary: \"{name}\" is for {own}, the rule acts on {point}"),
        }));
    }
    let read = (gate.features.as_slice(), gate.unit, gate.threshold);
    reads((name, dictionary), read, gate.scope == Scope::Sequence, world)
}

/// What holds where the mean of features, in a unit, reaches a threshold.
pub(super) fn reads(
    (name, dictionary): (&str, &Arc<Dictionary>),
    (features, unit, threshold): (&[u32], Unit, f32),
    sequence: bool,
    world: &World,
) -> Result<Condition> {
    let n = features.len() as f32;
    let share = match unit {
        Unit::Activation => {
            let means = means(name, dictionary, features, "unit", "features")?;
            means.iter().map(|mean| 1.0 / (n * mean)).collect()
        }
        Unit::Raw | Unit::Norm => vec![1.0 / n; features.len()],
    };
    let encoder = world.encoder(dictionary, features)?;
    Ok(Condition { encoder, share: finite(share)?, threshold, sequence })
}

impl<'a> World<'a> {
    /// A dictionary by the name that a rule gives, or the only one.
    pub(super) fn dictionary(&self, name: Option<&str>) -> Result<(&'a str, &'a Arc<Dictionary>)> {
        let (found, dictionary) = match (name, self.dictionaries) {
            (Some(name), all) => all.iter().find(|(n, _)| *n == name).ok_or_else(|| {
                let names = all.iter().map(|(n, _)| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
                let names = if names.is_empty() { "none".into() } else { names };
                Error::mismatch(format!("dictionary: \"{name}\" is not among the given ones ({names})"))
            })?,
            (None, [only]) => only,
            (None, []) => return Err(Error::mismatch("dictionary: the rule needs one, none was given")),
            (None, all) => {
                return Err(Error::mismatch(format!(
                    "dictionary: {} were given, so the rule must name one",
                    all.len()
                )));
            }
        };
        if dictionary.d_out() != self.d_model {
            let (expected, width) = (self.d_model, dictionary.d_out());
            return Err(Error::mismatch(format!(
                "dictionary: the model's width is {expected}, \"{found}\" has width {width}"
            )));
        }
        Ok((found, dictionary))
    }

    /// What encodes `ids`, which the dictionary has.
    fn encoder(&self, dictionary: &Arc<Dictionary>, ids: &[u32]) -> Result<Arc<Encoder>> {
        shared(&self.encoders, dictionary, ids, || Encoder::of(dictionary, ids))
    }

    /// The decoder rows of `ids`, which the dictionary has: `[ids.len(), d_model]`.
    fn decoder(&self, dictionary: &Arc<Dictionary>, ids: &[u32]) -> Result<Arc<Vec<f32>>> {
        shared(&self.decoders, dictionary, ids, || {
            let slice = dictionary.slice(ids)?;
            let mut rows = zeros(ids.len() * self.d_model, "decoder rows of a plan")?;
            rows.chunks_exact_mut(self.d_model).enumerate().for_each(|(j, row)| slice.add_decoder(j, 1.0, row));
            Ok(rows)
        })
    }

    /// Codes are read where the dictionary reads, and edits of codes act there too: a transcoder writes elsewhere.
    pub(super) fn check_reads(&self, name: &str, dictionary: &Dictionary, what: &str, edits: bool) -> Result<()> {
        if dictionary.reads_elsewhere() || (edits && dictionary.settings().transcodes) {
            let (hook, info) = (dictionary.hook_point(), dictionary.info());
            let writes = if info.hook_out.is_empty() { "" } else { &format!(" and writes \"{}\"", info.hook_out) };
            let instead =
                dictionary.point_out().map_or(String::new(), |p| format!("; `add` works, on layer {}", p.layer()));
            return Err(Error::mismatch(format!(
                "dictionary: {what} needs codes where it acts, and \"{name}\" reads \"{hook}\"{writes}{instead}"
            )));
        }
        if dictionary.d_model() != self.d_model {
            let (expected, width) = (self.d_model, dictionary.d_model());
            return Err(Error::mismatch(format!(
                "dictionary: the model's width is {expected}, \"{name}\" reads rows of width {width}"
            )));
        }
        Ok(())
    }

    pub(super) fn check_layer(&self, layer: usize) -> Result<()> {
        if layer < self.n_layer {
            return Ok(());
        }
        Err(Error::mismatch(format!("layer: the model has {} (from 0), found {layer}", self.n_layer)))
    }

    pub(super) fn check_features(&self, name: &str, dictionary: &Dictionary, ids: &[u32], key: &str) -> Result<()> {
        let n = dictionary.n_features();
        match ids.iter().position(|&id| id as usize >= n) {
            None => Ok(()),
            Some(i) => Err(Error::mismatch(format!(
                "{key}[{i}]: dictionary \"{name}\" has {n} features (from 0), found {}",
                ids[i]
            ))),
        }
    }
}

/// What is in `all` for these features, made by `make` the first time.
fn shared<T>(
    all: &Shared<T>,
    dictionary: &Arc<Dictionary>,
    ids: &[u32],
    make: impl FnOnce() -> Result<T>,
) -> Result<Arc<T>> {
    let key = (Arc::as_ptr(dictionary), ids.to_vec());
    if let Some(made) = all.borrow().get(&key) {
        return Ok(made.clone());
    }
    let made = Arc::new(make()?);
    all.borrow_mut().insert(key, made.clone());
    Ok(made)
}

/// What callers should know of the actions, in the order of rules.
fn warnings(actions: &Actions, watchers: &[(HookPoint, Watcher)]) -> Vec<String> {
    let read = watchers.iter().filter_map(|(_, w)| Some((w.monitor, w.condition.encoder.warning()?)));
    let mut watched: Vec<String> = read.map(|(monitor, why)| format!("monitors[{monitor}]: {why}")).collect();
    let mut warnings = Vec::new();
    for action in actions.values().flatten() {
        let edit = match &action.edit {
            Edit::Codes { encoder, .. } => encoder.warning(),
            _ => None,
        };
        let gate = action.condition.as_ref().and_then(|c| c.encoder.warning());
        warnings.extend(edit.map(|w| (action.rule, format!("rules[{}]: {w}", action.rule))));
        warnings.extend(gate.map(|w| (action.rule, format!("rules[{}]: gate: {w}", action.rule))));
    }
    warnings.sort_by_key(|w| w.0);
    warnings.dedup();
    watched.extend(warnings.into_iter().map(|w| w.1));
    watched
}

/// Whether one unit of a code is the same length in every row.
fn is_uniform(dictionary: &Dictionary) -> bool {
    matches!(dictionary.settings().normalization, Normalization::None | Normalization::ExpectedAverage { .. })
}

/// The mean positive activations of features.
fn means(name: &str, dictionary: &Dictionary, ids: &[u32], unit_key: &str, key: &str) -> Result<Vec<f32>> {
    let stats = dictionary.feature_stats().ok_or_else(|| {
        Error::mismatch(format!(
            "{unit_key}: dictionary \"{name}\" has no statistics of its features, which `activation` needs; use `raw` or `norm`"
        ))
    })?;
    let mean = |(i, &id): (usize, &u32)| match stats.get(id as usize) {
        Some(s) if s.mean.is_finite() && s.mean > 0.0 => Ok(s.mean),
        other => Err(Error::mismatch(format!(
            "{key}[{i}]: feature {id} of dictionary \"{name}\" has no mean activation ({}): it never fired where statistics were taken",
            other.map_or(0.0, |s| s.mean)
        ))),
    };
    ids.iter().enumerate().map(mean).collect()
}

pub(super) fn length(direction: &[f32], what: &str) -> Result<f32> {
    match norm(direction) {
        n if n.is_finite() && n > 0.0 => Ok(n),
        n => Err(Error::mismatch(format!("{what} has length {n}, so no strength relative to the norm can be given"))),
    }
}

/// What is added to rows, or strengths: each finite, and together no longer than a model's norm can square.
pub(super) fn finite(values: Vec<f32>) -> Result<Vec<f32>> {
    let wrong = match values.iter().find(|v| !v.is_finite()) {
        None if is_bearable(norm(&values)) => return Ok(values),
        None => format!("a length of {:e}, which a model cannot square", norm(&values)),
        Some(v) => v.to_string(),
    };
    let error = Error::numeric(format!("strength.value: it is out of range for 32-bit numbers here (gives {wrong})"));
    Err(error.hinted("give a smaller strength; `tiller run --strength auto` finds one that keeps the text fluent"))
}

fn position(p: u32) -> i32 {
    i32::try_from(p).unwrap_or(i32::MAX)
}
