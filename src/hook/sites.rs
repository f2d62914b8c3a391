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
    /// They are others, or it is too late.
    Wrong(String),
}

/// All hook points that are looked for, in the order of the graph.
#[derive(Debug, Default)]
pub(super) struct Sites {
    wanted: Vec<Wanted>,
    /// Nodes of this graph that were computed apart so far.
    stops: usize,
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
            wanted.count += usize::from(wanted.known.as_ref().is_some_and(|(own, _)| own == name));
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
                if let Some(rows) = self.wanted[i].comes_in(node) {
                    graph.comes_as_rows(rows);
                    found.push((i, Found::Here(rows)));
                }
            }
        }
        let width = graph.width;
        let fits = |source: &Source<'g>| width == 0 || source.matrix(width).rows().is_some_and(|(d, _)| d == width);
        let entry = match block {
            Some(block) if Some(block) > graph.block => node.enters_by().find(fits).map(|entry| (Some(block), entry)),
            None if graph.block.is_some() => behind_last(node).map(|entry| (None, entry)),
            _ => None,
        };
        if let Some((enters, entry)) = entry {
            let left = graph.block;
            if let Some(block) = enters {
                graph.enter(block, entry);
            }
            for i in self.of_layer(left.unwrap_or(0)) {
                let wanted = &mut self.wanted[i];
                let judged = match (wanted.point.site(), left) {
                    (Site::ResidPost, Some(_)) | (Site::ResidPre, None) => {
                        wanted.read(entry, graph.width, enters.is_none(), self.stops)
                    }
                    (Site::ResidPre, Some(_)) | (_, None) => None,
                    _ => wanted.left(),
                };
                found.extend(judged.map(|judged| (i, judged)));
            }
        }
        for i in self.of_layer(graph.block.unwrap_or(0)) {
            if let Some(judged) = self.wanted[i].read_inside(node, graph, self.stops) {
                found.push((i, judged));
            }
            self.wanted[i].note(node, self.stops);
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
        Self { point, known: None, count: 0, waiting: Vec::new(), edited: false, done: false }
    }

    /// Notes which of the waiting nodes a node reads.
    fn note(&mut self, node: Node, stops: usize) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.read.is_none()) {
            let reads = node.reads().any(|source| source.root.address() == waiting.address);
            waiting.read = (reads && !node.is_view()).then_some(stops);
        }
    }

    /// The rows of a batch of embeddings, where a node reads what is known to be the first block's input.
    fn comes_in<'g>(&mut self, node: Node<'g>) -> Option<Node<'g>> {
        let (name, _) = self.known.as_ref().filter(|_| self.point.site() == Site::ResidPre && !self.done)?;
        let input = node.reads().map(|source| source.root).find(|root| !root.is_computed() && root.name() == name)?;
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
            return Some(Found::Wrong(format!("the final norm reads \"{name}\", which is not the last block's alone")));
        }
        if self.point.site() == Site::ResidPre && !self.done && !entry.root.is_computed() {
            // The embeddings of a batch are no node, but lie there from the start.
            self.done = true;
            return Some(Found::Here(rows));
        }
        let waiting = std::mem::take(&mut self.waiting);
        let newest = waiting.last()?;
        self.done = true;
        match waiting.iter().position(|w| w.address == address || is_copy_of(name, &w.name)) {
            Some(_) if self.edited => None,
            Some(i) => {
                let (own, before) =
                    waiting.split_at(i).1.split_first().map_or((newest, &waiting[..0]), |(w, _)| (w, &waiting[..i]));
                // Of several streams side by side the first is known, in memory that can be looked at.
                let whole = entry.rows.rows() == entry.root.rows();
                let leads = entry.root.in_place().is_some() && entry.rows.in_place() == entry.root.in_place();
                let before = before.iter().filter(|w| w.name == own.name).count();
                self.known = (whole || leads).then(|| (own.name.clone(), before));
                let late = match own.address == address {
                    true => own.read.is_some_and(|read| read < stops).then_some("was read by others"),
                    false => Some("moved to another device"),
                };
                Some(late.map_or(Found::Here(rows), |what| {
                    Found::Wrong(format!(
                        "its rows were left: the node {what} before it was known; the next graph's are edited"
                    ))
                }))
            }
            None => {
                self.known = None;
                let [found, reads] = [&newest.name, name].map(|name| String::from_utf8_lossy(name).into_owned());
                let shape = entry.root.shape();
                let did = if self.edited { "edited" } else { "looked at" };
                Some(Found::Wrong(format!(
                    "\"{found}\" was {did}, but what is read next is \"{reads}\" of shape {shape:?}"
                )))
            }
        }
    }

    /// The block of a site inside it was left, and nothing had read the node as it should be.
    fn left<'g>(&mut self) -> Option<Found<'g>> {
        let waiting = self.waiting.pop().filter(|_| self.edited)?;
        (self.known, self.edited) = (None, false);
        let name = String::from_utf8_lossy(&waiting.name);
        Some(Found::Wrong(format!("\"{name}\" was edited, but no sum read it as it should be")))
    }

    /// A node of the same block that may read the waiting one.
    fn read_inside<'g>(&mut self, node: Node<'g>, graph: &Graph, stops: usize) -> Option<Found<'g>> {
        let (site, entry) = (self.point.site(), graph.entry);
        if matches!(site, Site::ResidPost | Site::ResidPre) || self.waiting.is_empty() || node.passes_on() {
            return None;
        }
        let is_entry = |source: Source| Some(source.root.address()) == entry;
        let is_mid = |source: Source| source.root.is_sum() && source.root.reads().any(is_entry);
        let reads: Vec<Source<'g>> = node.reads().collect();
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
        let waiting = std::mem::take(&mut self.waiting);
        self.done = true;
        if self.edited {
            return None;
        }
        let (before, own_waiting) = (&waiting[..i], &waiting[i]);
        self.known = Some((own_waiting.name.clone(), before.iter().filter(|w| w.name == own_waiting.name).count()));
        Some(match own_waiting.read {
            Some(read) if read < stops => Found::Wrong(
                "its rows were left: the node was read by others before it was known; the next graph's are edited"
                    .into(),
            ),
            _ => Found::Here(own.matrix(graph.width)),
        })
    }
}
