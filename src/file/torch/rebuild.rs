//! The calls that a pickle of tensors makes, by their meaning: nothing is looked up, nothing is run.

use super::global::Global;
use super::pickle::{Id, Machine, Object, Step, Stop, Storage, Tensor, wrong};

/// torch's own limit on dimensions.
const MAX_DIMS: usize = 64;

impl<'p> Machine<'p> {
    /// `("storage", class, key, device, elements)`, and in old files a part of the storage.
    pub(super) fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let Object::Tuple(items) = self.get(id) else {
            return wrong("expected a tuple as a persistent name, found another object");
        };
        let (tag, class, key, len, part) = match **items {
            [tag, class, key, _, len] => (tag, class, key, len, None),
            [tag, class, key, _, len, part] => (tag, class, key, len, Some(part)),
            _ => return wrong(format!("expected a persistent name of 5 or 6 parts, found {}", items.len())),
        };
        if part.is_some_and(|part| !matches!(self.get(part), Object::None)) {
            return Err(Stop::Unsupported("expected whole storages, found a view of one: save it again".to_owned()));
        }
        let len = self.size(len, "a storage's length")?;
        match (self.get(tag), self.get(class), self.get(key)) {
            (Object::Text("storage"), Object::Global(Global::Storage(dtype)), &Object::Text(key)) => {
                let dtype = *dtype;
                self.push_new(Object::Storage(Box::new(Storage { key, dtype, len })))
            }
            _ => wrong("expected the persistent name of a storage, found other parts"),
        }
    }

    fn size(&self, id: Id, what: &str) -> Step<usize> {
        match self.get(id) {
            Object::Int(v) => match usize::try_from(*v) {
                Ok(v) => Ok(v),
                Err(_) => wrong(format!("{what}: expected a number from 0, found {v}")),
            },
            _ => wrong(format!("{what}: expected a number, found another object")),
        }
    }

    fn sizes(&self, id: Id, what: &str) -> Step<Vec<usize>> {
        match self.get(id) {
            Object::Tuple(items) if items.len() <= MAX_DIMS => items.iter().map(|&id| self.size(id, what)).collect(),
            Object::Tuple(items) => {
                wrong(format!("{what}: expected at most {MAX_DIMS} dimensions, found {}", items.len()))
            }
            _ => wrong(format!("{what}: expected a tuple, found another object")),
        }
    }

    /// A call: of what is known, and by its meaning.
    pub(super) fn reduce(&mut self) -> Step<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let &Object::Global(function) = self.get(function) else {
            return wrong("expected a function to call, found another object");
        };
        let Object::Tuple(arguments) = self.get(arguments) else {
            return wrong("expected the arguments of a call in a tuple, found another object");
        };
        match (function, &**arguments) {
            (Global::OrderedDict, []) => self.push_new(Object::Dict(Vec::new())),
            (Global::Rebuild(version), arguments) => {
                let tensor = self.tensor(version, arguments)?;
                self.push_new(Object::Tensor(Box::new(tensor)))
            }
            // (function, class, its arguments, attributes)
            (Global::RebuildFromType, &[function, _, arguments, _]) => {
                match (self.get(function), self.get(arguments)) {
                    (&Object::Global(Global::Rebuild(version)), Object::Tuple(arguments)) => {
                        let tensor = self.tensor(version, arguments)?;
                        self.push_new(Object::Tensor(Box::new(tensor)))
                    }
                    _ => wrong("expected a tensor with attributes, found other objects"),
                }
            }
            // (tensor, whether it has a gradient, hooks, attributes)
            (Global::RebuildParameter, &[tensor, _, _] | &[tensor, _, _, _]) => match self.get(tensor) {
                Object::Tensor(_) => self.push(tensor),
                _ => wrong("expected a parameter to be a tensor, found another object"),
            },
            (Global::Size, &[sizes]) => match self.get(sizes) {
                Object::Tuple(_) => self.push(sizes),
                _ => wrong("expected a shape to be a tuple, found another object"),
            },
            (Global::Device, &[name] | &[name, _]) => match self.get(name) {
                Object::Text(_) => self.push(name),
                _ => wrong("expected the name of a device, found another object"),
            },
            (Global::Encode, &[_, _]) => self.push_new(Object::Opaque),
            (function, arguments) => {
                let n = arguments.len();
                wrong(format!("expected a call that makes a tensor, found one of {function:?} with {n} arguments"))
            }
        }
    }

    /// The tensor that torch's function `version` makes of its arguments: storage, offset, shape, strides, whether it has a
    /// gradient, hooks; in version 3 its type; marks of lazy negation and conjugation.
    fn tensor(&self, version: u8, arguments: &[Id]) -> Step<Tensor<'p>> {
        let (&[storage, offset, shape, strides], rest) = arguments.split_first_chunk::<4>().ok_or_else(|| {
            let n = arguments.len();
            Stop::Wrong(format!("expected a tensor's storage, offset, shape and strides, found {n} arguments"))
        })?;
        let (dtype, marks) = match (version, rest) {
            (1, []) | (2, [_, _]) => (None, None),
            (2, &[_, _, marks]) => (None, Some(marks)),
            (3, &[_, _, dtype]) => (Some(dtype), None),
            (3, &[_, _, dtype, marks]) => (Some(dtype), Some(marks)),
            _ => return wrong(format!("expected the arguments of a tensor, found {}", arguments.len())),
        };
        match marks.map(|marks| self.get(marks)) {
            None | Some(Object::None) => {}
            Some(Object::Dict(marks)) if marks.is_empty() => {}
            Some(_) => {
                return Err(Stop::Unsupported("expected a tensor as it lies, found one marked as negated".to_owned()));
            }
        }
        let Object::Storage(storage) = self.get(storage) else {
            return wrong("expected a tensor's storage, found another object");
        };
        let dtype = match dtype.map(|dtype| self.get(dtype)) {
            None => storage.dtype,
            Some(Object::Global(Global::Dtype(dtype, _))) => Some(*dtype),
            Some(_) => None,
        };
        let Some(dtype) = dtype else { return wrong("expected the type of a tensor's elements, found none") };
        let (shape, strides) = (self.sizes(shape, "a tensor's shape")?, self.sizes(strides, "a tensor's strides")?);
        if shape.len() != strides.len() {
            let (a, b) = (shape.len(), strides.len());
            return wrong(format!("expected as many strides as dimensions, found {b} and {a}"));
        }
        let offset = self.size(offset, "a tensor's offset")?;
        Ok(Tensor { storage: (**storage).clone(), dtype, offset, shape, strides })
    }

    /// Attributes are put on an object: torch notes versions of modules on a state dictionary. They are left out.
    pub(super) fn build(&mut self) -> Step<()> {
        self.pop()?;
        let object = self.top()?;
        match self.get(object) {
            Object::Dict(_) | Object::Tensor(_) => Ok(()),
            _ => wrong("expected attributes for a dictionary or a tensor, found another object"),
        }
    }
}
