//! An observer of graphs that knows nothing of tiller: it finds the residual stream by the weights that read it, and reads
//! it right before each node that uses it, after the hook has answered for that node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ggml_sys::ggml_tensor;

use super::architecture::{Architecture, Block};
use super::support::raw::{self, Seen};

/// A graph that ran: its nodes in order, and what they read.
#[derive(Default)]
pub(crate) struct Graph {
    order: Vec<usize>,
    /// The names of the nodes. A graph that follows may use the same addresses.
    pub(crate) names: Vec<String>,
    tensors: HashMap<usize, Seen>,
}

/// A tensor of a graph: a node, by its place in the order, or an input, by a place that reads it and which operand it is
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Node(usize),
    Input(usize, usize),
}

impl Place {
    pub(crate) fn is_input(self) -> bool {
        matches!(self, Self::Input(..))
    }
}

/// Where the residual stream of a block is read.
pub(crate) struct Stream {
    /// What the block reads first.
    pub(crate) pre: Place,
    /// What its second sublayer reads, or, of parallel blocks, what attention puts out.
    pub(crate) mid: Option<Place>,
    /// What is read first after the MLP.
    pub(crate) after: Place,
    /// What the next block, or the last norm, reads.
    pub(crate) post: Place,
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

    /// The places of the nodes that compute with a tensor's numbers, through any views of the same memory.
    fn consumers(&self, place: Place) -> Vec<usize> {
        let (first, root) = match place {
            Place::Node(node) => {
                let seen = &self.tensors[&self.order[node]];
                (if is_view(seen) { 0 } else { node + 1 }, seen.root)
            }
            Place::Input(reader, operand) => (0, self.tensors[&self.order[reader]].sources[operand]),
        };
        let reads = |place: &usize| {
            let seen = &self.tensors[&self.order[*place]];
            seen.computed && !is_view(seen) && seen.sources.iter().any(|source| self.tensors[source].root == root)
        };
        (first..self.order.len()).filter(reads).collect()
    }

    /// Where a node's numbers are before it is asked about: a view's are part of another node.
    fn piece(&self, node: usize) -> Piece {
        let seen = &self.tensors[&self.order[node]];
        let len = seen.shape.iter().product::<i64>() as usize;
        match self.order.iter().position(|tensor| *tensor == seen.root) {
            Some(root) if is_view(seen) => Piece { node, root, offset: seen.offset, len },
            _ => Piece { node, root: node, offset: 0, len },
        }
    }

    fn is_weight(&self, tensor: usize) -> bool {
        self.tensors[&tensor].op == "NONE" && !self.tensors[&tensor].input
    }

    /// The first node that computes with a weight that is `wanted` and with something that is no weight.
    fn reader(&self, wanted: impl Fn(&str) -> bool) -> Option<usize> {
        self.order.iter().copied().find(|node| {
            let seen = &self.tensors[node];
            let weight = |source: &usize| self.is_weight(*source) && wanted(&self.tensors[source].name);
            seen.computed
                && seen.sources.iter().any(weight)
                && !seen.sources.iter().all(|&source| self.is_weight(source))
        })
    }

    /// What the norm in front of `node` reads, or the matrix product itself where there is none.
    fn read_by(&self, mut node: usize) -> Option<Place> {
        loop {
            let seen = &self.tensors[&node];
            let operand = seen.sources.iter().copied().find(|&source| !self.is_weight(source))?;
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
    fn last(&self, streams: bool) -> Result<Place, String> {
        let weights = ["output_norm.weight", "token_embd_norm.weight"];
        let uses = |node: &&usize| {
            let seen = &self.tensors[*node];
            seen.sources.iter().any(|source| weights.contains(&self.tensors[source].name.as_str()))
        };
        let norm = |node: &&usize| self.tensors[*node].op.ends_with("NORM");
        let node = self.order.iter().rev().find(uses).or_else(|| self.order.iter().rev().find(norm));
        let Some(Place::Node(read)) = node.and_then(|&node| self.read_by(node)) else {
            return Err("no last norm".into());
        };
        let mut node = self.order[read];
        while streams && self.tensors[&node].op != "VIEW" {
            node = *self.tensors[&node].sources.first().ok_or("the merged streams are no views")?;
        }
        self.place(node).ok_or("the last norm reads no node".into())
    }

    /// The output of attention, with its scale and bias.
    fn attention(&self, layer: usize) -> Result<Place, String> {
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
        self.place(node).ok_or("attention's output is no node".into())
    }

    fn place(&self, tensor: usize) -> Option<Place> {
        if let Some(node) = self.order.iter().position(|node| *node == tensor) {
            return Some(Place::Node(node));
        }
        let reads = |node: &usize| self.tensors[node].computed && self.tensors[node].sources.contains(&tensor);
        let reader = self.order.iter().position(reads)?;
        let operand = self.tensors[&self.order[reader]].sources.iter().position(|source| *source == tensor)?;
        Some(Place::Input(reader, operand))
    }

    /// Which operand of a node looks at the memory of another operand, of `reader`.
    fn operand(&self, node: usize, reader: usize, operand: usize) -> Option<usize> {
        let wanted = self.tensors[&self.order[reader]].sources[operand];
        self.tensors[&self.order[node]].sources.iter().position(|source| self.tensors[source].root == wanted)
    }
}

/// Whether it looks at the memory of another tensor and computes nothing.
fn is_view(seen: &Seen) -> bool {
    ["VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"].contains(&seen.op.as_str())
}

/// Which tensors are read, and when: right before each node that uses them.
#[derive(Default)]
pub(crate) struct Watch {
    /// Place of the node that uses them → what to read.
    nodes: BTreeMap<usize, Vec<Piece>>,
    /// Place of the node that reads an input → which input, and which operand it is there.
    inputs: BTreeMap<usize, Vec<(Place, usize)>>,
}

/// The numbers of a node, as a part of the node that owns the memory.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    node: usize,
    /// The place of that node.
    pub(crate) root: usize,
    /// Where in it they start, in bytes.
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// What was read, by place; one copy for each node that used it.
pub(crate) type Reading = BTreeMap<Place, Vec<Vec<f32>>>;

impl Watch {
    pub(crate) fn new(graph: &Graph, streams: &[Stream]) -> Self {
        let mut watch = Self::default();
        let all = |s: &Stream| [Some(s.pre), s.mid, Some(s.after), Some(s.post)];
        let watched: BTreeSet<Place> = streams.iter().flat_map(all).flatten().collect();
        for place in watched {
            for consumer in graph.consumers(place) {
                match place {
                    Place::Node(node) => watch.nodes.entry(consumer).or_default().push(graph.piece(node)),
                    Place::Input(reader, operand) => {
                        let here = graph.operand(consumer, reader, operand).expect("a consumer reads it");
                        watch.inputs.entry(consumer).or_default().push((place, here));
                    }
                }
            }
        }
        watch
    }

    /// Whether the node at `place` has to be computed before the next one is asked about, which uses what is to be read.
    pub(crate) fn wants(&self, place: usize) -> bool {
        self.nodes.contains_key(&(place + 1))
    }

    /// Where the numbers of a watched node are.
    pub(crate) fn piece(&self, place: Place) -> Option<Piece> {
        self.nodes.values().flatten().find(|piece| Place::Node(piece.node) == place).copied()
    }

    /// Reads what the node will use that is asked about now, the last of `nodes`; those before it have been computed.
    pub(crate) fn read(&self, nodes: &[*mut ggml_tensor], into: &mut Reading) {
        let Some(place) = nodes.len().checked_sub(1) else { return };
        for piece in self.nodes.get(&place).into_iter().flatten() {
            let numbers = raw::part(nodes[piece.root], piece.offset, piece.len);
            into.entry(Place::Node(piece.node)).or_default().push(numbers);
        }
        for (input, operand) in self.inputs.get(&place).into_iter().flatten() {
            let source = raw::see(nodes[place]).sources[*operand];
            into.entry(*input).or_default().push(raw::elements(source as *const ggml_tensor));
        }
    }
}
