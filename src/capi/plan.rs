use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::arguments::{choice, expect_len, finite, opt_text, path, slice, slice_mut, some, text};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::explanations::tiller_matches;
use super::guard::{ErrorOut, Out, guard, make};
use super::model::tiller_target;
use super::text::{c_string, tiller_text};
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::hook_point::{HookPoint, Site};
use crate::plan::{Compiled, Feature, Op, Plan, Route, Row, Rule, Scratch, SequenceSet, Strength};

/// What to do to the residual stream: a list of rules, as data. A plan is a short JSON file that people read, diff and
/// edit by hand; examples/files.md has its schema.
///
/// Its life: tiller_plan_open() or tiller_plan_parse() or tiller_plan_for(); tiller_plan_compile() with the
/// dictionaries that it speaks of; hand the compiled plan to tiller_hook_set_plan() or tiller_engine_set_plan().
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_plan(pub(super) Plan);

/// A plan resolved against its dictionaries and a model, ready for the hot path. Needs neither any more.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_compiled {
    pub(super) plan: Arc<Compiled>,
    fingerprint: CString,
    warnings: CString,
}

impl From<Arc<Compiled>> for tiller_compiled {
    fn from(plan: Arc<Compiled>) -> Self {
        let (fingerprint, warnings) = (c_string(&plan.fingerprint), c_string(&plan.warnings.join("\n")));
        Self { plan, fingerprint, warnings }
    }
}

/// A dictionary under the name by which a plan's rules call it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_named {
    /// The name; "" if the plan names none.
    pub name: *const c_char,
    /// The dictionary.
    pub dictionary: *const tiller_dictionary,
}

/// A hook point: a site of a block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_point {
    /// The block, from 0.
    pub layer: u32,
    /// 0 the residual stream after the block, 1 before it, 2 what attention adds, 3 the residual stream between attention
    /// and MLP, 4 what the MLP adds. Other sites than 0 need tiller_hook_set_architecture().
    pub site: u32,
}

/// Sites as C numbers them: 0 is the usual one.
pub(super) const SITES: [Site; 5] = [Site::ResidPost, Site::ResidPre, Site::AttnOut, Site::ResidMid, Site::MlpOut];

impl tiller_point {
    pub(super) fn point(self) -> Result<HookPoint> {
        Ok(HookPoint::new(choice(self.site, &SITES, "tiller_point.site")?, self.layer as usize))
    }
}

/// Which token a row of the residual stream belongs to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_row {
    /// Its position in its sequences, from 0; -1 where that is not known.
    pub position: i32,
    /// Which sequence, from 0 to 255; of several, the lowest; -1 where that is not known.
    pub sequence: i32,
    /// 1 if the model wrote the token, 0 if it was given, 2 where that is not known.
    pub generated: u32,
    /// 1 if `token` is known.
    pub has_token: u32,
    /// The token.
    pub token: i32,
    /// Always 0.
    pub reserved: u32,
    /// The sequences that share the token with `sequence`, a bit for each: id i is bit i % 64 of word i / 64. All 0 if none.
    pub shared: [u64; 4],
}

/// Rows that C describes.
pub(super) fn rows(list: &[tiller_row]) -> Result<Vec<Row>> {
    list.iter().enumerate().map(|(i, row)| row.row(i)).collect()
}

impl tiller_row {
    /// The `i`-th of a list.
    fn row(&self, i: usize) -> Result<Row> {
        let Self { position, sequence, generated, has_token, token, reserved, shared } = *self;
        if sequence > 255 {
            return Err(Error::argument(format!("rows[{i}].sequence is {sequence}; expected -1 to 255")));
        }
        if reserved != 0 {
            return Err(Error::argument(format!("rows[{i}].reserved is {reserved}; expected 0")));
        }
        let shared = (0..256).filter(|&id| shared[id as usize / 64] >> (id % 64) & 1 == 1);
        Ok(Row {
            position: Some(position).filter(|p| *p >= 0),
            sequences: SequenceSet::of(shared.chain([sequence])),
            token: choice(has_token, &[None, Some(token)], &format!("rows[{i}].has_token"))?,
            generated: choice(generated, &[Some(false), Some(true), None], &format!("rows[{i}].generated"))?,
        })
    }
}

impl From<&Row> for tiller_row {
    fn from(row: &Row) -> Self {
        let mut shared = [0; 4];
        let others = row.sequences.iter().flat_map(SequenceSet::iter).filter(|id| Some(*id) != row.sequence());
        others.for_each(|id| shared[id as usize / 64] |= 1 << (id % 64));
        Self {
            position: row.position.unwrap_or(-1),
            sequence: row.sequence().unwrap_or(-1),
            generated: row.generated.map_or(2, u32::from),
            has_token: row.token.is_some().into(),
            token: row.token.unwrap_or(0),
            reserved: 0,
            shared,
        }
    }
}

/// Reads and checks a plan file. Paths in it are relative to the file's directory.
///
/// On success `*out` owns a new plan; free it with tiller_plan_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_plan_open(
    file: *const c_char,
    out: Out<'_, tiller_plan>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Plan::open(unsafe { path(file, "file") }?).map(tiller_plan))
}

/// Reads and checks a plan from JSON text. Paths in it are relative to the working directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_plan_parse(
    json: *const c_char,
    out: Out<'_, tiller_plan>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Plan::from_json(unsafe { text(json, "json") }?).map(tiller_plan))
}

/// The plan of one rule on the features that a search found, each with its weight.
///
/// `op` is an operator of the schema, such as "min_clamp". `unit` counts `strength`: 0 raw, 1 multiples of each feature's
/// mean positive activation, 2 the norm of the row. `dictionary` is the name for tiller_plan_compile(), or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_plan_for(
    matches: Option<&tiller_matches>,
    op: *const c_char,
    strength: f32,
    unit: u32,
    dictionary: *const c_char,
    out: Out<'_, tiller_plan>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string.
        let name = unsafe { text(op, "op") }?;
        let op = Op::ALL.iter().copied().find(|op| op.name() == name);
        let op = op.ok_or_else(|| Error::argument(format!("op: no operator is called {name:?}")))?;
        let units = [Strength::raw, Strength::activation, Strength::norm];
        let strength = choice(unit, &units, "unit")?(strength);
        let features = some(matches, "matches")?.list.iter().map(|m| Feature::new(m.feature, m.weight));
        let mut rule = Rule::new(op, features, (op != Op::Ablate).then_some(strength));
        // SAFETY: the header requires a C string or NULL.
        rule.dictionary = unsafe { opt_text(dictionary, "dictionary") }?.map(Into::into);
        let plan = Plan::new([rule]);
        plan.check()?;
        Ok(tiller_plan(plan))
    })
}

/// A copy of the plan with every strength multiplied by `factor`; rules without one stay as they are.
///
/// On success `*out` owns a new plan; free it with tiller_plan_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_plan_scaled(
    plan: Option<&tiller_plan>,
    factor: f32,
    out: Out<'_, tiller_plan>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let scaled = some(plan, "plan")?.0.scaled(finite(factor, "factor")?);
        scaled.check()?;
        Ok(tiller_plan(scaled))
    })
}

/// Number of rules. 0 if `plan` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_plan_n_rules(plan: Option<&tiller_plan>) -> usize {
    plan.map_or(0, |p| p.0.rules.len())
}

/// The plan as JSON, indented.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_plan_json(
    plan: Option<&tiller_plan>,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(tiller_text::from(some(plan, "plan")?.0.to_json().as_str())))
}

/// Writes the plan as JSON; `file` is the old one or the new one, never half of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_plan_save(
    plan: Option<&tiller_plan>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(plan, "plan")?.0.save(unsafe { path(file, "file") }?))
}

/// Dictionaries with their names.
///
/// # Safety
/// `named` points to `n` structs, each with a C string and NULL or a live dictionary, which outlive `'a`.
pub(super) unsafe fn resolve<'a>(named: *const tiller_named, n: usize) -> Result<Vec<(&'a str, Arc<Dictionary>)>> {
    // SAFETY: the caller's contract.
    let named: &'a [tiller_named] = unsafe { slice(named, n, "dictionaries") }?;
    let resolve = |(i, named): (usize, &'a tiller_named)| {
        // SAFETY: the caller's contract.
        let name = unsafe { text(named.name, &format!("dictionaries[{i}].name")) }?;
        // SAFETY: the caller's contract.
        let dictionary = unsafe { named.dictionary.as_ref() };
        Ok((name, Arc::clone(&some(dictionary, &format!("dictionaries[{i}].dictionary"))?.dictionary)))
    };
    named.iter().enumerate().map(resolve).collect()
}

/// Resolves the plan against `n` dictionaries and a model. A site that its architecture does not have is
/// TILLER_E_UNSUPPORTED.
///
/// `route`: 0 unconditional adds become a control vector and everything else goes to the callback; 1 everything goes to
/// the callback; 2 everything becomes a control vector, and a rule that cannot is an error.
///
/// On success `*out` owns a new object; free it with tiller_compiled_free(). It keeps nothing of `plan` or `dictionaries`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_plan_compile(
    plan: Option<&tiller_plan>,
    dictionaries: *const tiller_named,
    n: usize,
    target: *const tiller_target,
    route: u32,
    out: Out<'_, tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let plan = some(plan, "plan")?;
        let route = choice(route, &[Route::Auto, Route::Callback, Route::ControlVector], "route")?;
        // SAFETY: the header requires `n` structs, and a struct whose `size` is set.
        let (dictionaries, target) = unsafe { (resolve(dictionaries, n)?, tiller_target::read(target)?) };
        Ok(Arc::new(plan.0.compile(&dictionaries, &target, route)?).into())
    })
}

/// Frees `plan`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_plan_free(plan: Option<Box<tiller_plan>>) {
    drop(plan);
}

/// SHA-256, in hex, of everything that decides what the plan does: plans with equal fingerprints may share KV and
/// prefix caches. "" if `compiled` is NULL. Valid until `compiled` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_fingerprint(compiled: Option<&tiller_compiled>) -> *const c_char {
    compiled.map_or(c"".as_ptr(), |c| c.fingerprint.as_ptr())
}

/// What a reader of the plan should know, a line each; "" if there is nothing, or `compiled` is NULL. Valid until
/// `compiled` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_warnings(compiled: Option<&tiller_compiled>) -> *const c_char {
    compiled.map_or(c"".as_ptr(), |c| c.warnings.as_ptr())
}

/// Checks that the plan was compiled for a model of `n_layer` blocks and width `d_model`: TILLER_OK or
/// TILLER_E_MISMATCH.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_check(
    compiled: Option<&tiller_compiled>,
    n_layer: usize,
    d_model: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let plan = &some(compiled, "compiled")?.plan;
        if (plan.n_layer, plan.d_model) == (n_layer, d_model) {
            return Ok(());
        }
        let (layers, width) = (plan.n_layer, plan.d_model);
        Err(Error::mismatch(format!(
            "the plan was compiled for {layers} layers of width {width}, expected {n_layer} layers of width {d_model}"
        )))
    })
}

/// Whether the callback has to be installed. A plan that is a control vector alone doesn't need it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_needs_callback(compiled: Option<&tiller_compiled>) -> bool {
    compiled.is_some_and(|c| !c.plan.points.is_empty())
}

/// How many floats tiller_compiled_control_vector() writes: (n_layer - 1) * d_model, or 0 if the plan has no part that
/// becomes a control vector.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_control_vector_length(compiled: Option<&tiller_compiled>) -> usize {
    compiled
        .filter(|c| c.plan.control_vector.is_some())
        .map_or(0, |c| c.plan.n_layer.saturating_sub(1) * c.plan.d_model)
}

/// The part of the plan that llama.cpp applies by itself: give these `n_data` floats to llama_set_adapter_cvec() with
/// n_embd = d_model, il_start = 1, il_end = n_layer. `n_data` must be tiller_compiled_control_vector_length().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_compiled_control_vector(
    compiled: Option<&tiller_compiled>,
    data: *mut f32,
    n_data: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let plan = &some(compiled, "compiled")?.plan;
        let Some(vector) = &plan.control_vector else { return expect_len(n_data, 0, "data") };
        let floats = vector.data(plan.n_layer)?;
        expect_len(n_data, floats.len(), "data")?;
        // SAFETY: the header requires `n_data` writable floats.
        unsafe { slice_mut(data, n_data, "data") }?.copy_from_slice(&floats);
        Ok(())
    })
}

/// Does to `n_rows` rows what the callback would do to them at `point`, without any model.
///
/// `data` holds `n_rows` * d_model floats, row by row, and is edited in place; `rows` says which token each is.
/// `*n_edited` is how many were changed (may be NULL). A gate over a sequence sees these rows alone. Rows on which a rule
/// cannot be judged are left as they are by it: TILLER_E_MISMATCH says so when the others are done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_compiled_apply(
    compiled: Option<&tiller_compiled>,
    point: tiller_point,
    data: *mut f32,
    n_data: usize,
    rows: *const tiller_row,
    n_rows: usize,
    n_edited: Option<&mut u64>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let plan = &some(compiled, "compiled")?.plan;
        expect_len(n_data, n_rows.saturating_mul(plan.d_model), "data")?;
        // SAFETY: the header requires `n_data` writable floats, apart from `rows`.
        let data = unsafe { slice_mut(data, n_data, "data") }?;
        // SAFETY: the header requires `n_rows` structs.
        let rows = unsafe { slice(rows, n_rows, "rows") }?;
        let meta = self::rows(rows)?;
        let mut scratch = Scratch::new();
        let edited = match plan.points.get(&point.point()?) {
            Some(ops) => ops.apply(data, &meta, &mut scratch).edited,
            None => 0,
        };
        if let Some(out) = n_edited {
            *out = edited;
        }
        if let Some(fault) = scratch.take_fault() {
            return Err(Error::numeric(fault.to_string()));
        }
        for (rule, tally) in scratch.tally().take().iter().enumerate() {
            if let Some((why, n)) = tally.unjudged_rows().next() {
                return Err(Error::mismatch(format!("rules[{rule}]: {n} rows were left as they are: {why}")));
            }
        }
        Ok(())
    })
}

/// Frees `compiled`. Hooks and engines that it was given to keep their own reference. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_compiled_free(compiled: Option<Box<tiller_compiled>>) {
    drop(compiled);
}
