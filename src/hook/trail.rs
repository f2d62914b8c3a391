//! The way through a graph: which nodes came, in order, and at which of them nothing happens.
//!
//! llama.cpp computes a graph many times over, and builds the next one at the same addresses. Looking at a node costs some
//! three hundred nanoseconds, because its memory is cold; a decode has a thousand nodes, and nothing happens at nearly all of
//! them. So the way is kept. As long as the next graph takes the same one, quiet nodes are passed without a look.
//!
//! *Why that is safe*: a graph of another form has other addresses from the first difference on, since ggml places its tensors one
//! after the other; from there on every node is looked at. Where something happens (an input is read, a block entered, a
//! point's node computed or read) the node is looked at in every graph, so a point is still told by its name and confirmed
//! by its reader. The way is forgotten when other points are looked for, or one of them is not known.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::node::Node;

#[derive(Debug)]
struct Step {
    address: usize,
    name: u64,
    quiet: bool,
}

/// The nodes of the graph that runs, up to the one that comes next, and behind them what the last graph had there.
#[derive(Debug, Default)]
pub(super) struct Trail {
    steps: Vec<Step>,
    at: usize,
    /// The steps were taken when all points were known.
    settled: bool,
}

impl Trail {
    /// A graph begins. `settled`: all points that are looked for are known.
    pub(super) fn begin(&mut self, settled: bool) {
        if !(settled && self.settled) {
            self.steps.clear();
        }
        (self.at, self.settled) = (0, settled);
    }

    /// Other points are looked for.
    pub(super) fn forget(&mut self) {
        self.settled = false;
    }

    /// Whether this node comes next and nothing happens at it; then it is passed.
    pub(super) fn passes(&mut self, address: usize) -> bool {
        let quiet = self.settled && self.steps.get(self.at).is_some_and(|step| step.quiet && step.address == address);
        self.at += usize::from(quiet);
        quiet
    }

    /// Notes a node that was looked at.
    pub(super) fn note(&mut self, node: Node, quiet: bool) {
        let address = node.address();
        if self.steps.get(self.at).is_none_or(|step| step.address != address) {
            self.steps.truncate(self.at);
            self.steps.push(Step { address, name: hash(node.name()), quiet });
        }
        self.at += 1;
    }

    /// The last node of this graph that has this name.
    pub(super) fn named<'g>(&self, name: &[u8], beside: Node<'g>) -> Option<Node<'g>> {
        let wanted = hash(name);
        let step = self.steps[..self.at].iter().rev().find(|step| step.name == wanted)?;
        // SAFETY: the steps up to `at` are nodes of the graph that runs, and ggml keeps those until it is computed.
        Some(unsafe { beside.at(step.address) }).filter(|node| node.name() == name)
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
