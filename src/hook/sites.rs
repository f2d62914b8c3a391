//! Which node of the graph a hook point is.
//!
//! Names are hints; what decides is who reads the node. A block's input is what the first of its weights is for: what the norm
//! in front of it reads, or, without one, the node with the weights itself. So the residual stream after block L is the input
//! of block L+1, or what the final norm reads. What attention adds is read by the sum that also reads the block's input; that
//! sum is the residual stream between attention and MLP; and what the MLP adds is read by the sum that also reads that one.
//!
//! As long as a point is not known, every matrix of rows in its block is computed apart. The one that the reader reads is the
//! point; its rows are edited right before the reader is computed, when nothing that reads them has been, and nothing else
//! was touched. Its name is kept for the graphs to come: graphs of one model have the same names. From then on rows are edited
//! as soon as they are computed, and the reader is checked in every graph.

use std::ops::Range;

use super::graph::Graph;
use super::node::{Node, Source, split};
use crate::hook_point::{HookPoint, Site};

/// The weights of the norm behind the last block, and the name of that norm where it has none.
const FINAL_WEIGHTS: [&[u8]; 2] = [b"output_norm.weight", b"token_embd_norm.weight"];
const FINAL: &[u8] = b"result_norm";
/// The name of most residual streams after a block.
const RESID_POST: &[u8] = b"l_out";

/// A hook point that is looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    point: HookPoint,
    /// The node's name, and how many nodes of that name come before it in its block, once its reader was seen.
    known: Option<(Vec<u8>, usize)>,
    /// Nodes of that name in this graph so far.
    count: usize,
    /// Nodes that were computed and wait for their reader.
    waiting: Vec<Waiting>,
    /// The rows of the one that waits were edited.
    edited: bool,
    /// This graph's rows are dealt with.
    done: bool,
}

#[derive(Debug)]
struct Waiting {
    address: usize,
    name: Vec<u8>,
    /// How many nodes had been computed apart when the first node came that reads it.
    read: Option<usize>,
}

/// What the reader of a waiting node says.
pub(super) enum Found<'g> {
    /// These are the rows, and they can be edited now.
    Here(Node<'g>),
    /// It is too late to edit them.
    Late(&'static str),
    /// They are others.
    Wrong {
        /// What was found in their place.
        what: String,
        /// These others were edited.
        edited: bool,
    },
}

/// All hook points that are looked for, in the order of the graph.
#[derive(Debug, Default)]
pub(super) struct Sites {
    wanted: Vec<Wanted>,
    /// Nodes of this graph that were computed apart so far.
    stops: usize,
    /// Counts what changed.
    changes: usize,
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

    /// Forgets what was learned: the graphs to come are others.
    pub(super) fn forget(&mut self) {
        self.wanted.iter_mut().for_each(|wanted| *wanted = Wanted::new(wanted.point));
    }

    /// A graph begins.
    pub(super) fn begin(&mut self) {
        self.stops = 0;
        for wanted in &mut self.wanted {
            wanted.waiting.clear();
            (wanted.count, wanted.edited, wanted.done) = (0, false, false);
        }
    }

    pub(super) fn point(&self, i: usize) -> HookPoint {
        self.wanted[i].point
    }

    /// Whether all nodes are known by their names.
    pub(super) fn are_settled(&self) -> bool {
        self.wanted.iter().all(|wanted| wanted.known.is_some())
    }

    /// Counts what nodes have changed.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Whether a point's node is not known by its name.
    pub(super) fn is_sought(&self, i: usize) -> bool {
        self.wanted[i].known.is_none()
    }

    /// The rows of a point are dealt with.
    pub(super) fn done(&mut self, i: usize) {
        self.wanted[i].done = true;
    }

    /// The points of this graph that were never dealt with.
    pub(super) fn missed(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.wanted.iter().filter(|wanted| !wanted.done).map(|wanted| wanted.point)
    }

    /// The points that a node, which is about to be computed, is or may be, and whose rows are not dealt with.
    pub(super) fn meet(&mut self, node: Node, name: &[u8], graph: &Graph) -> Vec<usize> {
        for i in self.of_layer(graph.block.unwrap_or(0)) {
            let wanted = &mut self.wanted[i];
            let again = usize::from(wanted.known.as_ref().is_some_and(|(own, _)| own == name));
            wanted.count += again;
            self.changes += again;
        }
        self.at(node, name, graph)
    }

    /// As [`meet`](Self::meet), of a node that was met.
    pub(super) fn at(&self, node: Node, name: &[u8], graph: &Graph) -> Vec<usize> {
        let is = |&i: &usize| {
            let wanted = &self.wanted[i];
            let pre = wanted.point.site() == Site::ResidPre;
            if wanted.done || pre == graph.block.is_some() {
                return false;
            }
            match &wanted.known {
                Some((own, before)) => own == name && wanted.count == before + 1,
                None if pre => node.rows().is_some() && node.is_of_rows(),
                None => {
                    let hinted = wanted.point.site() == Site::ResidPost && split(name) == (RESID_POST, graph.block);
                    hinted || (graph.holds_rows(node) && node.is_of_rows())
                }
            }
        };
        self.of_layer(graph.block.unwrap_or(0)).filter(is).collect()
    }

    fn of_layer(&self, layer: usize) -> Range<usize> {
        let begin = self.wanted.partition_point(|w| w.point.layer() < layer);
        let n = self.wanted[begin..].iter().take_while(|w| w.point.layer() == layer).count();
        begin..begin + n
    }

    /// The node was computed. Whether its rows are to be edited at once, as it is known.
    pub(super) fn wait(&mut self, i: usize, node: Node) -> bool {
        let wanted = &mut self.wanted[i];
        wanted.wait_at(node);
        wanted.edited
    }

    /// A node was computed apart.
    pub(super) fn stopped(&mut self) {
        self.stops += 1;
    }

    /// What a node, which is about to be computed and reads weights of `block`, says of the points that wait for their reader.
    pub(super) fn read_by<'g>(
        &mut self,
        node: Node<'g>,
        block: Option<usize>,
        graph: &mut Graph,
    ) -> Vec<(usize, Found<'g>)> {
        let mut found = Vec::new();
        // A known input of the batch can be edited before anything reads it.
        if graph.block.is_none() {
            for i in self.of_layer(0) {
                if let Some(rows) = self.wanted[i].comes_in(node, graph) {
                    graph.comes_as_rows(rows);
                    found.push((i, Found::Here(rows)));
                }
            }
        }
        let left = graph.block;
        let width = graph.width;
        let fits = |source: &Source<'g>| width == 0 || source.matrix(width).rows().is_some_and(|(d, _)| d == width);
        let entry = match block {
            Some(block) if Some(block) > left => {
                let entry = graph.reads(node).filter_map(|source| graph.before_norm(source)).find(fits);
                entry.inspect(|entry| graph.enter(block, *entry))
            }
            None if left.is_some() => behind_last(node, graph),
            _ => None,
        };
        if let Some(entry) = entry {
            for i in self.of_layer(left.unwrap_or(0)) {
                let wanted = &mut self.wanted[i];
                let judged = match (wanted.point.site(), left) {
                    (Site::ResidPost, Some(_)) | (Site::ResidPre, None) => {
                        wanted.read(entry, graph.width, graph.block == left, self.stops)
                    }
                    (Site::ResidPre, Some(_)) | (_, None) => None,
                    _ => wanted.left(),
                };
                found.extend(judged.map(|judged| (i, judged)));
                self.changes += 1;
            }
        }
        for i in self.of_layer(graph.block.unwrap_or(0)) {
            let wanted = &mut self.wanted[i];
            if wanted.waiting.is_empty() {
                continue;
            }
            found.extend(wanted.read_inside(node, graph, self.stops).map(|judged| (i, judged)));
            let read = wanted.waiting.is_empty() || wanted.note(node, graph, self.stops);
            self.changes += usize::from(read);
        }
        found
    }
}

/// What the norm behind the last block reads, if `node` is that norm times its weights, or the norm alone.
fn behind_last<'g>(node: Node<'g>, graph: &Graph) -> Option<Source<'g>> {
    match node.src(1) {
        Some(weights) if FINAL_WEIGHTS.iter().any(|name| weights.is_called(name)) => {
            let norm = graph.source(node.src(0)?);
            let before = graph.source(norm.root.src(0)?);
            Some(Source { moved: before.moved || norm.moved, ..before })
        }
        None if node.name() == FINAL => node.src(0).map(|rows| graph.source(rows)),
        _ => None,
    }
}

impl Wanted {
    fn new(point: HookPoint) -> Self {
        Self { point, known: None, count: 0, waiting: Vec::new(), edited: false, done: false }
    }

    /// Notes which of the waiting nodes a node reads; whether it reads one that nothing had read. Of one that is edited
    /// already it does not matter.
    fn note(&mut self, node: Node, graph: &Graph, stops: usize) -> bool {
        let mut noted = false;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.read.is_none() && !self.edited) {
            let reads = !node.is_view() && graph.reads(node).any(|source| source.root.address() == waiting.address);
            waiting.read = reads.then_some(stops);
            noted |= reads;
        }
        noted
    }

    /// The rows of a batch of embeddings, where a node reads what is known to be the first block's input.
    fn comes_in<'g>(&mut self, node: Node<'g>, graph: &Graph) -> Option<Node<'g>> {
        let (name, _) = self.known.as_ref().filter(|_| self.point.site() == Site::ResidPre && !self.done)?;
        let mut roots = graph.reads(node).map(|source| source.root);
        let input = roots.find(|root| !root.is_computed() && root.name() == name)?;
        self.wait_at(input);
        Some(input)
    }

    fn wait_at(&mut self, node: Node) {
        self.waiting.push(Waiting { address: node.address(), name: node.name().to_vec(), read: None });
        (self.edited, self.done) = (self.known.is_some(), self.known.is_some());
    }

    /// The next block, or the first, or the final norm (`last`) reads `entry`.
    fn read<'g>(&mut self, entry: Source<'g>, width: usize, last: bool, stops: usize) -> Option<Found<'g>> {
        let (address, name, rows) = (entry.root.address(), entry.root.name(), entry.matrix(width));
        if last && split(name).1 != Some(self.point.layer()) {
            let name = String::from_utf8_lossy(name);
            self.done = true;
            let what = format!("the final norm reads \"{name}\", which is not the last block's alone");
            return Some(Found::Wrong { what, edited: self.edited });
        }
        if self.point.site() == Site::ResidPre && !self.done && !entry.root.is_computed() {
            // The embeddings of a batch are no node, but lie there from the start.
            self.done = true;
            return Some(Found::Here(rows));
        }
        let newest = self.waiting.last()?;
        self.done = true;
        let Some(i) = self.waiting.iter().position(|w| w.address == address) else {
            let [found, reads] = [&newest.name, name].map(|name| String::from_utf8_lossy(name).into_owned());
            let (shape, did) = (entry.root.shape(), if self.edited { "edited" } else { "looked at" });
            let what = format!("\"{found}\" was {did}, but what is read next is \"{reads}\" of shape {shape:?}");
            self.waiting.clear();
            self.known = None;
            return Some(Found::Wrong { what, edited: self.edited });
        };
        // Of several streams side by side the first is known, in memory that can be looked at.
        let whole = entry.rows.rows() == entry.root.rows();
        let leads = entry.root.in_place().is_some() && entry.rows.in_place() == entry.root.in_place();
        self.is_read(i, rows, entry.moved, whole || leads, stops)
    }

    /// The block of a site inside it was left, and nothing had read the node as it should be.
    fn left<'g>(&mut self) -> Option<Found<'g>> {
        let waiting = self.waiting.pop().filter(|_| self.edited)?;
        self.known = None;
        let name = String::from_utf8_lossy(&waiting.name);
        let what = format!("\"{name}\" was edited, but no sum read it as it should be");
        Some(Found::Wrong { what, edited: true })
    }

    /// A node of the same block that may read the waiting one.
    fn read_inside<'g>(&mut self, node: Node<'g>, graph: &Graph, stops: usize) -> Option<Found<'g>> {
        let site = self.point.site();
        if matches!(site, Site::ResidPost | Site::ResidPre) || node.passes_on() {
            return None;
        }
        let is_entry = |source: Source| Some(source.root.address()) == graph.entry;
        let is_mid = |source: Source| source.root.is_sum() && graph.reads(source.root).any(is_entry);
        let reads: Vec<Source<'g>> = graph.reads(node).collect();
        let (i, own) = reads.iter().find_map(|source| {
            let address = source.root.address();
            let i = self.waiting.iter().rposition(|waiting| waiting.address == address)?;
            let mut others = reads.iter().filter(|other| other.root.address() != address);
            let fits = match site {
                Site::AttnOut => node.is_sum() && others.any(|other| is_entry(*other)),
                Site::ResidMid => is_mid(*source) && !node.is_sum(),
                _ => node.is_sum() && others.any(|other| is_mid(*other)),
            };
            fits.then_some((i, *source))
        })?;
        self.done = true;
        self.is_read(i, own.matrix(graph.width), own.moved, true, stops)
    }

    /// The waiting node `i` is read as the point should be, as `rows`; it is known by its name from now on if it `can_be`.
    fn is_read<'g>(&mut self, i: usize, rows: Node<'g>, moved: bool, can_be: bool, stops: usize) -> Option<Found<'g>> {
        let waiting = std::mem::take(&mut self.waiting);
        if self.edited {
            return None;
        }
        let Waiting { name, read, .. } = &waiting[i];
        let before = waiting[..i].iter().filter(|other| other.name == *name).count();
        self.known = can_be.then(|| (name.clone(), before));
        Some(match read {
            _ if moved => Found::Late("was copied to another device"),
            Some(read) if *read < stops => Found::Late("was read by others"),
            _ => Found::Here(rows),
        })
    }
}
