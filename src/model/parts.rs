//! The files of a model: one, or the parts that `llama-gguf-split` cut it into.
//!
//! Parts are named `NAME-00001-of-0000N.gguf`. The first has the keys and stands for the whole, as in every program of
//! llama.cpp; each has some of the tensors. `split.no` counts from 0.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::gguf::{Gguf, Tensor};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
/// Tensors of all parts together.
const TENSORS: &str = "split.tensors.count";

/// The file at `path` and, if it is the first part of a model, those that belong to it, in order.
pub(super) fn open(path: &Path) -> Result<Vec<Gguf>> {
    let first = Gguf::open_part(path)?;
    let n = first.opt_usize(COUNT)?.unwrap_or(1);
    if n <= 1 {
        return Ok(vec![Gguf::from_map(first.map().clone())?]);
    }
    let number = first.usize(NUMBER)?;
    let name = |i: usize| named(path, number, i, n);
    let named_so = format!("-{:05}-of-{n:05}.gguf", number + 1);
    let Some(expected) = name(0) else {
        let what = format_args!("part {} of {n}: expected a name that ends in {named_so}", number + 1);
        return Err(Error::format(path, what));
    };
    if number != 0 {
        let what = format!("{}: expected the first of {n} parts, found part {}", path.display(), number + 1);
        return Err(Error::argument(what).hinted(format!("give {}, which stands for all", expected.display())));
    }
    let mut parts = vec![first];
    for i in 1..n {
        let path = name(i).unwrap_or_default();
        let part = Gguf::open_part(&path).map_err(|e| {
            e.context(format_args!("part {} of {n}", i + 1)).hinted("the parts of a model lie in one folder")
        })?;
        let found = (part.usize(NUMBER)?, part.opt_usize(COUNT)?.unwrap_or(n));
        if found != (i, n) {
            let what = format_args!("expected part {} of {n}, found part {} of {}", i + 1, found.0 + 1, found.1);
            return Err(Error::format(&path, what));
        }
        for tensor in part.tensors() {
            if parts.iter().any(|earlier| earlier.opt_tensor(&tensor.name).is_some()) {
                let what = format_args!("tensor \"{}\": expected once, found in an earlier part too", tensor.name);
                return Err(Error::format(&path, what));
            }
        }
        parts.push(part);
    }
    let (first, found) = (&parts[0], parts.iter().map(|part| part.tensors().len()).sum::<usize>());
    match first.opt_usize(TENSORS)? {
        Some(expected) if expected != found => {
            Err(Error::format(path, format_args!("expected {expected} tensors in {n} parts, found {found}")))
        }
        _ => Ok(parts),
    }
}

/// The path of part `i` beside that of part `number`, if that one is named as parts are.
fn named(path: &Path, number: usize, i: usize, n: usize) -> Option<PathBuf> {
    let suffix = |i: usize| format!("-{:05}-of-{n:05}.gguf", i + 1);
    let stem = path.file_name()?.to_str()?.strip_suffix(&suffix(number))?;
    Some(path.with_file_name(format!("{stem}{}", suffix(i))))
}

/// The tensors of all parts, each with the file that holds it.
pub(super) fn tensors(parts: &[Gguf]) -> impl Iterator<Item = (&Gguf, &Tensor)> {
    parts.iter().flat_map(|part| part.tensors().iter().map(move |tensor| (part, tensor)))
}

/// The tensor called `name`, with the file that holds it.
pub(super) fn tensor<'p>(parts: &'p [Gguf], name: &str) -> Option<(&'p Gguf, &'p Tensor)> {
    parts.iter().find_map(|part| Some((part, part.opt_tensor(name)?)))
}
