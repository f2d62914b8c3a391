//! Named arrays of numbers, whichever the container.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::allowance::Allowance;
use super::source::Source;
use super::view::{Tensor, View, missing};
use super::zip::Zip;
use super::{Map, name_contents, npy, safetensors, torch, zip};
use crate::error::{Error, Result};

/// The name of the one tensor of a file that gives it none: what NumPy calls it.
pub const UNNAMED: &str = "arr_0";

/// Named arrays of numbers of one file, whatever the container: safetensors, NumPy's npz and npy, or a torch pickle in its
/// zip.
///
/// Opening costs what the header takes; elements stay in the map until somebody asks for them. Deflated arrays of an npz are
/// the exception: they are inflated into memory.
#[derive(Debug)]
pub struct Tensors {
    map: Arc<Map>,
    contents: Contents,
}

/// What a file holds, by name.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) values: BTreeMap<String, Value>,
    /// Arrays of what is no number, and what to say to those who ask for them.
    pub(super) aside: BTreeMap<String, Error>,
}

impl Contents {
    fn of_tensors(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors, ..Self::default() }
    }
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
        let bytes = map.bytes();
        let mut allowance = Allowance::new(bytes.len());
        let whole = Source::Mapped(map.clone(), 0..bytes.len());
        let contents = if zip::recognize(bytes) {
            let zip = Zip::open(map.clone())?;
            if torch::recognize_zip(&zip) {
                torch::read_zip(&zip, &mut allowance)?
            } else if npy::recognize_zip(&zip) {
                npy::read_zip(&zip, &mut allowance)?
            } else {
                let names: Vec<_> = zip.entries().iter().take(6).map(|entry| entry.name.as_str()).collect();
                let what = "expected arrays of NumPy or a pickle of torch in the archive, found";
                return Err(Error::format(path, format_args!("{what} {}", names.join(", "))));
            }
        } else if torch::recognize_legacy(bytes) {
            torch::read_legacy(&whole, path, &mut allowance)?
        } else if npy::recognize(bytes) {
            let array = npy::read(&whole, path, "array", &mut allowance)?;
            Contents::of_tensors(BTreeMap::from([(UNNAMED.to_owned(), array)]))
        } else if safetensors::recognize(bytes) {
            Contents::of_tensors(safetensors::File::from_map(map.clone())?.into_tensors())
        } else {
            return Err(unknown(path, bytes));
        };
        Ok(Self { map, contents })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.contents.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`, if there is one.
    pub fn opt(&self, name: &str) -> Option<View<'_>> {
        let (name, tensor) = self.contents.tensors.get_key_value(name)?;
        Some(View::new(tensor, name, self.path()))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file has none; the message says what it has.
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if it is an array of strings, say.
    pub fn get(&self, name: &str) -> Result<View<'_>> {
        self.opt(name).ok_or_else(|| match self.contents.aside.get(name) {
            Some(error) => Error::new(error.kind(), error.message()),
            None => missing(self.path(), name, self.names()),
        })
    }

    /// The plain value called `name` that lies beside the tensors of a torch pickle: a number, a string, a list. What lies
    /// in nested dictionaries has dotted names (`activation_state_dict.k`). Other containers have none.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.contents.values.get(name)
    }
}

/// The error of a file in no container that is known: what it is instead, as far as its first bytes tell.
fn unknown(path: &Path, bytes: &[u8]) -> Error {
    let (found, hint) = match (name_contents(bytes), bytes) {
        (Some(known), _) => known,
        (None, [0x80, 2..=5, ..]) => ("a pickle that torch did not write", "save it with torch.save"),
        (None, _) => ("something else", "save the arrays with safetensors, numpy.save or torch.save"),
    };
    Error::format(path, format_args!("expected safetensors, npz, npy or a file of torch, found {found}")).hinted(hint)
}
