//! Floor 4: what to do to the residual stream, as data.
//!
//! A [`Plan`] is a short JSON file that people read, diff and edit by hand; [`Plan::compile`] turns it, with the
//! dictionaries it speaks of, into [`Compiled`]: per hook point the rows and vectors that the hot path needs, and nothing else.
//!
//! ```json
//! {
//!   "version": 1,
//!   "note": "speak of the sea, but only once ships came up",
//!   "rules": [
//!     {
//!       "op": "min_clamp",
//!       "features": [812, {"id": 3301, "weight": 0.5}],
//!       "strength": {"value": 2.0, "unit": "activation"},
//!       "select": {"phase": "generated"},
//!       "gate": {"features": [77], "threshold": 0.5, "unit": "activation", "scope": "sequence"}
//!     }
//!   ]
//! }
//! ```
//!
//! # Keys
//!
//! | key | value | default |
//! |---|---|---|
//! | `version` | 1 | required |
//! | `note` | any text; changes nothing | none |
//! | `monitors` | list of monitors, see below | none |
//! | `verdicts` | list of verdicts, see below | none |
//! | `rules` | list of rules; an empty list steers nothing | required |
//!
//! A rule:
//!
//! | key | value | default |
//! |---|---|---|
//! | `op` | one of the operators below | required |
//! | `features` | list of `id` or `{"id": n, "weight": w}`; the weight multiplies the strength for that feature; or `"all"` | one of `features`, `vector` |
//! | `vector` | a direction for `add`: `[numbers]`, or `{"file": "v.gguf", "shift": 0}`, a llama.cpp control vector (see [`ControlVector`]) | |
//! | `propagate` | for `add` on features: a temporal model's file; each feature brings along what it drives in the same row (arXiv 2509.23323) | none |
//! | `dictionary` | the name under which the caller gives the dictionary | the only one, if there is one |
//! | `layer` | residual stream after this block (`l_out-L`), counted from 0 | the dictionary's layer; for a vector file and for learned features, each at its own |
//! | `hook` | the site of that block: `resid_post`, `resid_pre`, `attn_out`, `resid_mid` or `mlp_out` (see [`HookPoint`](crate::hook_point)) | the dictionary's site, else `resid_post` |
//! | `strength` | `{"value": v, "unit": "raw"}`, or a plain number (raw) | required, except for `ablate` |
//! | `norm_preserve` | rescale the row to its norm before the rule | `false` |
//! | `select` | which rows, see below | every row but the first |
//! | `gate` | only where a condition holds, see below | none |
//! | `when` | only where this holds of the plan's monitors, see below | none |
//! | `note` | any text; changes nothing | none |
//!
//! Operators, for each feature i of the rule with code `f` of the live row, decoder row `d_i` and strength `s`; the row moves
//! by `Σ (f' − f) d_i`, so that what the dictionary does not explain stays (the error term is kept):
//!
//! | `op` | effect | strength |
//! |---|---|---|
//! | `add` | `x + s d_i` | any unit |
//! | `add_active` | `f' = f + s` where `f > 0` (arXiv 2501.11036) | any unit |
//! | `scale` | `f' = s f`, with a weight `f' = (1 + w (s − 1)) f` | a plain factor |
//! | `clamp` | `f' = s` | any unit |
//! | `min_clamp` | `f' = max(f, s)` | any unit, not negative |
//! | `max_clamp` (`cap`) | `f' = min(f, s)` | any unit, not negative |
//! | `ablate` | `f' = 0` | none |
//! | `amplify` | `f' = f + s f` (arXiv 2502.15576) | a plain factor |
//! | `calibrate` | `f' = f + relu(s − f)` (arXiv 2502.15576; the same edit as `min_clamp`) | any unit, not negative |
//! | `calibrate_spread` | `v_i = relu(s_i − f_i)`, `x1 = x + Σ s_i (v_i/Σv) d_i`, `x' = x1 ‖x‖/‖x1‖`; identity where `Σv = 0` | any unit, not negative |
//!
//! With `propagate` the direction of `add` is `A Ψ_0 e_i`, Ψ_0 = (I − M)⁻¹, in place of `d_i`: the feature and what follows
//! from it in the same row, as the [temporal model](crate::train::temporal) has it. It is a constant too, so it compiles to a
//! control vector. With a model of rows, which has no dictionary, `features` are its latents.
//!
//! Units of strength: `raw`, the numbers of the dictionary's codes; `activation`, multiples of the feature's own mean positive
//! activation, which the dictionary's statistics hold; `norm`, relative to the row: at strength s the feature contributes a
//! vector of length `s‖x‖` (so the code is `s‖x‖/‖d_i‖`).
//!
//! `select`:
//!
//! | key | value | default |
//! |---|---|---|
//! | `phase` | `all`, `prompt` or `generated` | `all` |
//! | `from`, `to` | positions `from ≤ p < to` | no bounds |
//! | `include_first` | also edit position 0 | see below |
//! | `sequences` | `"all"` or a list of sequence ids | `"all"` |
//!
//! Position 0 is the model's attention sink, with a norm far from all others: rules spare it. The one exception is an
//! *unconditional add* (`add` in `raw` or `activation` units with no gate, no norm preservation and nothing else selected),
//! which acts on every row, the first too, as llama.cpp's control vectors do; so the same plan does the same thing whether it
//! runs as a control vector or as a callback. `"include_first": false` spares the first row there too (and takes the
//! callback); `true` includes it anywhere.
//!
//! `gate`, the mean `(1/|C|) Σ relu(f_c)` over condition features C must reach the threshold:
//!
//! | key | value | default |
//! |---|---|---|
//! | `features` | list of ids | required |
//! | `threshold` | number, not negative | required |
//! | `unit` | `raw`, or `activation`: each code is divided by its feature's mean positive activation first | `raw` |
//! | `dictionary` | name | the rule's |
//! | `scope` | `row`: a row is edited if it meets the condition itself; `sequence`: if it or an earlier row of its sequence did | `row` |
//!
//! A `sequence` gate listens to every row of the sequence at this layer, also to those that `select` leaves alone (a condition
//! read on the prompt can steer what is generated); no gate listens to position 0 unless `include_first` is true.
//! When a sequence goes back to the row that opened the gate, or before it, the gate closes again. At the model's last layer
//! the graph holds only rows whose logits were asked for: gates there hear only those.
//!
//! # Monitors and verdicts
//!
//! A monitor is a named detector. It reads the mean `(1/|C|) Σ relu(f_c)` on every row that it selects, as the rules of
//! earlier layers left it, and fires where that reaches the threshold. Conditions combine monitors: a name, `{"any": […]}`,
//! `{"all": […]}`, `{"not": …}`. A rule with `when` edits only rows on which its condition holds; a verdict tells the host.
//!
//! | key of a monitor | value | default |
//! |---|---|---|
//! | `name` | what conditions call it | required |
//! | `features` | list of ids, all of one layer | required |
//! | `threshold` | number, not negative | required |
//! | `dictionary` | name | the only one, if there is one |
//! | `unit` | `raw`, or `activation`: each code is divided by its feature's mean positive activation first | `raw` |
//! | `select` | which rows, as of a rule | every row but the first |
//! | `scope` | `row`: it counts on the row where it fires; `sequence`: there and on all later rows of the sequence | `row` |
//! | `note` | any text; changes nothing | none |
//!
//! | key of a verdict | value | default |
//! |---|---|---|
//! | `name` | what the host knows it by | required |
//! | `when` | a condition; the verdict is passed at every row of a sequence on which it holds | required |
//! | `action` | what the host should do: `report`, `stop` (end the answer), `replace` (by `text`) | required |
//! | `text` | what stands in place of the answer | for `replace` |
//! | `note` | any text; changes nothing | none |
//!
//! A rule with `when` acts on the layers of its monitors or later ones. The one exception: a rule that selects
//! generated rows and whose monitors all read the prompt with scope `sequence` may act anywhere.
//!
//! # Limits
//!
//! A plan has at most 64 monitors, 64 verdicts and 1,024 rules, which name at most 65,536 features together, gates included; rules that name the same
//! features in the same order share their rows.
//!
//! # Order
//!
//! Rules on the same layer act in the order of the list; each rule, gate and norm included, reads the row as the rules before
//! it left it. A row whose edit is not finite is put back as the model wrote it, and counted.

mod apply;
mod check;
mod compile;
mod control_vector;
mod digest;
mod encoder;
mod json;
mod monitor;
mod propagate;
mod row;
mod rule;
mod select;
mod selector;
mod tally;
mod target;
mod watch;

pub use apply::{Edited, Fault, PointOps, Scratch};
pub use compile::{Compiled, Route};
pub use control_vector::ControlVector;
pub use monitor::{Action, All, Any, Monitor, Not, Verdict, When};
pub use row::{Row, SequenceSet};
pub use rule::{Feature, Features, Op, Rule, Strength, Unit, Vector};
pub use select::Unknown;
pub use selector::{Gate, Phase, Scope, Selector, Sequences};
pub use tally::{RuleTally, Tally};
pub use target::Target;
pub use watch::{Passed, Reading, Watched};

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The version of the plan schema that this library reads and writes.
pub const VERSION: u32 = 1;

/// Largest plan file that is read: a thousand inline vectors of width 4,096 fit.
const MAX_BYTES: u64 = 64 << 20;
/// What helps against every mistake in a plan.
const HINT: &str = "examples/files.md has every key of a plan, with examples";

/// What to do to the residual stream: a list of rules. See the [module](self) for the schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What to watch for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<Monitor>,
    /// What the host is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// What to do; rules on the same layer act in this order.
    pub rules: Vec<Rule>,
    /// The file that the plan was read from: errors name it, and relative paths in rules start beside it.
    #[serde(skip)]
    source: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            version: VERSION,
            note: None,
            monitors: Vec::new(),
            verdicts: Vec::new(),
            rules: Vec::new(),
            source: None,
        }
    }
}

/// Plans are equal if they say the same, wherever they were read from.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        (self.version, &self.note) == (other.version, &other.note)
            && self.rules == other.rules
            && self.monitors == other.monitors
            && self.verdicts == other.verdicts
    }
}

impl Plan {
    /// A plan of these rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { rules: rules.into_iter().collect(), ..Self::default() }
    }

    /// The same with free text.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The same with these monitors.
    pub fn watch(self, monitors: impl IntoIterator<Item = Monitor>) -> Self {
        Self { monitors: monitors.into_iter().collect(), ..self }
    }

    /// The same with these verdicts.
    pub fn tell(self, verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        Self { verdicts: verdicts.into_iter().collect(), ..self }
    }

    /// The plan with every strength multiplied by `factor`; rules without one (`ablate`) stay as they are.
    pub fn scaled(&self, factor: f32) -> Self {
        let mut plan = self.clone();
        plan.rules.iter_mut().filter_map(|rule| rule.strength.as_mut()).for_each(|s| s.value *= factor);
        plan
    }

    /// Reads and checks a plan file. Paths in it are relative to the file's directory.
    ///
    /// # Errors
    /// [`Kind::Io`]; [`Kind::Format`] with file, line, column, the key's path, what was expected and what was found;
    /// [`Kind::Unsupported`] for a version that this library does not know.
    pub fn open(path: &Path) -> Result<Self> {
        let text = crate::file::read_text(path, MAX_BYTES)?;
        Self::parse(&text, &path.display().to_string(), Some(path.to_path_buf()))
    }

    /// Reads and checks a plan from JSON text. Paths in it are relative to the working directory.
    ///
    /// # Errors
    /// As [`Plan::open`], with `plan` in place of the file's name.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::parse(text, "plan", None)
    }

    fn parse(text: &str, name: &str, source: Option<PathBuf>) -> Result<Self> {
        json::check_version(text, name)?;
        let mut plan: Self =
            serde_json::from_str(text).map_err(|e| crate::file::json::error(&e, text, name, 1, HINT))?;
        check::plan(&plan).map_err(|e| Error::new(Kind::Format, format!("{name}: {}", e.message())).hinted(HINT))?;
        plan.source = source;
        Ok(plan)
    }

    /// The plan as JSON, indented, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Writes the plan as JSON, by temporary file and rename.
    ///
    /// # Errors
    /// [`Kind::Argument`] if the plan does not pass [`Plan::check`], or names a file whose path is not UTF-8, which JSON
    /// cannot hold; [`Kind::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        self.check()?;
        serde_json::to_value(self).map_err(|e| Error::argument(format!("{}: {e}", path.display())))?;
        crate::file::write_atomic(path, |out| {
            out.write_all(self.to_json().as_bytes()).map_err(|e| Error::io("write", path, e))
        })
    }

    /// Checks everything that can be known without a dictionary or a model: numbers are finite and not negative where that
    /// means nothing, no feature is named twice in a rule, every rule has what its operator needs and nothing else.
    ///
    /// # Errors
    /// [`Kind::Argument`] with the path of the key, what was expected and what was found.
    pub fn check(&self) -> Result<()> {
        check::plan(self).map_err(|e| self.named(e))
    }

    /// The error with the plan's file in front, if it has one.
    fn named(&self, error: Error) -> Error {
        match &self.source {
            Some(path) => error.context(path.display()),
            None => error,
        }
    }

    /// Where a path in a rule leads.
    fn resolve(&self, file: &Path) -> PathBuf {
        match self.source.as_ref().and_then(|s| s.parent()) {
            Some(directory) => directory.join(file),
            None => file.to_path_buf(),
        }
    }
}
