//! Floor 1: hook points: where in a block rows are read and edited, and which node of llama.cpp's graph that is.
//!
//! A block of a pre-norm transformer adds to the residual stream twice:
//!
//! ```text
//! resid_pre ──(+ attn_out)──▶ resid_mid ──(+ mlp_out)──▶ resid_post = resid_pre of the next block
//! ```
//!
//! The names are those of TransformerLens, and so is what they mean: `attn_out` and `mlp_out` are what is added, after any
//! norm that stands behind the sublayer. llama.cpp gives nodes names of its own, which differ between architectures;
//! [`HookPoint::node`] has the table, read from the graphs of the llama.cpp that the engine builds. Only `resid_post` is
//! called the same, `l_out-L`, in all of them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A place in a block, in the order in which the graph computes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The residual stream that the block reads.
    ResidPre,
    /// What attention adds to it.
    AttnOut,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// What the MLP adds to it.
    MlpOut,
    /// The residual stream after the block.
    #[default]
    ResidPost,
}

impl Site {
    /// Every site.
    pub const ALL: [Self; 5] = [Self::ResidPre, Self::AttnOut, Self::ResidMid, Self::MlpOut, Self::ResidPost];

    /// `resid_pre`, `attn_out`, `resid_mid`, `mlp_out`, `resid_post`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "resid_pre",
            Self::AttnOut => "attn_out",
            Self::ResidMid => "resid_mid",
            Self::MlpOut => "mlp_out",
            Self::ResidPost => "resid_post",
        }
    }
}

impl FromStr for Site {
    type Err = Error;

    /// By its name, with or without `hook_` in front.
    fn from_str(text: &str) -> Result<Self> {
        let name = text.strip_prefix("hook_").unwrap_or(text);
        Self::ALL.into_iter().find(|site| site.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::unsupported(format!("hook point: expected one of {names}, found \"{text}\""))
        })
    }
}

/// A site of a block. Ordered as the graph computes them.
///
/// `resid_pre` of a block from 1 *is* `resid_post` of the one before it, and is made that: equal points are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPoint {
    layer: usize,
    site: Site,
}

impl HookPoint {
    /// The `site` of block `layer`, counted from 0.
    pub fn new(site: Site, layer: usize) -> Self {
        match (site, layer.checked_sub(1)) {
            (Site::ResidPre, Some(before)) => Self { layer: before, site: Site::ResidPost },
            _ => Self { layer, site },
        }
    }

    /// The block.
    pub fn layer(self) -> usize {
        self.layer
    }

    /// The place in it.
    pub fn site(self) -> Site {
        self.site
    }

    /// The layer, if this is the residual stream after a block.
    pub fn resid_post(self) -> Option<usize> {
        (self.site == Site::ResidPost).then_some(self.layer)
    }

    /// The name of the node of llama.cpp's graph that holds the rows, `[n_tokens, d_model]`, without its block.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if no node of this architecture does; the message says what exists.
    pub fn node(self, architecture: &str) -> Result<&'static str> {
        let nodes = NODES.iter().find(|(names, _)| names.contains(&architecture)).map_or(Nodes::UNKNOWN, |(_, n)| *n);
        nodes.of(self.site).ok_or_else(|| {
            let known = Site::ALL.into_iter().filter(|&site| nodes.of(site).is_some()).map(Site::name);
            let known = known.collect::<Vec<_>>().join(", ");
            let which = if architecture.is_empty() {
                "a model of unknown architecture".into()
            } else {
                format!("\"{architecture}\"")
            };
            Error::unsupported(format!(
                "hook point: the graph of {which} shows {known}, found \"{}\": use one of these",
                self.site.name()
            ))
        })
    }
}

impl From<usize> for HookPoint {
    /// The residual stream after block `layer`.
    fn from(layer: usize) -> Self {
        Self::new(Site::ResidPost, layer)
    }
}

impl fmt::Display for HookPoint {
    /// As TransformerLens names it: `blocks.19.hook_resid_post`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "blocks.{}.hook_{}", self.layer, self.site.name())
    }
}

impl FromStr for HookPoint {
    type Err = Error;

    /// From the names of TransformerLens (`blocks.19.hook_resid_post`) and, for the residual stream after a block, of
    /// Hugging Face and sparsify (`model.layers.19`, `layers.19`).
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let names = Site::ALL.map(Site::name).join(", ");
            Error::unsupported(format!("hook point: expected blocks.L.hook_S with S one of {names}, found \"{text}\""))
        };
        if let Some(layer) = text.strip_prefix("model.layers.").or_else(|| text.strip_prefix("layers.")) {
            return layer.parse::<usize>().map(Self::from).map_err(|_| wrong());
        }
        let (layer, site) = text.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')).ok_or_else(wrong)?;
        let layer = layer.parse().map_err(|_| wrong())?;
        let site = site.strip_prefix("hook_").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        Ok(Self::new(site, layer))
    }
}

/// The nodes of an architecture's graph.
#[derive(Clone, Copy)]
struct Nodes {
    /// What the first block reads.
    embedding: Option<&'static str>,
    attn_out: Option<&'static str>,
    resid_mid: Option<&'static str>,
    mlp_out: Option<&'static str>,
}

impl Nodes {
    /// Of an architecture that the table lacks.
    const UNKNOWN: Self = Self { embedding: None, attn_out: None, resid_mid: None, mlp_out: None };

    const fn new(embedding: &'static str, resid_mid: &'static str, mlp_out: &'static str) -> Self {
        Self { embedding: Some(embedding), attn_out: None, resid_mid: Some(resid_mid), mlp_out: Some(mlp_out) }
    }

    const fn with_attention(mut self, attn_out: &'static str) -> Self {
        self.attn_out = Some(attn_out);
        self
    }

    fn of(self, site: Site) -> Option<&'static str> {
        match site {
            Site::ResidPre => self.embedding,
            Site::AttnOut => self.attn_out,
            Site::ResidMid => self.resid_mid,
            Site::MlpOut => self.mlp_out,
            Site::ResidPost => Some("l_out"),
        }
    }
}

/// Architectures, as GGUF's `general.architecture` spells them, with their nodes. Several graphs call the sum after the MLP
/// `ffn_out` too, after the MLP itself: the first node of that name is the one. Where attention's output has no name of its
/// own, it is not here.
const NODES: &[(&[&str], Nodes)] = &[
    (&["llama", "mistral3", "smollm3", "arcee"], Nodes::new("embd", "ffn_inp", "ffn_out").with_attention("attn_out")),
    (&["gemma2", "gemma3"], Nodes::new("inp_scaled", "sa_out", "ffn_post_norm").with_attention("attn_post_norm")),
    (&["gemma"], Nodes::new("inp_scaled", "sa_out", "ffn_out")),
    (&["olmo2"], Nodes::new("embd", "ffn_inp", "ffn_post_norm").with_attention("attn_post_norm")),
    (&["qwen2", "qwen3", "internlm2", "starcoder2", "stablelm", "nemotron"], Nodes::new("embd", "ffn_inp", "ffn_out")),
    (&["gpt2"], Nodes::new("inpL", "ffn_inp", "ffn_out")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn names_are_read_and_written() {
        for (text, point) in [
            ("blocks.19.hook_resid_post", HookPoint::from(19)),
            ("blocks.20.hook_resid_pre", HookPoint::from(19)),
            ("blocks.0.hook_resid_pre", HookPoint::new(Site::ResidPre, 0)),
            ("blocks.3.hook_mlp_out", HookPoint::new(Site::MlpOut, 3)),
            ("model.layers.7", HookPoint::from(7)),
            ("layers.7", HookPoint::from(7)),
        ] {
            assert_eq!(text.parse::<HookPoint>().unwrap(), point, "{text}");
            assert_eq!(point.to_string().parse::<HookPoint>().unwrap(), point);
        }
        for text in ["", "blocks.", "blocks.x.hook_mlp_out", "blocks.1.mlp_out", "blocks.1.attn.hook_z", "layers.-1"] {
            let error = text.parse::<HookPoint>().unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains("resid_mid") && error.message().contains(text), "{error}");
        }
    }

    #[test]
    fn points_are_ordered_as_computed() {
        let mut points: Vec<HookPoint> =
            [1, 0].into_iter().flat_map(|layer| Site::ALL.map(|site| HookPoint::new(site, layer))).collect();
        points.sort_unstable();
        points.dedup();
        let names: Vec<String> = points.iter().map(|p| format!("{}{}", p.site().name(), p.layer())).collect();
        let expected = "resid_pre0 attn_out0 resid_mid0 mlp_out0 resid_post0 attn_out1 resid_mid1 mlp_out1 resid_post1";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn an_architecture_without_a_node_says_what_it_has() {
        let point = HookPoint::new(Site::AttnOut, 2);
        assert_eq!(point.node("llama").unwrap(), "attn_out");
        assert_eq!(point.node("gemma3").unwrap(), "attn_post_norm");
        let error = point.node("qwen3").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains("resid_pre, resid_mid, mlp_out, resid_post"), "{error}");
        assert!(error.message().contains("\"attn_out\""), "{error}");
        assert_eq!(HookPoint::from(3).node("rwkv9").unwrap(), "l_out");
        assert!(point.node("rwkv9").unwrap_err().message().contains("shows resid_post,"));
    }
}
