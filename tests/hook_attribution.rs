//! Which token a row belongs to: graphs that a fake host plays, with what reality rarely shows (device memory, broken
//! announcements, no positions).

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;

use tiller::hook::{Captured, Fields, Functions, Hook, Host, Tensor};
use tiller::plan::{Plan, Route, RowMeta};

/// A tensor of the fake host.
struct Fake {
    name: CString,
    dtype: c_int,
    shape: [i64; 4],
    bytes: Vec<u32>,
    /// Readable by the CPU in place.
    host: bool,
    operand: *const Fake,
}

impl Fake {
    fn floats(name: &str, width: usize, values: &[f32]) -> Self {
        Self {
            name: CString::new(name).unwrap(),
            dtype: 0,
            shape: [width as i64, (values.len() / width) as i64, 1, 1],
            bytes: values.iter().map(|v| v.to_bits()).collect(),
            host: true,
            operand: std::ptr::null(),
        }
    }

    fn integers(name: &str, values: &[i32]) -> Self {
        Self {
            name: CString::new(name).unwrap(),
            dtype: 26,
            shape: [values.len() as i64, 1, 1, 1],
            bytes: values.iter().map(|v| v.cast_unsigned()).collect(),
            host: true,
            operand: std::ptr::null(),
        }
    }

    fn reads(mut self, operand: &Fake) -> Self {
        self.operand = operand;
        self
    }

    fn on_device(mut self) -> Self {
        self.host = false;
        self
    }

    fn values(&self) -> Vec<f32> {
        self.bytes.iter().map(|&b| f32::from_bits(b)).collect()
    }
}

fn fake<'a>(t: *const Tensor) -> &'a Fake {
    // SAFETY: every tensor of these tests is a `Fake` that outlives the graph.
    unsafe { &*t.cast::<Fake>() }
}

unsafe extern "C" fn name(t: *const Tensor) -> *const c_char {
    fake(t).name.as_ptr()
}
unsafe extern "C" fn dtype(t: *const Tensor) -> c_int {
    fake(t).dtype
}
unsafe extern "C" fn shape(t: *const Tensor, out: *mut i64) {
    // SAFETY: the hook gives room for four extents.
    unsafe { out.cast::<[i64; 4]>().write(fake(t).shape) }
}
unsafe extern "C" fn contiguous(_: *const Tensor) -> bool {
    true
}
unsafe extern "C" fn data(t: *const Tensor) -> *mut c_void {
    let fake = fake(t);
    if fake.host { fake.bytes.as_ptr().cast_mut().cast() } else { std::ptr::null_mut() }
}
unsafe extern "C" fn get(t: *const Tensor, to: *mut c_void, offset: usize, size: usize) {
    let bytes: &[u8] = bytemuck::cast_slice(&fake(t).bytes);
    // SAFETY: the hook gives room for `size` bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes[offset..offset + size].as_ptr(), to.cast(), size) }
}
unsafe extern "C" fn set(t: *mut Tensor, from: *const c_void, offset: usize, size: usize) {
    // SAFETY: as in `fake`; the hook holds no reference to the tensor's own memory here.
    let fake = unsafe { &mut *t.cast::<Fake>() };
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut fake.bytes);
    // SAFETY: the hook gives `size` bytes.
    unsafe { std::ptr::copy_nonoverlapping(from.cast(), bytes[offset..offset + size].as_mut_ptr(), size) }
}
unsafe extern "C" fn src(t: *const Tensor, i: c_int) -> *const Tensor {
    if i == 1 { fake(t).operand.cast() } else { std::ptr::null() }
}

fn host(sources: bool) -> Host {
    let src = sources.then_some(src as unsafe extern "C" fn(*const Tensor, c_int) -> *const Tensor);
    Host::new(Functions { name, contiguous, get, set, op: None }, Fields::Asked { dtype, shape, data, src })
}

/// Runs the nodes of a graph past the hook, as ggml's scheduler does; whether it ran to its end.
fn play(hook: &mut Hook, nodes: &mut [&mut Fake]) -> bool {
    for node in nodes {
        let t = std::ptr::from_mut::<Fake>(node).cast::<Tensor>();
        // SAFETY: the fakes live through the call and fit the table.
        if unsafe { hook.eval(t, true) } && !unsafe { hook.eval(t, false) } {
            return false;
        }
    }
    true
}

/// A graph of two blocks over tokens at `positions`; the second holds the rows of `outputs` only.
fn graph(hook: &mut Hook, positions: &[i32], outputs: &[i32]) -> bool {
    let n = positions.len();
    let inp_pos = Fake::integers("inp_pos", positions);
    let out_ids = Fake::integers("out_ids", outputs);
    let values: Vec<f32> = positions.iter().flat_map(|&p| [p as f32, -1.0]).collect();
    let last: Vec<f32> = outputs.iter().flat_map(|&o| [positions[o as usize] as f32, -2.0]).collect();
    let mut nodes = [
        Fake::floats("inp_embd", 2, &vec![0.0; 2 * n]),
        Fake::floats("Qcur-0", 2, &vec![0.0; 2 * n]).reads(&inp_pos),
        Fake::floats("l_out-0", 2, &values),
        Fake::floats("Qcur-1", 2, &vec![0.0; 2 * n]).reads(&inp_pos),
        Fake::floats("node_7", 2, &last).reads(&out_ids),
        Fake::floats("l_out-1", 2, &last),
    ];
    play(hook, &mut nodes.each_mut())
}

fn row(position: i32, sequence: i32) -> RowMeta {
    RowMeta { position, sequence, generated: false }
}

fn positions(captured: &Captured) -> Vec<i32> {
    captured.meta.iter().map(|m| m.position).collect()
}

#[test]
fn positions_come_from_the_graph() {
    let mut hook = Hook::new(host(true));
    hook.capture([0, 1]).unwrap();
    assert!(graph(&mut hook, &[0, 1, 2, 3], &[1, 3]));
    assert!(graph(&mut hook, &[4], &[0]));
    let (first, last) = (hook.take_captured(0), hook.take_captured(1));
    assert_eq!(positions(&first), [0, 1, 2, 3, 4]);
    assert_eq!(first.rows, [0.0, -1.0, 1.0, -1.0, 2.0, -1.0, 3.0, -1.0, 4.0, -1.0]);
    assert_eq!(positions(&last), [1, 3, 4], "the last block holds output rows only");
    assert!(first.meta[4].generated && !first.meta[1].generated, "a graph of one row past position 0 is generated");
    assert_eq!(hook.finish().unwrap().rows_captured, 8);
}

#[test]
fn an_announcement_adds_sequences_over_several_micro_batches() {
    let mut hook = Hook::new(host(true));
    hook.capture([0, 1]).unwrap();
    hook.announce(&[row(0, 5), row(1, 5), row(0, 6), row(1, 6), row(2, 6)]);
    assert!(graph(&mut hook, &[0, 1, 0], &[2]));
    assert!(graph(&mut hook, &[1, 2], &[0, 1]));
    let first = hook.take_captured(0);
    assert_eq!(first.meta, [row(0, 5), row(1, 5), row(0, 6), row(1, 6), row(2, 6)]);
    assert_eq!(hook.take_captured(1).meta, [row(0, 6), row(1, 6), row(2, 6)]);
}

#[test]
fn a_contradicted_announcement_attributes_nothing() {
    let mut hook = Hook::new(host(true));
    hook.capture([0]).unwrap();
    hook.announce(&[row(0, 0), row(7, 0)]);
    assert!(graph(&mut hook, &[0, 1], &[1]));
    assert_eq!(positions(&hook.take_captured(0)), [-1, -1]);
}

#[test]
fn without_sources_the_announcement_is_believed_and_nothing_else_is() {
    let mut hook = Hook::new(host(false));
    hook.capture([0]).unwrap();
    assert!(graph(&mut hook, &[0, 1], &[1]));
    assert_eq!(positions(&hook.take_captured(0)), [-1, -1]);
    hook.finish().unwrap();
    hook.announce(&[row(0, 2), row(1, 2)]);
    assert!(graph(&mut hook, &[0, 1], &[1]));
    assert_eq!(hook.take_captured(0).meta, [row(0, 2), row(1, 2)]);
}

/// Every node of these lies where it can be edited in place, so a single bit would tell.
#[test]
fn a_hook_with_nothing_to_do_writes_no_bit() {
    let empty = Arc::new(Plan::default().compile(&[], 2, 2, Route::Callback).unwrap());
    let mut captures = Hook::new(host(true));
    captures.capture([0]).unwrap();
    let mut planned = Hook::new(host(true));
    planned.set_plan(Some(empty)).unwrap();
    for mut hook in [Hook::new(host(true)), planned, captures] {
        // What arithmetic would change: a quiet NaN with a payload, a negative zero, the least subnormal.
        let values = [f32::from_bits(0x7fc0_1234), -0.0, f32::from_bits(1), 3.0];
        let inp_pos = Fake::integers("inp_pos", &[0, 1]);
        let mut q = Fake::floats("Qcur-0", 2, &values).reads(&inp_pos);
        let mut out = Fake::floats("l_out-0", 2, &values);
        assert!(play(&mut hook, &mut [&mut q, &mut out]));
        for node in [&q, &out] {
            assert_eq!(node.bytes, values.map(f32::to_bits));
        }
        assert_eq!(hook.finish().unwrap().rows_edited, 0);
    }
}

#[test]
fn harvesting_ends_the_graph_after_the_last_wanted_layer() {
    let mut hook = Hook::new(host(true));
    hook.capture([0]).unwrap();
    hook.stop_after(Some(0));
    assert!(!graph(&mut hook, &[0, 1, 2], &[2]));
    assert!(!graph(&mut hook, &[0, 1], &[1]), "the next graph starts afresh");
    assert_eq!(positions(&hook.take_captured(0)), [0, 1, 2, 0, 1]);
}

#[test]
fn rows_in_device_memory_are_edited_through_get_and_set() {
    let mut hook = Hook::new(host(true));
    hook.patch(
        0,
        Some(Box::new(|rows, _| {
            rows.iter_mut().for_each(|x| *x *= 10.0);
            Ok(())
        })),
    )
    .unwrap();
    let inp_pos = Fake::integers("CUDA0#inp_pos#0", &[0, 1]).on_device();
    let mut q = Fake::floats("Qcur-0", 2, &[0.0; 4]).reads(&inp_pos);
    let mut out = Fake::floats("l_out-0", 2, &[1.0, 2.0, 3.0, 4.0]).on_device();
    hook.capture([0]).unwrap();
    assert!(play(&mut hook, &mut [&mut q, &mut out]));
    assert_eq!(out.values(), [10.0, 20.0, 30.0, 40.0]);
    let captured = hook.take_captured(0);
    assert_eq!((captured.rows.as_slice(), positions(&captured)), (&[10.0, 20.0, 30.0, 40.0][..], vec![0, 1]));
}

#[test]
fn a_failure_is_kept_until_finish_and_the_graph_runs_on() {
    let mut hook = Hook::new(host(true));
    hook.capture([0]).unwrap();
    let mut wrong = Fake::floats("l_out-0", 2, &[1.0, 2.0]);
    wrong.dtype = 1;
    assert!(play(&mut hook, &mut [&mut wrong]));
    let error = hook.finish().unwrap_err();
    assert_eq!(error.message(), "blocks.0.hook_resid_post: the residual stream has ggml type 1, expected f32 (0)");
    assert!(hook.finish().is_ok(), "reported once");
}

#[test]
fn look_alike_names_are_not_the_residual_stream() {
    let mut hook = Hook::new(host(true));
    hook.capture([0]).unwrap();
    for name in ["l_out-", "l_out-0 (view)", "xl_out-0", "l_out--1", "l_out-99999999999999999999999"] {
        let mut node = Fake::floats(name, 2, &[1.0, 2.0]);
        let t = std::ptr::from_mut(&mut node).cast::<Tensor>();
        // SAFETY: the fake lives through the call and fits the table.
        assert!(!unsafe { hook.eval(t, true) }, "{name}");
    }
}
