//! Floor 4: what to do to the residual stream, as data.
#![allow(missing_docs)]
use std::collections::BTreeMap;

use crate::error::Result;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowMeta {
    pub position: i32,
    pub sequence: i32,
    pub generated: bool,
}
#[derive(Default)]
pub struct Scratch;
impl Scratch {
    pub fn take_fault(&mut self) -> Option<String> {
        None
    }
}
#[derive(Clone)]
pub struct ControlVector;
impl ControlVector {
    pub fn data(&self, _n_layer: usize) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
}
#[derive(Clone)]
pub struct Compiled {
    pub layers: BTreeMap<usize, LayerOps>,
    pub control_vector: Option<ControlVector>,
    pub n_layer: usize,
    pub d_model: usize,
}
pub struct Edited {
    pub edited: u64,
    pub failed: u64,
}
#[derive(Clone)]
pub struct LayerOps;
impl LayerOps {
    pub fn d_model(&self) -> usize {
        0
    }
    pub fn apply(&self, _r: &mut [f32], _m: &[RowMeta], _s: &mut Scratch) -> Edited {
        Edited { edited: 0, failed: 0 }
    }
}
