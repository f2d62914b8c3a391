//! An observer of graphs that knows nothing of tiller: it finds the residual stream by the weights that read it, and reads
//! it right before each node that uses it.

use std::collections::{BTreeMap, HashMap};

use ggml_sys::ggml_tensor;

use super::support::raw::{self, Seen};
use super::table::{Architecture, Block};

/// A graph that ran: its nodes in order, and what they read.
#[derive(Default)]
pub(crate) struct Graph {
    order: Vec<usize>,
    /// The names of the nodes. A graph that follows may use the same addresses.
    pub(crate) names: Vec<String>,
    tensors: HashMap<usize, Seen>,
}

/// Where the residual stream of a block is read; places of nodes in the order of the graph.
pub(crate) struct Stream {
    /// What the block reads first.
    pub(crate) pre: usize,
    /// What its second sublayer reads, or, of parallel blocks, what attention puts out.
    pub(crate) mid: Option<usize>,
    /// What is read first after the MLP.
    pub(crate) after: usize,
    /// What the next block, or the last norm, reads.
    pub(crate) post: usize,
}

impl Graph {
    /// A node is asked about.
    pub(crate) fn add(&mut self, tensor: *mut ggml_tensor) {
        let seen = raw::see(tensor);
        for &source in &seen.sources {
            self.tensors.entry(source).or_insert_with(|| raw::see(source as *const ggml_tensor));
        }
        self.order.push(tensor as usize);
        self.names.push(seen.name.clone());
        self.tensors.insert(tensor as usize, seen);
    }

    /// The streams of all `n_layer` blocks; an error names the block whose reader is not there.
    pub(crate) fn streams(&self, architecture: &Architecture, n_layer: usize) -> Result<Vec<Stream>, String> {
        let weight = |layer: usize, name: &str| {
            let wanted = format!("blk.{layer}.{name}");
            // falcon-h1 gives one of its weights no suffix.
            let reader = self.reader(|leaf| leaf.strip_suffix(".weight").unwrap_or(leaf) == wanted);
            reader.and_then(|node| self.read_by(node)).ok_or(format!("nothing reads {wanted}"))
        };
        let input = |layer: usize| {
            let prefix = format!("blk.{layer}.");
            let reader = self.reader(|leaf| leaf.starts_with(&prefix));
            reader.and_then(|node| self.read_by(node)).ok_or(format!("nothing reads {prefix}*"))
        };
        (0..n_layer)
            .map(|layer| {
                let block = architecture.block(layer);
                let post = if layer + 1 < n_layer { input(layer + 1)? } else { self.last(block == Block::Streams)? };
                let mid = match block {
                    Block::Steps(name) => Some(weight(layer, name)?),
                    Block::Parallel => Some(self.attention(layer)?),
                    _ => None,
                };
                let after = architecture.after.map_or(Ok(post), |name| weight(layer, name))?;
                Ok(Stream { pre: input(layer)?, mid, after, post })
            })
            .collect()
    }

    /// The places of the nodes that compute with a node's numbers, through any views of them.
    pub(crate) fn consumers(&self, node: usize) -> Vec<usize> {
        let root = self.tensors[&self.order[node]].root;
        let reads = |place: &usize| {
            let seen = &self.tensors[&self.order[*place]];
            let views = ["VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"].contains(&seen.op.as_str());
            seen.computed && !views && seen.sources.iter().any(|source| self.tensors[source].root == root)
        };
        (node + 1..self.order.len()).filter(reads).collect()
    }

    fn is_leaf(&self, tensor: usize) -> bool {
        self.tensors[&tensor].op == "NONE"
    }

    /// The first node that computes with a weight that is `wanted` and with something computed before.
    fn reader(&self, wanted: impl Fn(&str) -> bool) -> Option<usize> {
        self.order.iter().copied().find(|node| {
            let seen = &self.tensors[node];
            let weight = |source: &usize| self.is_leaf(*source) && wanted(&self.tensors[source].name);
            seen.computed && seen.sources.iter().any(weight) && seen.sources.iter().any(|source| !self.is_leaf(*source))
        })
    }

    /// What the norm in front of `node` reads, or the matrix product itself where there is none.
    fn read_by(&self, mut node: usize) -> Option<usize> {
        loop {
            let seen = &self.tensors[&node];
            let operand = seen.sources.iter().copied().find(|source| !self.is_leaf(*source))?;
            let norm = |tensor: usize| self.tensors[&tensor].op.ends_with("NORM");
            match seen.op.as_str() {
                "RMS_NORM" | "NORM" => return self.place(operand),
                "MUL_MAT" if !norm(operand) => return self.place(operand),
                "MUL_MAT" | "MUL" | "ADD" | "RESHAPE" => node = operand,
                _ => return None,
            }
        }
    }

    /// What the last norm reads; of several streams, the first one of what they are merged from.
    fn last(&self, streams: bool) -> Result<usize, String> {
        let weights = ["output_norm.weight", "token_embd_norm.weight"];
        let uses = |node: &&usize| {
            let seen = &self.tensors[*node];
            seen.sources.iter().any(|source| weights.contains(&self.tensors[source].name.as_str()))
        };
        let norm = |node: &&usize| self.tensors[*node].op.ends_with("NORM");
        let node = self.order.iter().rev().find(uses).or_else(|| self.order.iter().rev().find(norm));
        let read = node.and_then(|&node| self.read_by(node)).ok_or("no last norm")?;
        let mut node = self.order[read];
        while streams && self.tensors[&node].op != "VIEW" {
            node = *self.tensors[&node].sources.first().ok_or("the merged streams are no views")?;
        }
        self.place(node).ok_or("the last norm reads a leaf".into())
    }

    /// The output of attention, with its scale and bias.
    fn attention(&self, layer: usize) -> Result<usize, String> {
        let prefix = format!("blk.{layer}.attn_output.");
        let mut node = self.reader(|leaf| leaf.starts_with(&prefix)).ok_or(format!("nothing reads {prefix}*"))?;
        let next = |before: usize| {
            self.order.iter().copied().find(|node| {
                let sources = &self.tensors[node].sources;
                sources.contains(&before) && sources.iter().any(|leaf| self.tensors[leaf].name.starts_with(&prefix))
            })
        };
        while let Some(more) = next(node) {
            node = more;
        }
        self.place(node).ok_or("attention's output is a leaf".into())
    }

    fn place(&self, tensor: usize) -> Option<usize> {
        self.order.iter().position(|node| *node == tensor)
    }
}

/// Which tensors are read, and when: right before each node that uses them.
#[derive(Default)]
pub(crate) struct Watch {
    /// Place of the node after which to read → the places of the tensors to read.
    at: BTreeMap<usize, Vec<usize>>,
}

/// What was read, by place; one copy for each node that used it.
pub(crate) type Reading = BTreeMap<usize, Vec<Vec<f32>>>;

impl Watch {
    pub(crate) fn new(graph: &Graph, streams: &[Stream]) -> Self {
        let mut watched: Vec<usize> =
            streams.iter().flat_map(|s| [Some(s.pre), s.mid, Some(s.after), Some(s.post)]).flatten().collect();
        watched.sort_unstable();
        watched.dedup();
        let mut at: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for tensor in watched {
            for consumer in graph.consumers(tensor) {
                at.entry((consumer - 1).max(tensor)).or_default().push(tensor);
            }
        }
        Self { at }
    }

    /// Is something to be read after this node?
    pub(crate) fn wants(&self, place: usize) -> bool {
        self.at.contains_key(&place)
    }

    /// Reads what is to be read after the node at `place`; `nodes` are those of this run, in order.
    pub(crate) fn read(&self, place: usize, nodes: &[*mut ggml_tensor], into: &mut Reading) {
        for tensor in self.at.get(&place).into_iter().flatten() {
            into.entry(*tensor).or_default().push(raw::elements(nodes[*tensor]));
        }
    }
}
