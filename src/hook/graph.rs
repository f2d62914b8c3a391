//! Following one graph: which hook point a node is, and which token each of its rows belongs to.

use super::host::{Host, TYPE_F32, TYPE_I32, Tensor};
use crate::error::{Error, Result};
use crate::hook_point::{HookPoint, Site};
use crate::plan::RowMeta;

/// The largest batch that is believed; guards the sizes that come through the host's table.
const MAX_ROWS: i64 = 1 << 24;

/// The node of the residual stream after a block.
const RESID_POST: &[u8] = b"l_out";

/// What is known of the graph that runs now.
#[derive(Default)]
pub(super) struct Graph {
    /// The wanted sites besides the residual stream after a block, with the names of their nodes.
    watched: Vec<(Site, &'static [u8])>,
    /// The nodes of watched sites that were met in this graph: a second node of a name is not the site.
    met: Vec<(HookPoint, *const Tensor)>,
    /// Name of the first node that was ever asked about: seeing it again means that a new graph begins.
    first: Vec<u8>,
    /// Position of each token of this micro-batch, once the graph has shown them.
    positions: Vec<i32>,
    /// Rows that are left in the last block, once the graph has shown them.
    outputs: Vec<i32>,
    /// Where this micro-batch starts in the announced batch.
    start: usize,
    /// How many tokens it holds, once its rows have been seen.
    n_tokens: usize,
    /// The announcement is new: no graph has run for it yet.
    fresh: bool,
}

// SAFETY: the tensors of `met` are compared, never read.
unsafe impl Send for Graph {}

impl Graph {
    /// Watches for the nodes of `sites`.
    pub(super) fn watch(&mut self, sites: impl Iterator<Item = Site>, architecture: &str) {
        self.watched.clear();
        for site in sites.filter(|site| *site != Site::ResidPost) {
            if let Ok(node) = HookPoint::new(site, 0).node(architecture)
                && !self.watched.contains(&(site, node.as_bytes()))
            {
                self.watched.push((site, node.as_bytes()));
            }
        }
    }

    /// A new decode begins.
    pub(super) fn restart(&mut self) {
        (self.start, self.n_tokens, self.fresh) = (0, 0, true);
        self.positions.clear();
        self.outputs.clear();
    }

    /// Looks at a node; the hook point that it is, if it is the residual stream after a block or a watched site.
    ///
    /// # Safety
    /// `tensor` is valid and the host's table fits it.
    pub(super) unsafe fn visit(&mut self, host: &Host, tensor: *const Tensor, ask: bool) -> Option<HookPoint> {
        // SAFETY: the caller vouches for the tensor.
        let initial = unsafe { host.initial(tensor) };
        if ask {
            if self.first.first().is_none_or(|&first| first == initial) {
                // SAFETY: the caller vouches for the tensor.
                let name = unsafe { host.name(tensor) };
                if self.first.is_empty() {
                    self.first.extend_from_slice(name);
                }
                if name == self.first {
                    self.begin();
                }
            }
            // The row of a lone token is that token's in every block.
            let learns = self.positions.is_empty() || (self.outputs.is_empty() && self.positions.len() > 1);
            if learns {
                // SAFETY: the caller vouches for the tensor.
                let operand = unsafe { host.src(tensor, 1) };
                if !operand.is_null() {
                    // SAFETY: the operand is a tensor of the same graph.
                    unsafe { self.learn(host, operand) };
                }
            }
        }
        if initial != RESID_POST[0] && !self.watched.iter().any(|(_, node)| node.first() == Some(&initial)) {
            return None;
        }
        // SAFETY: the caller vouches for the tensor.
        let name = unsafe { host.name(tensor) };
        if let Some(layer) = layer(name, RESID_POST) {
            return Some(layer.into());
        }
        let point = self.watched.iter().find_map(|(site, node)| match site {
            Site::ResidPre => (name == *node).then(|| HookPoint::new(Site::ResidPre, 0)),
            site => layer(name, node).map(|layer| HookPoint::new(*site, layer)),
        })?;
        match self.met.iter().find(|met| met.0 == point) {
            Some((_, first)) => (*first == tensor).then_some(point),
            None => {
                self.met.push((point, tensor));
                Some(point)
            }
        }
    }

    /// A new micro-batch begins.
    fn begin(&mut self) {
        if self.fresh {
            self.fresh = false;
        } else {
            self.start += self.n_tokens;
        }
        self.n_tokens = 0;
        self.met.clear();
        self.positions.clear();
        self.outputs.clear();
    }

    /// Remembers the inputs that attribute rows. Their memory is reused later in the graph: they are read when first seen.
    ///
    /// # Safety
    /// As [`Graph::visit`].
    unsafe fn learn(&mut self, host: &Host, operand: *const Tensor) {
        // SAFETY: the caller vouches for the operand.
        let name = unsafe { host.name(operand) };
        let is =
            |wanted: &[u8]| name == wanted || (name.contains(&b'#') && name.windows(wanted.len()).any(|w| w == wanted));
        if self.positions.is_empty() && is(b"inp_pos") {
            // SAFETY: as above.
            unsafe { integers(host, operand, &mut self.positions) };
        } else if self.outputs.is_empty() && (is(b"inp_out_ids") || is(b"out_ids")) {
            // SAFETY: as above.
            unsafe { integers(host, operand, &mut self.outputs) };
        }
    }

    /// Fills `meta` with the token of each of `n_rows` rows, or says why that can't be done (then all positions are −1).
    pub(super) fn attribute(
        &mut self,
        n_rows: usize,
        announced: &[RowMeta],
        meta: &mut Vec<RowMeta>,
    ) -> std::result::Result<(), String> {
        meta.clear();
        let known = self.tokens(n_rows, announced, meta);
        if known.is_err() {
            meta.clear();
            meta.resize(n_rows, RowMeta { position: -1, sequence: -1, generated: false });
        }
        known
    }

    fn tokens(
        &mut self,
        n_rows: usize,
        announced: &[RowMeta],
        meta: &mut Vec<RowMeta>,
    ) -> std::result::Result<(), String> {
        let n_outputs = self.outputs.len();
        if self.positions.is_empty() {
            let batch = announced.get(self.start..).unwrap_or_default();
            if batch.len() != n_rows {
                return Err(format!(
                    "the graph shows no positions, and {} announced tokens are left for {n_rows} rows",
                    batch.len()
                ));
            }
            meta.extend_from_slice(batch);
            self.n_tokens = n_rows;
            return Ok(());
        }
        // Multi-section rotary positions hold several numbers a token, the text position first.
        let n_tokens = match announced.len().checked_sub(self.start) {
            _ if self.positions.len() == n_rows => n_rows,
            Some(left) if left > 0 && left <= self.positions.len() => left,
            _ => self.positions.len(),
        };
        self.n_tokens = n_tokens;
        let token = |row: usize| -> std::result::Result<RowMeta, String> {
            let position =
                *self.positions.get(row).ok_or_else(|| format!("row {row} of {n_tokens} has no position"))?;
            if announced.is_empty() {
                return Ok(RowMeta { position, sequence: 0, generated: n_tokens == 1 && position > 0 });
            }
            let said = announced
                .get(self.start + row)
                .ok_or_else(|| format!("{} tokens were announced, but more arrived", announced.len()))?;
            if said.position != position {
                return Err(format!("announced position {}, the graph has {position}", said.position));
            }
            Ok(*said)
        };
        if n_rows == n_tokens {
            (0..n_rows).try_for_each(|row| token(row).map(|t| meta.push(t)))
        } else if n_rows == n_outputs {
            self.outputs.iter().try_for_each(|&row| {
                let row = usize::try_from(row).map_err(|_| format!("output row {row} is negative"))?;
                token(row).map(|t| meta.push(t))
            })
        } else {
            Err(format!("{n_rows} rows, but {n_tokens} positions and {n_outputs} outputs"))
        }
    }
}

/// The block of a node that is called `node-L`.
fn layer(name: &[u8], node: &[u8]) -> Option<usize> {
    let digits = name.strip_prefix(node)?.strip_prefix(b"-")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[d_model, n_rows]` of a contiguous f32 matrix.
///
/// # Safety
/// `tensor` is valid and the host's table fits it.
pub(super) unsafe fn matrix(host: &Host, tensor: *const Tensor) -> Result<(usize, usize)> {
    // SAFETY: the caller vouches for the tensor.
    let (shape, dtype) = (unsafe { host.shape(tensor) }, unsafe { host.dtype(tensor) });
    if dtype != TYPE_F32 {
        return Err(Error::unsupported(format!(
            "the residual stream has ggml type {dtype}, expected f32 ({TYPE_F32})"
        )));
    }
    // SAFETY: as above.
    if !unsafe { host.contiguous(tensor) } {
        return Err(Error::unsupported("the residual stream is not contiguous"));
    }
    let size = |n: i64| usize::try_from(n).ok().filter(|_| n <= MAX_ROWS);
    match (size(shape[0]), size(shape[1]), shape[2], shape[3]) {
        (Some(d_model), Some(n_rows), 1, 1) => Ok((d_model, n_rows)),
        _ => Err(Error::unsupported(format!(
            "the residual stream has shape {shape:?}, expected [d_model, n_rows, 1, 1]"
        ))),
    }
}

/// The elements of an integer vector; leaves `out` empty when it is none.
///
/// # Safety
/// As [`matrix`].
unsafe fn integers(host: &Host, tensor: *const Tensor, out: &mut Vec<i32>) {
    // SAFETY: the caller vouches for the tensor.
    let (shape, dtype) = (unsafe { host.shape(tensor) }, unsafe { host.dtype(tensor) });
    let Some(n) = usize::try_from(shape[0]).ok().filter(|_| shape[0] <= MAX_ROWS) else { return };
    if dtype != TYPE_I32 || shape[1..] != [1, 1, 1] {
        return;
    }
    out.resize(n, 0);
    // SAFETY: `out` has room for the whole tensor.
    unsafe { host.get(tensor, out.as_mut_ptr().cast(), 0, n * size_of::<i32>()) };
}
