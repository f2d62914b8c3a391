//! From nested dictionaries to names: what a pickle made, laid flat.
//!
//! `{"a": {"b": tensor}}` becomes `a.b`, as in torch's own state dictionaries; an item of a list that holds tensors is named
//! by its number. Plain values get names in the same way.
//!
//! A pickle may put one object in many places, and those in many places again: thirty lines become a billion names. So the
//! work is counted, and a file gets as much as its own size justifies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::global::Global;
use super::pickle::{Id, Object, Pickle, Tensor};
use crate::file::UNNAMED;

/// Dictionaries of dictionaries: state in a configuration in a checkpoint is three deep.
const MAX_DEPTH: usize = 64;
/// What each visited object counts beside its text: the memory of a value in a tree, roughly.
const VISIT: usize = 64;
/// Each object is visited once, where nothing is shared; some sharing is met, of shapes and settings.
const WORK_PER_BYTE: usize = 128;
const FREE_WORK: usize = 1 << 18;

/// What a pickle holds, by name.
#[derive(Default)]
pub(super) struct Leaves {
    pub(super) tensors: BTreeMap<String, Id>,
    pub(super) values: BTreeMap<String, Value>,
}

/// Lays `pickle`, a program of `n_bytes`, flat. The error says what is wrong.
pub(super) fn flatten(pickle: &Pickle<'_>, n_bytes: usize) -> Result<Leaves, String> {
    let left = n_bytes.saturating_mul(WORK_PER_BYTE).saturating_add(FREE_WORK);
    let mut walk = Walk { pickle, left, leaves: Leaves::default() };
    walk.visit(None, pickle.root(), 0)?;
    Ok(walk.leaves)
}

/// The tensor `id`, if it is one.
pub(super) fn tensor<'a, 'p>(pickle: &'a Pickle<'p>, id: Id) -> Option<&'a Tensor<'p>> {
    match pickle.get(id) {
        Object::Tensor(tensor) => Some(tensor),
        _ => None,
    }
}

struct Walk<'a, 'p> {
    pickle: &'a Pickle<'p>,
    left: usize,
    leaves: Leaves,
}

impl<'p> Walk<'_, 'p> {
    /// Pays for an object with `text` bytes of text, `depth` deep.
    fn pay(&mut self, text: usize, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("expected at most {MAX_DEPTH} dictionaries in each other, found more, or a cycle"));
        }
        let left = self.left.checked_sub(text.saturating_add(VISIT));
        self.left =
            left.ok_or("expected each object in a few places, found a tree that is far larger than the file")?;
        Ok(())
    }

    fn visit(&mut self, name: Option<&str>, id: Id, depth: usize) -> Result<(), String> {
        self.pay(name.map_or(0, str::len), depth)?;
        let join = |part: &str| name.map_or_else(|| part.to_owned(), |name| format!("{name}.{part}"));
        let pickle = self.pickle;
        match pickle.get(id) {
            Object::Dict(items) if !items.is_empty() => {
                for &(key, value) in items {
                    let key = self.key(key, name)?;
                    self.visit(Some(&join(&key)), value, depth + 1)?;
                }
                Ok(())
            }
            Object::List(_) | Object::Tuple(_) if self.holds_tensors(id, depth)? => {
                for (i, &item) in items(pickle.get(id)).iter().enumerate() {
                    self.visit(Some(&join(&i.to_string())), item, depth + 1)?;
                }
                Ok(())
            }
            Object::Tensor(_) => {
                let name = name.unwrap_or(UNNAMED);
                self.check_new(name)?;
                self.leaves.tensors.insert(name.to_owned(), id);
                Ok(())
            }
            _ => {
                let (Some(name), Some(value)) = (name, self.value(id, depth)?) else { return Ok(()) };
                self.check_new(name)?;
                self.leaves.values.insert(name.to_owned(), value);
                Ok(())
            }
        }
    }

    fn check_new(&self, name: &str) -> Result<(), String> {
        match self.leaves.tensors.contains_key(name) || self.leaves.values.contains_key(name) {
            true => Err(format!("expected each name once, found \"{}\" twice", name.escape_debug())),
            false => Ok(()),
        }
    }

    fn key(&self, id: Id, inside: Option<&str>) -> Result<String, String> {
        match self.pickle.get(id) {
            Object::Text(text) => Ok((*text).to_owned()),
            Object::Int(v) => Ok(v.to_string()),
            _ => {
                let place = inside.unwrap_or("the outermost dictionary").escape_debug().to_string();
                Err(format!("{place}: expected keys that are strings or integers, found another"))
            }
        }
    }

    /// Whether a list has tensors or dictionaries in it: then its items get names, else it is a plain value.
    fn holds_tensors(&mut self, id: Id, depth: usize) -> Result<bool, String> {
        let items = items(self.pickle.get(id));
        self.pay(items.len(), depth)?;
        for &item in items {
            let found = match self.pickle.get(item) {
                Object::Tensor(_) | Object::Dict(_) => true,
                Object::List(_) | Object::Tuple(_) => self.holds_tensors(item, depth + 1)?,
                _ => false,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A plain value in JSON; none for what has none there.
    fn value(&mut self, id: Id, depth: usize) -> Result<Option<Value>, String> {
        let pickle = self.pickle;
        let text = if let Object::Text(text) = pickle.get(id) { text.len() } else { 0 };
        self.pay(text, depth)?;
        Ok(match pickle.get(id) {
            Object::None => Some(Value::Null),
            Object::Bool(v) => Some(Value::from(*v)),
            Object::Int(v) => Some(Value::from(*v)),
            // JSON has no infinities; Python's words for them.
            Object::Float(v) if !v.is_finite() => Some(Value::from(v.to_string().to_lowercase())),
            Object::Float(v) => Some(Value::from(*v)),
            Object::Text(text) => Some(Value::from(*text)),
            Object::Global(Global::Dtype(_, name)) => Some(Value::from(*name)),
            Object::Dict(items) if items.is_empty() => Some(Value::Object(serde_json::Map::new())),
            Object::List(_) | Object::Tuple(_) => {
                let mut values = Vec::new();
                for &item in items(pickle.get(id)) {
                    values.push(self.value(item, depth + 1)?.unwrap_or(Value::Null));
                }
                Some(Value::Array(values))
            }
            _ => None,
        })
    }
}

/// The items of a list or tuple.
fn items<'a>(object: &'a Object<'_>) -> &'a [Id] {
    match object {
        Object::List(items) => items,
        Object::Tuple(items) => items,
        _ => &[],
    }
}
