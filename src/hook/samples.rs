//! Tensors with known, distinctive fields: what a probe looks at.

use std::ffi::c_int;

use super::host::{Host, Layout, TYPE_F32, TYPE_I32, Tensor};
use super::probe::{Buffer, Context, Ggml, InitParams, Node, TYPE_F16, expect};
use crate::error::{Error, Result};

/// The most operands that a tensor is believed to have: `GGML_MAX_SRC` of every release with backends so far. A node
/// with more would only lack the rest.
const MAX_SRC: u32 = 10;

/// What sizes of a tensor are believed: from its smallest that holds all fields to some times today's 336.
const SIZES: std::ops::RangeInclusive<usize> = 128..=4096;

/// Tensors that the probe makes, with room to spare.
const MAX_TENSORS: usize = 16;

/// Memory of a sample's elements: the largest has 210 of four bytes.
const MAX_ELEMENTS: usize = 1024;

/// Memory for a context or a buffer, as aligned as any ggml asks for.
#[repr(C, align(128))]
#[derive(Clone, Copy)]
struct Line([u8; 128]);

struct Memory {
    // Never looked at: the address is handed to ggml, and read through.
    _lines: Vec<Line>,
    start: *mut u8,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Self {
        let mut lines = vec![Line([0; 128]); len.div_ceil(128)];
        Self { start: lines.as_mut_ptr().cast(), len: lines.len() * 128, _lines: lines }
    }

    /// Where `pointer` lies in it, if `len` bytes from there do.
    fn offset(&self, pointer: *const u8, len: usize) -> Option<usize> {
        let offset = pointer.addr().checked_sub(self.start.addr())?;
        (offset.checked_add(len)? <= self.len).then_some(offset)
    }
}

/// Two leaves in memory, two without, and nodes that read them.
pub(super) struct Samples<'a> {
    ggml: &'a Ggml,
    context: Context,
    buffers: [Buffer; 2],
    tensors: Memory,
    elements: [Memory; 2],
    /// Size of a tensor.
    size: usize,
    a: Node,
    b: Node,
    half: Node,
    integers: Node,
    a_plus_b: Node,
    b_plus_a: Node,
    view: Node,
    view_of_view: Node,
    turned: Node,
}

impl Drop for Samples<'_> {
    fn drop(&mut self) {
        if !self.context.is_null() {
            // SAFETY: made by `ggml_init` and not freed yet; the memory, which is ours, stays.
            unsafe { (self.ggml.free)(self.context) };
        }
        for buffer in self.buffers.into_iter().filter(|buffer| !buffer.is_null()) {
            // SAFETY: made by `ggml_backend_cpu_buffer_from_ptr` and not freed yet; the memory, which is ours, stays.
            unsafe { (self.ggml.buffer_free)(buffer) };
        }
    }
}

/// What `a` and `b` have in common: they can be added.
const EXTENTS: [i64; 4] = [7, 5, 3, 2];
/// Elements of the views, and where they begin in what they look at, in bytes.
const VIEWS: [(i64, usize); 2] = [(6, 4), (3, 8)];

impl<'a> Samples<'a> {
    pub(super) fn new(ggml: &'a Ggml) -> Result<Self> {
        // SAFETY: takes nothing.
        let overhead = unsafe { (ggml.tensor_overhead)() };
        if !SIZES.contains(&overhead) {
            let (least, most) = (SIZES.start(), SIZES.end());
            return Err(Error::mismatch(format!("ggml_tensor_overhead says {overhead}, expected {least} to {most}")));
        }
        let tensors = Memory::new(MAX_TENSORS * overhead);
        let params = InitParams { mem_size: tensors.len, mem_buffer: tensors.start.cast(), no_alloc: true };
        let none = std::ptr::null_mut();
        let mut made = Self {
            ggml,
            // SAFETY: the memory is that large, and outlives the context.
            context: unsafe { (ggml.init)(params) },
            buffers: [std::ptr::null_mut(); 2],
            tensors,
            elements: [Memory::new(MAX_ELEMENTS), Memory::new(MAX_ELEMENTS)],
            size: 0,
            a: none,
            b: none,
            half: none,
            integers: none,
            a_plus_b: none,
            b_plus_a: none,
            view: none,
            view_of_view: none,
            turned: none,
        };
        if made.context.is_null() {
            return Err(Error::mismatch("ggml_init gave NULL"));
        }
        made.a = made.leaf(TYPE_F32, EXTENTS)?;
        made.b = made.leaf(TYPE_F32, EXTENTS)?;
        made.size = made.tensor_size(overhead)?;
        made.half = made.leaf(TYPE_F16, [11, 13, 2, 1])?;
        made.integers = made.leaf(TYPE_I32, [17, 1, 1, 1])?;
        made.place()?;
        made.a_plus_b = made.sum(made.a, made.b)?;
        made.b_plus_a = made.sum(made.b, made.a)?;
        made.view = made.look(made.a, VIEWS[0])?;
        made.view_of_view = made.look(made.view, VIEWS[1])?;
        // SAFETY: a tensor of this context.
        made.turned = made.inside(unsafe { (ggml.transpose)(made.context, made.a) }, "ggml_transpose")?;
        Ok(made)
    }

    fn leaf(&self, dtype: c_int, [a, b, c, d]: [i64; 4]) -> Result<Node> {
        // SAFETY: the context is alive and has room; the type was checked.
        self.inside(unsafe { (self.ggml.new_tensor_4d)(self.context, dtype, a, b, c, d) }, "ggml_new_tensor_4d")
    }

    fn sum(&self, a: Node, b: Node) -> Result<Node> {
        // SAFETY: two tensors of this context, of one shape and type.
        self.inside(unsafe { (self.ggml.add)(self.context, a, b) }, "ggml_add")
    }

    fn look(&self, at: Node, (n, offset): (i64, usize)) -> Result<Node> {
        // SAFETY: a tensor of this context that has these elements.
        self.inside(unsafe { (self.ggml.view_1d)(self.context, at, n, offset) }, "ggml_view_1d")
    }

    /// `tensor`, if all of it lies in the memory of the context.
    fn inside(&self, tensor: Node, made_by: &str) -> Result<Node> {
        match self.tensors.offset(tensor.cast(), self.size.max(*SIZES.start())) {
            Some(_) => Ok(tensor),
            None => Err(Error::mismatch(format!("{made_by} gave a tensor outside of the memory of its context"))),
        }
    }

    /// The size of a tensor: what lies before the first is the header that each has, and one follows the other.
    fn tensor_size(&self, overhead: usize) -> Result<usize> {
        let (first, second) = (self.tensors.offset(self.a.cast(), 0), self.tensors.offset(self.b.cast(), 0));
        let (Some(header), Some(second)) = (first, second) else { return Err(Error::mismatch("ggml_new_tensor_4d")) };
        expect("ggml_tensor_overhead", overhead, second.wrapping_sub(header))?;
        let size = overhead.saturating_sub(header);
        if SIZES.contains(&size) {
            Ok(size)
        } else {
            Err(Error::mismatch(format!("a tensor takes {overhead} bytes, {header} of them before it")))
        }
    }

    /// Puts the elements of `a` and `b` in a buffer each.
    fn place(&mut self) -> Result<()> {
        for (i, tensor) in [self.a, self.b].into_iter().enumerate() {
            let memory = &self.elements[i];
            // SAFETY: a leaf of this context.
            let n_bytes = unsafe { (self.ggml.nbytes)(tensor) };
            expect("ggml_nbytes", n_bytes, EXTENTS.iter().product::<i64>() as usize * 4)?;
            // SAFETY: the memory is that large and aligned, and outlives the buffer.
            self.buffers[i] = unsafe { (self.ggml.buffer_from_ptr)(memory.start.cast(), memory.len) };
            if self.buffers[i].is_null() {
                return Err(Error::mismatch("ggml_backend_cpu_buffer_from_ptr gave NULL"));
            }
            // SAFETY: the tensor has no memory yet and fits the buffer, at whose start it is put.
            unsafe { (self.ggml.tensor_alloc)(self.buffers[i], tensor, memory.start.cast()) };
        }
        Ok(())
    }

    pub(super) fn measure(&self) -> Result<Layout> {
        let none = std::ptr::null_mut::<Tensor>();
        let (a, b) = (self.a, self.b);
        let shape = self.only(
            "ne",
            &[(a, EXTENTS), (self.half, [11, 13, 2, 1]), (self.integers, [17, 1, 1, 1]), (self.view, [6, 1, 1, 1])],
        )?;
        let types = [(a, TYPE_F32), (self.half, TYPE_F16), (self.integers, TYPE_I32), (self.a_plus_b, TYPE_F32)];
        let dtype = self.only("type", &types)?;
        let operands = [
            (a, [none, none]),
            (self.a_plus_b, [a, b]),
            (self.b_plus_a, [b, a]),
            (self.view, [a, none]),
            (self.view_of_view, [self.view, none]),
        ];
        let src = self.only("src", &operands)?;
        let roots = [(a, none), (self.a_plus_b, none), (self.view, a), (self.view_of_view, a), (self.turned, a)];
        let view_src = self.only("view_src", &roots)?;
        let [at_a, at_b] = self.elements.each_ref().map(|memory| memory.start);
        let placed = [
            (a, at_a),
            (b, at_b),
            (self.view, at_a.wrapping_add(VIEWS[0].1)),
            (self.view_of_view, at_a.wrapping_add(VIEWS[0].1 + VIEWS[1].1)),
            (self.integers, std::ptr::null_mut()),
        ];
        let data = self.only("data", &placed)?;
        let [of_a, of_b] = self.buffers;
        let buffer = self.only("buffer", &[(a, of_a), (b, of_b), (self.integers, std::ptr::null_mut())])?;
        // No more operands than fit before the next field that is known.
        let size = self.size as u32;
        let next = [dtype, shape, view_src, data, buffer, size].into_iter().filter(|&at| at > src).min();
        let n_src = (next.unwrap_or(src) - src) / size_of::<*const Tensor>() as u32;
        Ok(Layout { dtype, shape, src, n_src: n_src.min(MAX_SRC), data, buffer, view_src, size })
    }

    /// The one place where every sample has its value.
    fn only<T: Copy + PartialEq>(&self, name: &str, samples: &[(Node, T)]) -> Result<u32> {
        let fits = |at: usize| {
            samples.iter().all(|&(tensor, value)| {
                // SAFETY: the tensor is `size` bytes of our memory, and the place ends inside.
                let field = unsafe { tensor.cast::<u8>().add(at) };
                // SAFETY: as above; any bytes are a `T`: it is made of integers or pointers.
                unsafe { field.cast::<T>().read_unaligned() == value }
            })
        };
        let mut places = (0..=self.size - size_of::<T>()).step_by(align_of::<T>()).filter(|&at| fits(at));
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place as u32),
            (None, _) => Err(Error::mismatch(format!("no place in ggml_tensor is its {name}"))),
            (Some(one), Some(other)) => {
                Err(Error::mismatch(format!("two places in ggml_tensor may be its {name}: {one} and {other}")))
            }
        }
    }

    /// What the host reads is what was made, and what ggml's functions say.
    pub(super) fn check(&self, host: &Host) -> Result<()> {
        let leaves = [self.a, self.b, self.half, self.integers];
        let nodes = [self.a_plus_b, self.b_plus_a, self.view, self.view_of_view, self.turned];
        for tensor in leaves.into_iter().chain(nodes) {
            // SAFETY: a tensor of this context, as all below.
            let shape = unsafe { host.shape(tensor) };
            // SAFETY: as above.
            expect("ggml_nelements", unsafe { (self.ggml.nelements)(tensor) }, shape.iter().product())?;
        }
        // SAFETY: as above.
        expect("ggml_nbytes", unsafe { (self.ggml.nbytes)(self.half) }, 11 * 13 * 2 * 2)?;
        // SAFETY: as above.
        let plain = unsafe { host.contiguous(self.a) };
        // SAFETY: as above.
        let turned = unsafe { host.contiguous(self.turned) };
        expect("ggml_is_contiguous", (plain, turned), (true, false))?;
        for (tensor, name) in [(self.a, c"tiller.a"), (self.a_plus_b, c"a + b-17")] {
            // SAFETY: as above; ggml copies the name.
            unsafe { (self.ggml.set_name)(tensor, name.as_ptr()) };
            // SAFETY: as above; the name is compared while the context lives.
            expect("ggml_get_name", text(unsafe { host.name(tensor) }), text(name.to_bytes()))?;
        }
        for (tensor, op) in [(self.a, "NONE"), (self.a_plus_b, "ADD"), (self.view, "VIEW"), (self.turned, "TRANSPOSE")]
        {
            // SAFETY: as above.
            expect("ggml_op_desc", text(unsafe { host.op(tensor) }.unwrap_or_default()), op.into())?;
        }
        self.check_operands(host)?;
        self.check_memory(host)
    }

    fn check_operands(&self, host: &Host) -> Result<()> {
        let none = std::ptr::null();
        let mut expected = vec![none; MAX_SRC as usize + 1];
        expected[..2].copy_from_slice(&[self.a.cast_const(), self.b.cast_const()]);
        // SAFETY: a tensor of the context.
        let found: Vec<_> = (0..expected.len()).map(|i| unsafe { host.src(self.a_plus_b, i) }).collect();
        expect("src of ggml_tensor", found, expected)
    }

    fn check_memory(&self, host: &Host) -> Result<()> {
        let start = self.elements[0].start;
        let in_place = [
            (self.a, start),
            (self.b, self.elements[1].start),
            (self.view, start.wrapping_add(VIEWS[0].1)),
            (self.integers, std::ptr::null_mut()),
        ];
        for (tensor, address) in in_place {
            // SAFETY: a tensor of the context.
            let found = unsafe { host.data(tensor) };
            expect("ggml_backend_buffer_is_host, or data of ggml_tensor", found, address.cast())?;
            // SAFETY: as above.
            expect("ggml_get_data", unsafe { (self.ggml.get_data)(tensor) }, address.cast())?;
        }
        let sent: [u8; 8] = *b"\x01tiller\xfe";
        let (mut lies, mut back) = ([0; 12], [0; 8]);
        // SAFETY: `a` holds 840 bytes.
        unsafe { host.set(self.a, sent.as_ptr().cast(), 12, sent.len()) };
        // SAFETY: `a` begins where this memory of 1,024 bytes does.
        unsafe { start.add(10).copy_to(lies.as_mut_ptr(), lies.len()) };
        expect("ggml_backend_tensor_set", &lies[..], b"\0\0\x01tiller\xfe\0\0")?;
        // SAFETY: as for `set`; there is room for 8 bytes.
        unsafe { host.get(self.a, back.as_mut_ptr().cast(), 12, back.len()) };
        expect("ggml_backend_tensor_get", back, sent)
    }
}

/// Bytes of a name, to be compared and shown.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
