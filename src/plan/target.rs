//! The model that a plan is compiled for.

use crate::error::Result;
use crate::hook_point::HookPoint;
use crate::model::Model;

/// What a plan has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// As `general.architecture` of the GGUF file spells it; "" if it is not known: sites inside a block are then taken on
    /// trust, until a hook sees the graph.
    pub architecture: String,
    /// Number of blocks.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub d_model: usize,
}

impl Target {
    /// A model of `n_layer` blocks and width `d_model`, of unknown architecture.
    pub fn new(n_layer: usize, d_model: usize) -> Self {
        Self { architecture: String::new(), n_layer, d_model }
    }

    /// The same, of this architecture.
    pub fn with_architecture(self, architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), ..self }
    }

    /// Refuses a site that blocks of the architecture do not have.
    pub(super) fn check(&self, point: HookPoint) -> Result<()> {
        if self.architecture.is_empty() { Ok(()) } else { point.check(&self.architecture) }
    }
}

impl From<&Model> for Target {
    fn from(model: &Model) -> Self {
        Self::new(model.n_layer(), model.d_model()).with_architecture(model.architecture())
    }
}
