//! What llama.cpp may be given: [`check`] refuses a model file on which it would abort, divide by zero, read or write
//! out of bounds, or ask for memory without end.
//!
//! llama.cpp trusts the keys of a file: it asserts on some, divides by others and sizes its buffers by the rest. What
//! it checks by itself (a missing tensor, a shape that contradicts the keys) is left to it. [`LIMITS`](table::LIMITS)
//! holds the limits of single keys, each with its reason; the rest is what depends on several. The limits are wide: a
//! model that llama.cpp runs passes. Cost: the vocabulary is hashed once, 20 ms for 262,144 tokens.

mod table;
mod tensors;
mod tokens;

use std::fmt::Display;

use super::{Model, parts};
use crate::error::{Error, Result};
use crate::file::gguf::{Value, ValueType};
use table::{Allowed, HEADS_ALIKE, LIMITS, Limit, MAY_BE_INFINITE, ROTATES_WHOLE_HEADS};

/// What ggml asserts of weights that it reads where they lie.
const ALIGNMENT: usize = 32;

/// Refuses `model` if llama.cpp would not survive it.
pub(super) fn check(model: &Model) -> Result<()> {
    let checked = Checked { model };
    checked.alignment()?;
    checked.keys()?;
    let blocks = checked.blocks()?;
    checked.heads(blocks)?;
    checked.experts(blocks)?;
    checked.state(blocks)?;
    checked.tokens()?;
    checked.attention(blocks)?;
    parts::tensors(&model.parts).try_for_each(|(file, tensor)| checked.tensor(file, tensor))
}

const CORRUPT: &str = "the file is damaged or was edited; fetch or convert the model again";

/// A file under check.
struct Checked<'a> {
    model: &'a Model,
}

impl Checked<'_> {
    fn error(&self, what: impl Display) -> Error {
        Error::format(self.model.gguf().path(), what).hinted(CORRUPT)
    }

    fn wrong(&self, key: &str, expected: impl Display, found: impl Display, why: &str) -> Error {
        let reason = if why.is_empty() { String::new() } else { format!(" ({why})") };
        self.error(format_args!("key \"{key}\": expected {expected}, found {found}{reason}"))
    }

    fn name(&self, suffix: &str) -> String {
        match suffix.starts_with("tokenizer.") {
            true => suffix.to_owned(),
            false => format!("{}.{suffix}", self.model.architecture),
        }
    }

    /// The mapped data must be aligned for ggml, which asserts it.
    fn alignment(&self) -> Result<()> {
        match self.model.gguf().alignment() {
            found if found.is_multiple_of(ALIGNMENT) => Ok(()),
            found => {
                let why = "ggml reads weights in place and asserts that they start so";
                Err(self.wrong("general.alignment", format_args!("a multiple of {ALIGNMENT}"), found, why))
            }
        }
    }

    /// Holds every key against [`LIMITS`]; other floating-point keys of the architecture must be finite.
    fn keys(&self) -> Result<()> {
        for limit in LIMITS {
            for suffix in limit.keys.split_whitespace() {
                let key = self.name(suffix);
                if let Some(value) = self.model.gguf().get(&key) {
                    self.key(&key, value, limit)?;
                }
            }
        }
        for (key, value) in self.model.gguf().keys() {
            let suffix = key.strip_prefix(&self.model.architecture).and_then(|rest| rest.strip_prefix('.'));
            if suffix.is_none_or(|suffix| MAY_BE_INFINITE.contains(&suffix)) {
                continue;
            }
            if let Some(found) = numbers(value).into_iter().flatten().find(|v| !v.is_finite()) {
                let why = "all that the model computes would be infinite or no number";
                return Err(self.wrong(key, "a finite number", found, why));
            }
        }
        Ok(())
    }

    fn key(&self, key: &str, value: &Value, limit: &Limit) -> Result<()> {
        let why = limit.why;
        match limit.allowed {
            Allowed::Count(least, most) => {
                let expected = format_args!("a u32 from {least} to {most}");
                let Some(found) = counts(value) else { return Err(self.wrong(key, expected, describe(value), why)) };
                match found.into_iter().find(|v| !(least..=most).contains(v)) {
                    Some(found) => Err(self.wrong(key, expected, found, why)),
                    None => Ok(()),
                }
            }
            Allowed::Number(least, most) => {
                let Some(found) = numbers(value) else { return Err(self.wrong(key, "an f32", describe(value), why)) };
                match found.into_iter().find(|v| !(least..=most).contains(v)) {
                    // The smallest number above 0 would not be understood.
                    Some(found) if least > 0.0 => Err(self.wrong(key, "a finite number above 0", found, why)),
                    Some(found) => Err(self.wrong(key, format_args!("a number from {least} to {most}"), found, why)),
                    None => Ok(()),
                }
            }
            Allowed::Text(known) => match value.as_str() {
                Some(found) if known.contains(&found) => Ok(()),
                _ => Err(self.wrong(key, format_args!("one of {}", known.join(", ")), describe(value), why)),
            },
        }
    }

    /// The values of a key for each block: a single one counts for all; none where the key is missing.
    fn per_block(&self, suffix: &str, blocks: usize) -> Vec<u32> {
        match self.model.gguf().get(&self.name(suffix)).and_then(|v| Some((v, counts(v)?))) {
            Some((Value::Array(_), values)) => values,
            Some((_, values)) => values.into_iter().cycle().take(blocks).collect(),
            None => Vec::new(),
        }
    }

    /// The value of a key, that of the first block if there are several.
    fn first(&self, suffix: &str) -> Option<u32> {
        self.model.gguf().get(&self.name(suffix)).and_then(|v| counts(v)?.first().copied())
    }

    fn blocks(&self) -> Result<usize> {
        let key = self.name("block_count");
        let blocks = match self.model.gguf().get(&key) {
            Some(Value::U32(n)) => *n,
            found => return Err(self.wrong(&key, "a u32", found.map_or("no such key".to_owned(), describe), "")),
        };
        for suffix in ["nextn_predict_layers", "decoder_block_count", "posnet.block_count", "convnext.block_count"] {
            let found = self.first(suffix).unwrap_or(0);
            // Blocks that predict further tokens cannot be all.
            if found > blocks || (found == blocks && suffix == "nextn_predict_layers") {
                let expected = format_args!("no more than block_count allows, which is {blocks}");
                return Err(self.wrong(&self.name(suffix), expected, found, "llama.cpp indexes the blocks by it"));
            }
        }
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Heads share the width evenly, groups of heads share keys and values evenly, and rotations stay within a head.
    fn heads(&self, blocks: usize) -> Result<()> {
        let key = self.name("attention.head_count");
        let heads = self.per_block("attention.head_count", blocks);
        let shared = self.per_block("attention.head_count_kv", blocks);
        let states = ["ssm.state_size", "wkv.head_size"].iter().any(|suffix| self.first(suffix).is_some());
        if heads.iter().all(|&n| n == 0) && !states {
            let found = if heads.is_empty() { "no such key" } else { "0" };
            return Err(self.wrong(&key, "at least one head", found, "a model without a state of its own attends"));
        }
        if let Some((n, kv)) = heads.iter().zip(&shared).find(|(n, kv)| **kv > 0 && !n.is_multiple_of(**kv)) {
            let expected = format_args!("a divisor of the {n} heads");
            return Err(self.wrong(&self.name("attention.head_count_kv"), expected, kv, "ggml asserts it"));
        }
        let Some(&n) = heads.first().filter(|n| **n > 0) else { return Ok(()) };
        let width = self.first("embedding_length").unwrap_or(0);
        let given = |suffix: &str| self.first(&format!("attention.{suffix}"));
        if given("key_length").is_none() && !width.is_multiple_of(n) {
            let expected = format_args!("a divisor of embedding_length, which is {width}");
            return Err(self.wrong(&key, expected, n, "each head has an equal part of the width"));
        }
        let even = width.checked_div(n).unwrap_or(0);
        let (size, value) = (given("key_length").unwrap_or(even), given("value_length").unwrap_or(even));
        let named = |names: &[&str]| names.contains(&self.model.architecture.as_str());
        let whole = named(ROTATES_WHOLE_HEADS);
        if size != value && (whole || named(HEADS_ALIKE)) {
            let (name, found, other) = match given("key_length") {
                Some(found) => ("attention.key_length", found, value),
                None => ("attention.value_length", value, size),
            };
            let expected = format_args!("{other}, as long as values and keys are elsewhere in this model");
            return Err(self.wrong(&self.name(name), expected, found, "llama.cpp asserts it for this architecture"));
        }
        let swa = given("key_length_swa").unwrap_or(size);
        for (suffix, size) in [("rope.dimension_count", size), ("rope.dimension_count_swa", swa)] {
            let found = self.first(suffix).unwrap_or(size);
            if found > size || !found.is_multiple_of(2) {
                let expected = format_args!("an even number up to {size}, the size of a head");
                let why = "ggml turns pairs of a head's numbers and asserts that they are there";
                return Err(self.wrong(&self.name(suffix), expected, found, why));
            }
        }
        if let Some(found) = self.first("rope.dimension_count").filter(|found| whole && *found != size) {
            let expected = format_args!("{size}, the size of a head");
            let why = "llama.cpp asserts it for this architecture";
            return Err(self.wrong(&self.name("rope.dimension_count"), expected, found, why));
        }
        self.sections(size)
    }

    /// How the numbers of a head are shared out to the axes of an image's position.
    fn sections(&self, size: u32) -> Result<()> {
        let key = self.name("rope.dimension_sections");
        let Some(value) = self.model.gguf().get(&key) else { return Ok(()) };
        let sum = counts(value).and_then(|all| all.into_iter().try_fold(0u32, u32::checked_add));
        match sum {
            Some(sum) if (1..=size).contains(&sum) => Ok(()),
            found => {
                let expected = format_args!("numbers of a sum from 1 to {size}, the size of a head");
                let found = found.map_or_else(|| describe(value), |sum| format!("a sum of {sum}"));
                Err(self.wrong(&key, expected, found, "ggml asserts it and divides by the sum"))
            }
        }
    }

    /// What llama.cpp asserts of experts.
    fn experts(&self, blocks: usize) -> Result<()> {
        let n = self.first("expert_count").unwrap_or(0);
        let used = self.per_block("expert_used_count", blocks).into_iter().max().unwrap_or(0);
        let groups = self.first("expert_group_count").unwrap_or(0);
        let (name, why) = (|suffix| self.name(suffix), "llama.cpp asserts it");
        if used > n || (n > 0 && used == 0) {
            let expected = format_args!("from {} to {n}, of {n} experts", n.min(1));
            return Err(self.wrong(&name("expert_used_count"), expected, used, why));
        }
        if groups > 0 && (groups >= n || !n.is_multiple_of(groups)) {
            let expected = format_args!("a divisor of the {n} experts below their number");
            return Err(self.wrong(&name("expert_group_count"), expected, groups, why));
        }
        if let (Some(0), true) = (self.first("interleave_moe_layer_step"), n > 0) {
            let why = "llama.cpp divides the numbers of blocks by it";
            return Err(self.wrong(&name("interleave_moe_layer_step"), "at least 1", 0, why));
        }
        let taken = self.first("expert_group_used_count").unwrap_or(0);
        if groups > 1 && !(1..groups).contains(&taken) {
            let expected = format_args!("from 1 to {}, of {groups} groups", groups - 1);
            return Err(self.wrong(&name("expert_group_used_count"), expected, taken, why));
        }
        Ok(())
    }

    /// Sizes of recurrent states: llama.cpp multiplies them in 32 bits, divides by some and asserts that it can.
    fn state(&self, blocks: usize) -> Result<()> {
        let width = self.first("embedding_length").unwrap_or(0);
        if let Some(found) = self.first("wkv.head_size").filter(|n| !width.is_multiple_of(*n)) {
            let expected = format_args!("a divisor of embedding_length, which is {width}");
            return Err(self.wrong(&self.name("wkv.head_size"), expected, found, "each head has an equal part of it"));
        }
        if let Some(heads) = self.first("wkv.head_size").and_then(|size| width.checked_div(size)) {
            let given =
                ["attention.head_count_kv", "attention.head_count"].map(|suffix| self.per_block(suffix, blocks));
            let shared = given.iter().find(|all| !all.is_empty()).and_then(|all| all.iter().find(|n| **n > 0));
            if let Some(found) = shared.filter(|found| !heads.is_multiple_of(**found)) {
                let expected = format_args!("0 or a divisor of the {heads} heads of size wkv.head_size");
                return Err(self.wrong(&self.name("attention.head_count_kv"), expected, found, "llama.cpp asserts it"));
            }
        }
        let Some(inner) = self.first("ssm.inner_size") else { return Ok(()) };
        if let Some(found) = self.first("ssm.group_count").filter(|n| !inner.is_multiple_of(*n)) {
            let expected = format_args!("a divisor of ssm.inner_size, which is {inner}");
            return Err(self.wrong(&self.name("ssm.group_count"), expected, found, "llama.cpp asserts it"));
        }
        for suffix in ["ssm.state_size", "ssm.conv_kernel"] {
            if let Some(found) = self.first(suffix).filter(|n| n.checked_mul(inner).is_none_or(|n| n > i32::MAX as u32))
            {
                let expected = format_args!("a product with ssm.inner_size, {inner}, below 2^31");
                return Err(self.wrong(&self.name(suffix), expected, found, "llama.cpp multiplies them in 32 bits"));
            }
        }
        Ok(())
    }
}

/// The value as one or more counts; none if it is of another type.
fn counts(value: &Value) -> Option<Vec<u32>> {
    match value {
        Value::U32(v) => Some(vec![*v]),
        Value::Array(list) => match list.kind() {
            ValueType::U32 => list.to_vec::<u32>(),
            // Some converters write signed numbers; a negative one is beyond every limit, as it is for llama.cpp.
            ValueType::I32 => Some(list.to_vec::<i32>()?.into_iter().map(|v| v as u32).collect()),
            ValueType::U64 => {
                Some(list.to_vec::<u64>()?.into_iter().map(|v| u32::try_from(v).unwrap_or(u32::MAX)).collect())
            }
            ValueType::Bool => Some(list.raw().iter().map(|&b| u32::from(b)).collect()),
            _ => None,
        },
        _ => None,
    }
}

/// The value as one or more numbers; none if it is of another type.
fn numbers(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::F32(v) => Some(vec![*v]),
        Value::Array(list) => list.to_vec::<f32>(),
        _ => None,
    }
}

/// A value in words: its type, and what it is if that is short.
fn describe(value: &Value) -> String {
    let kind = value.describe();
    match value {
        Value::Array(list) => format!("{kind} of {} elements", list.len()),
        Value::Str(text) if text.len() < 64 => format!("{text:?}"),
        _ => match (value.as_int(), value.as_f64()) {
            (Some(v), _) => format!("{kind} {v}"),
            (_, Some(v)) => format!("{kind} {v}"),
            _ => kind.into_owned(),
        },
    }
}
