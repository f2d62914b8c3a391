//! Floor 1: hook points: where in a block rows are read and edited, and which of them an architecture has.
//!
//! A block of a pre-norm transformer adds to the residual stream twice:
//!
//! ```text
//! resid_pre ──(+ attn_out)──▶ resid_mid ──(+ mlp_out)──▶ resid_post = resid_pre of the next block
//! ```
//!
//! The names are those of TransformerLens, and so is what they mean: `attn_out` and `mlp_out` are what is added, after any
//! norm that stands behind the sublayer and any scale of the residual. Not all architectures have such blocks: where
//! attention and MLP run side by side there is no `resid_mid`. [`HookPoint::check`] has the table of what exists; which node
//! of a graph it is, the [hook](crate::hook) finds from the graph.

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

    /// Whether blocks of an architecture, as GGUF's `general.architecture` spells it, have this site.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if they do not, or if nobody looked; the message says what exists.
    pub fn check(self, architecture: &str) -> Result<()> {
        if let Some((_, why)) = NONE.iter().find(|(names, _)| names.contains(&architecture)) {
            return Err(Error::unsupported(format!("hook point: \"{architecture}\" has none: {why}")));
        }
        let sites = SITES.iter().find(|(names, _)| names.contains(&architecture)).map_or(RESIDUAL, |(_, sites)| *sites);
        if sites.contains(&self.site) {
            return Ok(());
        }
        let known = sites.iter().map(|site| site.name()).collect::<Vec<_>>().join(", ");
        let which = match architecture {
            "" => "a model of unknown architecture".into(),
            name => format!("\"{name}\""),
        };
        let found = self.site.name();
        Err(Error::unsupported(format!("hook point: {which} has {known}, found \"{found}\": use one of these")))
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

/// What every architecture has, also those that the tables lack.
const RESIDUAL: &[Site] = &[Site::ResidPre, Site::ResidPost];

/// Architectures that have more, as their graphs show.
#[rustfmt::skip]
const SITES: &[(&[&str], &[Site])] = &[
    // Attention or another mixer, then the MLP, each added to the residual stream.
    (&["afmoe", "apertus", "arcee", "baichuan", "bailingmoe", "bailingmoe2", "bitnet", "bloom", "chatglm",
       "codeshell", "dbrx", "deci", "deepseek", "deepseek2", "deepseek32", "ernie4_5", "exaone", "exaone-moe",
       "exaone4", "falcon-h1", "gemma", "gemma2", "gemma3", "glm-dsa", "glm4", "glm4moe", "gpt-oss", "gpt2",
       "granite", "granitehybrid", "granitemoe", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe", "hy_v3",
       "internlm2", "jais", "jais2", "jamba", "laguna", "lfm2", "lfm2moe", "llama", "llama4", "maincoder", "mellum",
       "mimo2", "minicpm", "minicpm3", "minimax-m2", "mistral3", "mistral4", "mpt", "nanbeige", "nemotron", "olmo",
       "olmo2", "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded", "phi3", "phimoe", "plamo2", "plamo3",
       "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl",
       "qwen3vlmoe", "refact", "rwkv6", "rwkv7", "seed_oss", "smallthinker", "smollm3", "stablelm", "starcoder",
       "starcoder2", "xverse"], &Site::ALL),
    // What the MLP adds is scaled together with the residual stream.
    (&["gemma4"], &[Site::ResidPre, Site::AttnOut, Site::ResidMid, Site::ResidPost]),
    // One sublayer a block.
    (&["mamba", "mamba2"], &[Site::ResidPre, Site::AttnOut, Site::ResidPost]),
];

/// Architectures that have no residual stream of one row a token, and why.
const NONE: &[(&[&str], &str)] = &[
    (&["deepseek4", "qwen4exp"], "several residual streams are mixed anew in every block (hyper-connections)"),
    (&["t5"], "its encoder and its decoder have blocks of the same numbers"),
    (
        &[
            "bert",
            "eurobert",
            "jina-bert-v2",
            "jina-bert-v3",
            "modern-bert",
            "neo-bert",
            "nomic-bert",
            "nomic-bert-moe",
            "t5encoder",
        ],
        "it is an encoder, which writes no text",
    ),
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
    fn an_architecture_without_a_site_says_what_it_has() {
        let point = HookPoint::new(Site::ResidMid, 2);
        for architecture in ["llama", "gemma3", "qwen3"] {
            point.check(architecture).unwrap();
        }
        for architecture in ["falcon", "command-r", "an architecture of tomorrow", ""] {
            let error = point.check(architecture).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains("has resid_pre, resid_post, found \"resid_mid\""), "{error}");
            HookPoint::from(3).check(architecture).unwrap();
        }
        let error = HookPoint::from(3).check("deepseek4").unwrap_err();
        assert!(error.message().contains("\"deepseek4\" has none: several residual streams"), "{error}");
    }
}
