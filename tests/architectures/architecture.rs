//! What is known of an architecture before any graph: the GGUF keys of its smallest model, and which weights read the
//! residual stream where. No name of a node stands here.

use tiller::hook_point::Site;

use super::support::raw::Value;
use Block::{Closed, Mixer, Mlp, Parallel, Steps, Streams};
use Value::{Count, Real};

/// A model to be made.
pub(crate) struct Architecture {
    /// What the test's table calls it.
    pub(crate) name: &'static str,
    /// As GGUF's `general.architecture` spells it.
    pub(crate) gguf: &'static str,
    /// Without the architecture in front.
    pub(crate) keys: Vec<(&'static str, Value)>,
    /// How block L is built; the last entry holds for all after it.
    blocks: Vec<Block>,
    /// The weight that reads the stream after the MLP where more is added before the block ends.
    pub(crate) after: Option<&'static str>,
    /// A batch may hold rows in place of tokens.
    pub(crate) rows: bool,
}

/// How a block adds to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Attention (or another mixer), then an MLP; this weight is the first to read the stream in between.
    Steps(&'static str),
    /// Attention and MLP read the same rows.
    Parallel,
    /// One sublayer, which mixes tokens.
    Mixer,
    /// One sublayer, an MLP.
    Mlp,
    /// Several streams, of which the first is the active one; what sublayers add is mixed into all.
    Streams,
    /// Nothing here is a row that tiller steers: encoders, encoder–decoders, streams without an active one.
    Closed,
}

impl Block {
    /// Whether such a block has this site.
    pub(crate) fn has(self, site: Site) -> bool {
        match (self, site) {
            (Closed, _) => false,
            (_, Site::ResidPre | Site::ResidPost) | (Steps(_), _) => true,
            (Parallel, site) => site != Site::ResidMid,
            (Mixer, site) => site == Site::AttnOut,
            (Mlp, site) => site == Site::MlpOut,
            (Streams, _) => false,
        }
    }
}

impl Architecture {
    /// How a block is built.
    pub(crate) fn block(&self, layer: usize) -> Block {
        self.blocks.get(layer).or(self.blocks.last()).copied().unwrap_or(Steps("ffn_norm"))
    }

    /// All blocks are built so.
    pub(crate) fn all(self, block: Block) -> Self {
        self.each(vec![block])
    }

    /// Each block on its own; the last holds for all after it.
    pub(crate) fn each(mut self, blocks: Vec<Block>) -> Self {
        self.blocks = blocks;
        self
    }

    /// llama.cpp takes no rows in place of tokens here.
    pub(crate) fn tokens_only(mut self) -> Self {
        self.rows = false;
        self
    }

    /// This weight reads the stream after the MLP.
    pub(crate) fn after(mut self, weight: &'static str) -> Self {
        self.after = Some(weight);
        self
    }
}

/// Three blocks, 64 wide, four heads; `keys` are added, or take the place of such.
pub(crate) fn model(name: &'static str, gguf: &'static str, keys: Vec<(&'static str, Value)>) -> Architecture {
    let mut all = vec![
        ("vocab_size", Count(96)),
        ("context_length", Count(64)),
        ("embedding_length", Count(64)),
        ("block_count", Count(3)),
        ("feed_forward_length", Count(96)),
        ("attention.head_count", Count(4)),
        ("attention.head_count_kv", Count(2)),
        ("attention.layer_norm_epsilon", Real(1e-5)),
        ("attention.layer_norm_rms_epsilon", Real(1e-5)),
    ];
    for (key, value) in keys {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => all.push((key, value)),
        }
    }
    Architecture { name, gguf, keys: all, blocks: vec![Steps("ffn_norm")], after: None, rows: true }
}
