//! Named arrays of numbers, whichever the container.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::view::{Tensor, View, missing};
use super::{Map, safetensors};
use crate::error::Result;

/// Named arrays of numbers of one file, whatever the container: safetensors, NumPy's npz, or a torch pickle in its zip.
#[derive(Debug)]
pub struct Tensors {
    map: Arc<Map>,
    tensors: BTreeMap<String, Tensor>,
    values: BTreeMap<String, Value>,
}

impl Tensors {
    /// Maps the file at `path` and reads what it says of its tensors. The container is told by its first bytes, not by the
    /// file's name.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) if it cannot be opened, [`Kind::Format`](crate::Kind::Format) if it is damaged or in
    /// no container that is known.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Map::open(path)?;
        let tensors = safetensors::File::from_map(map.clone())?.into_tensors();
        Ok(Self { map, tensors, values: BTreeMap::new() })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`, if there is one.
    pub fn opt(&self, name: &str) -> Option<View<'_>> {
        let (name, tensor) = self.tensors.get_key_value(name)?;
        Some(View::new(tensor, name, self.path()))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file has none; the message says what it has.
    pub fn get(&self, name: &str) -> Result<View<'_>> {
        self.opt(name).ok_or_else(|| missing(self.path(), name, self.names()))
    }

    /// The plain value called `name` that lies beside the tensors of a torch pickle: a number, a string, a list. What lies
    /// in nested dictionaries has dotted names (`activation_state_dict.k`). Other containers have none.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }
}
