//! Tensors: their elements, and types that the operation which reads them has.

use super::{CORRUPT, Checked};
use crate::error::{Error, Result};
use crate::file::gguf::{GgmlType, Gguf, Tensor};

impl Checked<'_> {
    /// A tensor has elements, of a type that the operation which reads it has.
    pub(super) fn tensor(&self, file: &Gguf, t: &Tensor) -> Result<()> {
        let name = &t.name;
        if t.shape.contains(&0) {
            let what =
                format_args!("tensor \"{name}\": expected no dimension of 0, found {:?} (ggml divides by it)", t.shape);
            return Err(Error::format(file.path(), what).hinted(CORRUPT));
        }
        let (fits, expected) = match operation(name) {
            Operation::Elementwise => (t.kind == GgmlType::F32, "F32"),
            Operation::Lookup => (matches!(t.kind, GgmlType::I32 | GgmlType::I64), "I32 or I64"),
            Operation::Product => (multiplies(t.kind), "F32, F16, BF16 or a quantized type"),
        };
        if fits {
            return Ok(());
        }
        let what = format_args!("tensor \"{name}\": expected type {expected}, found {}", t.kind);
        let hint = "ggml has no operation for that type there; convert the model again";
        Err(Error::format(file.path(), what).hinted(hint))
    }

    /// Some graphs read the weights of queries, keys and values without asking whether they are there.
    pub(super) fn attention(&self, blocks: usize) -> Result<()> {
        if !["phi3", "pockettts"].contains(&self.model.architecture.as_str()) {
            return Ok(());
        }
        for block in 0..blocks {
            let has = |part: &str| self.model.tensor(&format!("blk.{block}.attn_{part}.weight")).is_some();
            if !has("qkv") && !["q", "k", "v"].into_iter().all(has) {
                let name = format!("blk.{block}.attn_qkv.weight");
                let what = format_args!("expected a tensor \"{name}\", or one each for q, k and v; found neither");
                return Err(self.error(what));
            }
        }
        Ok(())
    }
}

/// What llama.cpp does with a tensor, as its name says (`llm_tensor_info` in llama-arch.cpp).
enum Operation {
    /// A matrix, or rows that are looked up.
    Product,
    /// Added to rows, multiplied with them, or read number by number: F32 only.
    Elementwise,
    /// A table of numbers of tokens or experts.
    Lookup,
}

/// Parts of the names of tensors that are read element by element.
const ELEMENTWISE: &[&str] = &[
    "norm",
    "rope_freqs",
    "rope_factors",
    "ssm_conv1d",
    "shortconv.conv",
    "_lerp_",
    "time_mix_first",
    "time_mix_w0",
    "time_mix_a0",
    "time_mix_v0",
    "time_mix_k_k",
    "time_mix_k_a",
    "time_mix_r_k",
    "time_mix_ln",
    "attn_sinks",
    "exp_probs_b",
    "_scale.",
    "ffn_act",
];

fn operation(name: &str) -> Operation {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    if ["tid2eid", "d2t", "token_ordering"].iter().any(|part| stem.ends_with(part)) {
        return Operation::Lookup;
    }
    // `ssm_alpha` and `ssm_dt` are matrices, and so are `time_mix_decay_w1` and `_w2`.
    let whole = ["ssm_a", "ssm_d", "time_mix_decay"].iter().any(|part| stem.ends_with(part));
    let suffix = name.ends_with(".bias") || name.ends_with(".scale");
    match whole || suffix || ELEMENTWISE.iter().any(|part| name.contains(part)) {
        true => Operation::Elementwise,
        false => Operation::Product,
    }
}

/// Whether ggml can multiply rows of this type and look them up. Others it would call through a NULL pointer.
fn multiplies(kind: GgmlType) -> bool {
    use GgmlType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    !matches!(kind, I8 | I16 | I32 | I64 | F64 | Q8_1 | Q8_K)
}
