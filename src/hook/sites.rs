//! Which node of the graph a hook point is.
//!
//! Names are hints; what decides is who reads the node. A block's input is what its first node reads; so the residual stream
//! after block L is what block L+1, or the final norm, reads. What attention adds is read by the sum that also reads the
//! block's input; that sum is the residual stream between attention and MLP; and what the MLP adds is read by the sum that
//! also reads that one.
//!
//! So rows are not edited when their node was computed but right before its reader is: nothing in between has been computed
//! then, and a node that turns out to be another one was left as it was.
//!
//! As long as a point is not known, every matrix of rows in its block is computed apart; the one that the reader reads is
//! the point, and its name is kept for the graphs to come: graphs of one model have the same names. Where a node's rows move
//! to another device before they are read, they are edited as soon as they are computed, and the reader is checked
//! afterwards.

use std::ops::Range;

use super::graph::Graph;
use super::node::{Node, Source, is_copy_of, split};
use crate::hook_point::{HookPoint, Site};

/// The weights of the norm behind the last block, and the name of that norm where it has none.
const FINAL_WEIGHTS: [&[u8]; 2] = [b"output_norm.weight", b"token_embd_norm.weight"];
const FINAL: &[u8] = b"result_norm";
/// The name of most residual streams after a block.
const RESID_POST: &[u8] = b"l_out";

/// A hook point that is looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) point: HookPoint,
    /// The node's name, once its reader was seen.
    name: Option<Vec<u8>>,
    /// Its reader reads a copy on another device.
    crosses: bool,
    /// Nodes that were computed and wait for their reader; the last one can still be edited.
    waiting: Vec<Waiting>,
    /// The last one's rows were edited as soon as they were computed.
    edited: bool,
    /// This graph's rows are dealt with.
    pub(super) done: bool,
}

#[derive(Debug)]
struct Waiting {
    address: usize,
    name: Vec<u8>,
}

/// What the reader of a waiting node says.
pub(super) enum Found<'g> {
    /// These are the rows, and they can be edited now.
    Here(Node<'g>),
    /// These were the rows; they were edited before.
    Confirmed,
    /// They are others, or it is too late.
    Wrong(String),
}

/// All hook points that are looked for, in the order of the graph.
#[derive(Debug, Default)]
pub(super) struct Sites {
    wanted: Vec<Wanted>,
}

impl Sites {
    /// Looks for `points`; what is known of those looked for already is kept.
    pub(super) fn set(&mut self, mut points: Vec<HookPoint>) {
        points.sort_unstable();
        points.dedup();
        let mut old = std::mem::take(&mut self.wanted);
        let mut known = |point| old.iter().position(|w| w.point == point).map(|i| old.swap_remove(i));
        self.wanted = points.into_iter().map(|point| known(point).unwrap_or_else(|| Wanted::new(point))).collect();
    }

    /// Forgets what was learned: the graphs to come are another context's.
    pub(super) fn forget(&mut self) {
        self.wanted.iter_mut().for_each(|wanted| *wanted = Wanted::new(wanted.point));
    }

    /// A graph begins.
    pub(super) fn begin(&mut self) {
        for wanted in &mut self.wanted {
            wanted.waiting.clear();
            (wanted.edited, wanted.done) = (false, false);
        }
    }

    pub(super) fn point(&self, i: usize) -> HookPoint {
        self.wanted[i].point
    }

    /// Whether a point's node is not known by its name.
    pub(super) fn is_sought(&self, i: usize) -> bool {
        self.wanted[i].name.is_none()
    }

    /// The rows of a point are dealt with.
    pub(super) fn done(&mut self, i: usize) {
        self.wanted[i].done = true;
    }

    /// The points of this graph that were never dealt with.
    pub(super) fn missed(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.wanted.iter().filter(|wanted| !wanted.done).map(|wanted| wanted.point)
    }

    /// The points that a node is or may be, whose rows are not dealt with.
    pub(super) fn at(&self, node: Node, name: &[u8], graph: &Graph) -> impl Iterator<Item = usize> {
        let (stem, block) = split(name);
        let layer = block.or(graph.block).unwrap_or(0);
        let here = block.is_none_or(|b| Some(b) == graph.block);
        let of_layer = self.of_layer(layer);
        of_layer.filter(move |&i| {
            let wanted = &self.wanted[i];
            !wanted.done
                && match &wanted.name {
                    Some(own) => own == name,
                    None if wanted.point.site() == Site::ResidPre => {
                        graph.block.is_none() && node.rows().is_some() && !node.passes_on()
                    }
                    None => {
                        let named = wanted.point.site() == Site::ResidPost && stem == RESID_POST && block.is_some();
                        named || (here && graph.entry.is_some() && graph.holds_rows(node) && node.is_of_rows())
                    }
                }
        })
    }

    fn of_layer(&self, layer: usize) -> Range<usize> {
        let begin = self.wanted.partition_point(|w| w.point.layer() < layer);
        let n = self.wanted[begin..].iter().take_while(|w| w.point.layer() == layer).count();
        begin..begin + n
    }

    /// Whether the rows of a point are edited when its node is computed, not when it is read.
    pub(super) fn is_immediate(&self, i: usize, ends_here: bool) -> bool {
        let wanted = &self.wanted[i];
        wanted.name.is_some() && (wanted.crosses || ends_here)
    }

    /// The node was computed; `edited`: and its rows are edited.
    pub(super) fn wait(&mut self, i: usize, node: Node, edited: bool) {
        let wanted = &mut self.wanted[i];
        wanted.waiting.push(Waiting { address: node.address(), name: node.name().to_vec() });
        wanted.edited = edited;
    }

    /// What a node, which is about to be computed, says of the points that wait for their reader.
    pub(super) fn read_by<'g>(
        &mut self,
        node: Node<'g>,
        block: Option<usize>,
        graph: &mut Graph,
    ) -> Vec<(usize, Found<'g>)> {
        let mut found = Vec::new();
        let enters = graph.entry.is_none() && block.is_some() && block == graph.block;
        let width = graph.width;
        let fits = |source: &Source<'g>| width == 0 || source.matrix(width).rows().is_some_and(|(d, _)| d == width);
        let (entry, layer) = match block {
            Some(block) if enters => (node.reads().find(fits), block.checked_sub(1)),
            None if graph.block.is_some() => (behind_last(node), graph.block),
            _ => (None, None),
        };
        if let Some(entry) = entry {
            if enters {
                graph.enter(entry);
            }
            for (i, wanted) in self.wanted.iter_mut().enumerate() {
                let point = match layer {
                    Some(layer) => HookPoint::from(layer),
                    None => HookPoint::new(Site::ResidPre, 0),
                };
                if wanted.point == point
                    && let Some(judged) = wanted.entered(entry, graph.width)
                {
                    found.push((i, judged));
                }
            }
        }
        for i in block.or(graph.block).map_or(0..0, |block| self.of_layer(block)) {
            if let Some(judged) = self.wanted[i].read_inside(node, graph) {
                found.push((i, judged));
            }
        }
        found
    }
}

/// What the norm behind the last block reads, if `node` is that norm times its weights, or the norm alone.
fn behind_last(node: Node) -> Option<Source> {
    let is = |weights: Node| FINAL_WEIGHTS.iter().any(|w| weights.name() == *w || is_copy_of(weights.name(), w));
    match node.src(1) {
        Some(weights) if is(weights) => node.src(0)?.src(0).map(Node::source),
        None if node.name() == FINAL => node.src(0).map(Node::source),
        _ => None,
    }
}

impl Wanted {
    fn new(point: HookPoint) -> Self {
        Self { point, name: None, crosses: false, waiting: Vec::new(), edited: false, done: false }
    }

    /// The next block, or the first, or the final norm reads `entry`.
    fn entered<'g>(&mut self, entry: Source<'g>, width: usize) -> Option<Found<'g>> {
        let rows = entry.matrix(width);
        if self.point.site() == Site::ResidPre && !self.done && !entry.root.is_computed() {
            // The embeddings of a batch are no node, but lie there from the start.
            self.done = true;
            return Some(Found::Here(rows));
        }
        if self.edited || !self.done {
            self.waiting.last()?;
        } else {
            return None;
        }
        let (address, name) = (entry.root.address(), entry.root.name());
        let waiting = std::mem::take(&mut self.waiting);
        let n = waiting.len();
        let (edited, done) = (self.edited, self.done);
        (self.edited, self.done) = (false, true);
        match waiting.iter().position(|w| w.address == address || is_copy_of(name, &w.name)) {
            Some(i) if waiting[i].address == address && i + 1 == n => {
                self.name = Some(name.to_vec());
                Some(if edited { Found::Confirmed } else { Found::Here(rows) })
            }
            Some(i) => {
                let late = waiting[i].address == address;
                self.crosses |= !late;
                self.name = Some(waiting[i].name.clone());
                let why = if late { "was read by others" } else { "moved to another device" };
                let what =
                    || format!("its rows were left: the node {why} before it was known; from the next graph on it is");
                Some(if edited && done { Found::Confirmed } else { Found::Wrong(what()) })
            }
            None => {
                self.name = None;
                Some(Found::Wrong(format!(
                    "expected \"{}\" to be what is read next, found \"{}\" of shape {:?}",
                    waiting.last().map(|w| String::from_utf8_lossy(&w.name)).unwrap_or_default(),
                    String::from_utf8_lossy(name),
                    entry.root.shape(),
                )))
            }
        }
    }

    /// A node of the same block that may read the waiting one.
    fn read_inside<'g>(&mut self, node: Node<'g>, graph: &Graph) -> Option<Found<'g>> {
        let address = self.waiting.last().filter(|_| !self.done)?.address;
        let (site, entry) = (self.point.site(), graph.entry);
        if matches!(site, Site::ResidPost | Site::ResidPre) || node.passes_on() {
            return None;
        }
        let own = node.reads().find(|source| source.root.address() == address)?;
        let is_entry = |source: Source| Some(source.root.address()) == entry;
        let is_mid = |source: Source| source.root.is_sum() && source.root.reads().any(is_entry);
        let mut others = node.reads().filter(|source| source.root.address() != address);
        let fits = match site {
            Site::AttnOut => node.is_sum() && others.any(is_entry),
            Site::ResidMid => is_mid(own) && !node.is_sum(),
            Site::MlpOut => node.is_sum() && others.any(is_mid),
            Site::ResidPost | Site::ResidPre => false,
        };
        if fits {
            self.waiting.clear();
            self.name = Some(own.root.name().to_vec());
            self.done = true;
            return Some(Found::Here(own.matrix(graph.width)));
        }
        if self.name.is_none() {
            return None; // another node may be the one
        }
        let names = [own.root.name(), node.name()].map(|name| String::from_utf8_lossy(name).into_owned());
        self.waiting.clear();
        (self.name, self.done) = (None, true);
        Some(Found::Wrong(format!("\"{}\" is not it any more: \"{}\" reads it for something else", names[0], names[1])))
    }
}
