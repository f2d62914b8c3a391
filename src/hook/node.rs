//! One tensor of the graph that is being computed.

use std::ffi::c_int;

use super::host::{Host, TYPE_F32, TYPE_I32, TYPE_I64, Tensor};

/// The largest number of rows that is believed; guards the sizes that come through the host's table.
const MAX_ROWS: i64 = 1 << 24;
/// Operations that show the memory of their first operand.
const VIEWS: [&[u8]; 2] = [b"VIEW", b"RESHAPE"];
/// Operations that copy rows of their first operand as they are, all or some of them.
const COPIES: [&[u8]; 4] = [b"CONT", b"CPY", b"DUP", b"GET_ROWS"];

/// A live tensor: whoever holds one was promised that it lives through the callback and that the table fits it.
#[derive(Clone, Copy)]
pub(super) struct Node<'g> {
    host: &'g Host,
    tensor: *const Tensor,
}

impl<'g> Node<'g> {
    /// # Safety
    /// `tensor` is a tensor of the graph that is being computed, valid for `'g`, and the table fits it.
    pub(super) unsafe fn new(host: &'g Host, tensor: *const Tensor) -> Self {
        Self { host, tensor }
    }

    /// The tensor's address, which names it while its graph lives.
    pub(super) fn address(self) -> usize {
        self.tensor.expose_provenance()
    }

    /// Its name.
    pub(super) fn name(self) -> &'g [u8] {
        // SAFETY: see the type.
        unsafe { self.host.name(self.tensor) }
    }

    /// The `i`-th operand of the operation that makes it.
    pub(super) fn src(self, i: usize) -> Option<Self> {
        // SAFETY: see the type.
        let operand = unsafe { self.host.src(self.tensor, i) };
        // SAFETY: operands of a live node live as long.
        (!operand.is_null()).then(|| unsafe { Self::new(self.host, operand) })
    }

    /// ggml's number of its element type.
    pub(super) fn dtype(self) -> c_int {
        // SAFETY: see the type.
        unsafe { self.host.dtype(self.tensor) }
    }

    /// The four extents, the contiguous one first.
    pub(super) fn shape(self) -> [i64; 4] {
        // SAFETY: see the type.
        unsafe { self.host.shape(self.tensor) }
    }

    /// Whether it is the result of an operation, not a weight or an input.
    pub(super) fn is_computed(self) -> bool {
        self.src(0).is_some()
    }

    /// `[d_model, n_rows]`, if it holds rows in f32; rows of several sequences may have a dimension of their own.
    pub(super) fn rows(self) -> Option<(usize, usize)> {
        let [width, rest @ ..] = self.shape();
        let n =
            rest.iter().try_fold(1i64, |n, extent| n.checked_mul(*extent)).filter(|n| (0..=MAX_ROWS).contains(n))?;
        let size = |n: i64| usize::try_from(n).ok().filter(|_| n <= MAX_ROWS);
        size(width).zip(size(n)).filter(|_| self.dtype() == TYPE_F32)
    }

    /// Whether its elements lie without gaps.
    pub(super) fn is_contiguous(self) -> bool {
        // SAFETY: see the type.
        unsafe { self.host.contiguous(self.tensor) }
    }

    /// The operation that makes it, where the table tells.
    fn op(self) -> Option<&'static [u8]> {
        // SAFETY: see the type.
        unsafe { self.host.op(self.tensor) }
    }

    /// Whether it is a sum.
    pub(super) fn is_sum(self) -> bool {
        self.op() == Some(b"ADD")
    }

    /// Whether it shows the memory of its first operand.
    pub(super) fn is_view(self) -> bool {
        let named = || [&b" (view)"[..], b" (reshaped)"].iter().any(|end| self.name().ends_with(end));
        self.op().map_or_else(named, |op| VIEWS.contains(&op))
    }

    /// Whether it copies rows of its first operand as they are.
    pub(super) fn is_copy(self) -> bool {
        let named = || {
            let picks = self.src(1).is_some_and(|index| index.dtype() == TYPE_I32);
            picks || [&b" (cont)"[..], b" (copy)"].iter().any(|end| self.name().ends_with(end))
        };
        self.op().map_or_else(named, |op| COPIES.contains(&op))
    }

    /// The rows that it only passes on.
    pub(super) fn passed_on(self) -> Option<Self> {
        let inner = self.src(0).filter(|inner| inner.is_computed() || inner.is_input())?;
        (self.is_view() || self.is_copy()).then_some(inner)
    }

    /// Whether it only passes rows on.
    pub(super) fn passes_on(self) -> bool {
        self.passed_on().is_some()
    }

    /// Whether it is a norm, whose weights are still to come.
    pub(super) fn is_norm(self) -> bool {
        let named = || split(self.name()).0.ends_with(b"norm");
        self.op().map_or_else(named, |op| op.ends_with(b"NORM"))
    }

    /// Whether it may be a part of the residual stream: neither passed on nor a norm.
    pub(super) fn is_of_rows(self) -> bool {
        !self.passes_on() && !self.is_norm()
    }

    /// The block whose weights it reads: `blk.19.attn_norm.weight` is a weight of 19.
    pub(super) fn reads_weights_of(self) -> Option<usize> {
        (0..2).filter_map(|i| self.src(i)).find_map(|operand| {
            let digits = original(operand.name()).strip_prefix(b"blk.")?;
            let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            (1..=5).contains(&n).then(|| digits[..n].iter().fold(0, |n, digit| 10 * n + usize::from(digit - b'0')))
        })
    }

    /// A matrix of rows that comes in with the batch: no weight, and no node.
    pub(super) fn is_input(self) -> bool {
        let name = original(self.name());
        let weight = [&b"blk."[..], b"leaf_", b"cache_", b"inp_mixed"].iter().any(|start| name.starts_with(start))
            || [&b".weight"[..], b".bias"].iter().any(|end| name.ends_with(end));
        !weight && !self.is_computed() && self.dtype() == TYPE_F32 && self.shape()[2..] == [1, 1]
    }

    /// Its first three operands.
    pub(super) fn operands(self) -> impl Iterator<Item = Self> {
        (0..3).filter_map(move |i| self.src(i))
    }

    /// The node at another [`address`](Self::address).
    ///
    /// # Safety
    /// A node of the same graph lies there.
    pub(super) unsafe fn at(self, address: usize) -> Self {
        Self { host: self.host, tensor: std::ptr::with_exposed_provenance(address) }
    }

    /// Whether it is, or is a copy on another device of, the tensor of this name.
    pub(super) fn is_called(self, name: &[u8]) -> bool {
        original(self.name()) == name
    }

    /// The name of the tensor that it is a copy of, if it lies on another device than that one.
    pub(super) fn copies(self) -> Option<&'g [u8]> {
        let name = self.name();
        (!self.is_computed() && name.contains(&b'#')).then(|| original(name)).filter(|own| own.len() < name.len())
    }

    /// The elements of an integer vector of at most `MAX_ROWS`.
    pub(super) fn integers(self) -> Option<Vec<i64>> {
        let [n, rest @ ..] = self.shape();
        let (n, dtype) = (usize::try_from(n).ok().filter(|_| n <= MAX_ROWS)?, self.dtype());
        match dtype {
            _ if rest != [1, 1, 1] => None,
            TYPE_I32 => {
                let mut all = vec![0i32; n];
                // SAFETY: see the type; there is room for the whole vector.
                unsafe { self.host.get(self.tensor, all.as_mut_ptr().cast(), 0, n * size_of::<i32>()) };
                Some(all.into_iter().map(i64::from).collect())
            }
            TYPE_I64 => {
                let mut all = vec![0i64; n];
                // SAFETY: as above.
                unsafe { self.host.get(self.tensor, all.as_mut_ptr().cast(), 0, n * size_of::<i64>()) };
                Some(all)
            }
            _ => None,
        }
    }

    /// Its `n` floats, if the CPU can read and write them in place.
    pub(super) fn in_place(self) -> Option<*mut f32> {
        // SAFETY: see the type.
        let data = unsafe { self.host.data(self.tensor) }.cast::<f32>();
        (!data.is_null() && data.is_aligned()).then_some(data)
    }

    /// Copies the floats of `to.len()` elements from element `from` on.
    pub(super) fn read(self, from: usize, to: &mut [f32]) {
        // SAFETY: see the type; the caller's slice has the room.
        unsafe { self.host.get(self.tensor, to.as_mut_ptr().cast(), from * size_of::<f32>(), size_of_val(to)) };
    }

    /// Writes floats from element `to` on.
    pub(super) fn write(self, to: usize, from: &[f32]) {
        // SAFETY: see the type; the floats are a slice's.
        unsafe {
            self.host.set(self.tensor.cast_mut(), from.as_ptr().cast(), to * size_of::<f32>(), size_of_val(from));
        }
    }
}

/// Rows that a node reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'g> {
    /// Where they lie: `root`, a view of it, or its copy on another device.
    pub(super) rows: Node<'g>,
    /// The node that computed them, or the input that holds them.
    pub(super) root: Node<'g>,
    /// They were copied to another device.
    pub(super) moved: bool,
}

impl<'g> Source<'g> {
    /// The rows as a matrix of this width: as they are read, or as they were computed.
    pub(super) fn matrix(self, width: usize) -> Node<'g> {
        let fits = |node: Node| node.rows().is_some_and(|(d, _)| d == width);
        if fits(self.rows) { self.rows } else { self.root }
    }
}

/// A node's name without its block, and the block: `l_out-19` is `l_out` of 19.
pub(super) fn split(name: &[u8]) -> (&[u8], Option<usize>) {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (stem, number) = name.split_at(name.len() - digits);
    match stem {
        [stem @ .., b'-'] if (1..=5).contains(&digits) && !stem.is_empty() => {
            (stem, Some(number.iter().fold(0, |n, digit| 10 * n + usize::from(digit - b'0'))))
        }
        _ => (name, None),
    }
}

/// The name of a tensor without what ggml adds to that of its copy on another device: `CUDA0#l_out-3#0` copies `l_out-3`.
fn original(name: &[u8]) -> &[u8] {
    let inner = name.iter().position(|b| *b == b'#').map(|i| &name[i + 1..]);
    inner.and_then(|inner| Some(&inner[..inner.iter().rposition(|b| *b == b'#')?])).unwrap_or(name)
}
