//! ggml seen without its headers: a fake whose tensor is laid out like that of no release, fakes that lack a function
//! or contradict themselves, and, with the engine, the real one.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

use tiller::hook::{Layout, Probed};
use tiller::{Error, Kind};

#[repr(C)]
struct Fake {
    view_src: *mut Fake,
    spare: [c_int; 3],
    dtype: c_int,
    src: [*mut Fake; 3],
    buffer: *mut Region,
    name: [u8; 64],
    op: *const c_char,
    data: *mut u8,
    nb: [usize; 4],
    ne: [i64; 4],
    end: u64,
}

/// What a context and a buffer are to the fake: memory, and how much of it is taken.
struct Region {
    start: *mut u8,
    len: usize,
    used: usize,
}

#[repr(C)]
struct InitParams {
    mem_size: usize,
    mem_buffer: *mut c_void,
    no_alloc: bool,
}

/// Of the header before each tensor.
const HEADER: usize = 48;
const LAYOUT: Layout = Layout {
    dtype: offset_of!(Fake, dtype) as u32,
    shape: offset_of!(Fake, ne) as u32,
    src: offset_of!(Fake, src) as u32,
    n_src: 3,
    data: offset_of!(Fake, data) as u32,
    buffer: offset_of!(Fake, buffer) as u32,
    view_src: offset_of!(Fake, view_src) as u32,
    size: size_of::<Fake>() as u32,
};

/// The fake's functions; each is called as ggml's is, with what the probe made.
#[allow(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
mod ggml {
    use super::*;

    pub(crate) unsafe extern "C" fn overhead() -> usize {
        HEADER + size_of::<Fake>()
    }
    pub(crate) unsafe extern "C" fn init(params: InitParams) -> *mut Region {
        Box::into_raw(Box::new(Region { start: params.mem_buffer.cast(), len: params.mem_size, used: 0 }))
    }
    pub(crate) unsafe extern "C" fn free(region: *mut Region) {
        drop(unsafe { Box::from_raw(region) });
    }
    pub(crate) unsafe extern "C" fn new(c: *mut Region, dtype: c_int, a: i64, b: i64, m: i64, n: i64) -> *mut Fake {
        let region = unsafe { &mut *c };
        let at = region.used + HEADER;
        region.used = at + size_of::<Fake>();
        assert!(region.used <= region.len);
        let t: *mut Fake = unsafe { region.start.add(at) }.cast();
        let size = if dtype == 1 { 2 } else { 4 };
        let nb = [size, size * a as usize, size * (a * b) as usize, size * (a * b * m) as usize];
        let ne = [a, b, m, n];
        let op = c"NONE".as_ptr();
        let (view_src, src, buffer, data) = (null_mut(), [null_mut(); 3], null_mut(), null_mut());
        unsafe {
            t.write(Fake { view_src, spare: [0; 3], dtype, src, buffer, name: [0; 64], op, data, nb, ne, end: 0 })
        };
        t
    }
    unsafe fn node(c: *mut Region, like: *mut Fake, op: &'static CStr, src: [*mut Fake; 2]) -> *mut Fake {
        let [a, b, m, n] = unsafe { (*like).ne };
        let t = unsafe { new(c, (*like).dtype, a, b, m, n) };
        unsafe { (*t).op = op.as_ptr() };
        unsafe { (*t).src = [src[0], src[1], null_mut()] };
        t
    }
    pub(crate) unsafe extern "C" fn add(c: *mut Region, a: *mut Fake, b: *mut Fake) -> *mut Fake {
        unsafe { node(c, a, c"ADD", [a, b]) }
    }
    unsafe fn look(t: *mut Fake, at: *mut Fake, offset: usize) -> *mut Fake {
        let root = unsafe { (*at).view_src };
        unsafe { (*t).view_src = if root.is_null() { at } else { root } };
        unsafe { (*t).data = (*at).data.wrapping_add(offset) };
        t
    }
    pub(crate) unsafe extern "C" fn view_1d(c: *mut Region, a: *mut Fake, n: i64, offset: usize) -> *mut Fake {
        let t = unsafe { node(c, a, c"VIEW", [a, null_mut()]) };
        unsafe { (*t).ne = [n, 1, 1, 1] };
        unsafe { look(t, a, offset) }
    }
    pub(crate) unsafe extern "C" fn transpose(c: *mut Region, a: *mut Fake) -> *mut Fake {
        let t = unsafe { node(c, a, c"TRANSPOSE", [a, null_mut()]) };
        unsafe { (*t).ne.swap(0, 1) };
        unsafe { (*t).nb = (*a).nb };
        unsafe { (*t).nb.swap(0, 1) };
        unsafe { look(t, a, 0) }
    }
    pub(crate) unsafe extern "C" fn set_name(t: *mut Fake, name: *const c_char) -> *mut Fake {
        let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
        unsafe { (&mut (*t).name)[..name.len()].copy_from_slice(name) };
        t
    }
    pub(crate) unsafe extern "C" fn get_name(t: *const Fake) -> *const c_char {
        unsafe { (&raw const (*t).name).cast() }
    }
    pub(crate) unsafe extern "C" fn get_data(t: *const Fake) -> *mut u8 {
        unsafe { (*t).data }
    }
    pub(crate) unsafe extern "C" fn nelements(t: *const Fake) -> i64 {
        unsafe { (*t).ne }.iter().product()
    }
    pub(crate) unsafe extern "C" fn nbytes(t: *const Fake) -> usize {
        let size = if unsafe { (*t).dtype } == 1 { 2 } else { 4 };
        unsafe { nelements(t) as usize * size }
    }
    pub(crate) unsafe extern "C" fn is_contiguous(t: *const Fake) -> bool {
        unsafe { (*t).nb[0] < (*t).nb[1] }
    }
    pub(crate) unsafe extern "C" fn op_desc(t: *const Fake) -> *const c_char {
        unsafe { (*t).op }
    }
    pub(crate) unsafe extern "C" fn type_name(number: c_int) -> *const c_char {
        let name = match number {
            0 => c"f32",
            1 => c"f16",
            26 => c"i32",
            _ => c"?",
        };
        name.as_ptr()
    }
    pub(crate) unsafe extern "C" fn buffer_from_ptr(start: *mut u8, len: usize) -> *mut Region {
        Box::into_raw(Box::new(Region { start, len, used: 0 }))
    }
    pub(crate) unsafe extern "C" fn is_host(_: *mut Region) -> bool {
        true
    }
    pub(crate) unsafe extern "C" fn alloc(buffer: *mut Region, t: *mut Fake, address: *mut u8) {
        unsafe { (*t).buffer = buffer };
        unsafe { (*t).data = address };
    }
    pub(crate) unsafe extern "C" fn get(t: *const Fake, to: *mut u8, offset: usize, n: usize) {
        unsafe { (*t).data.add(offset).copy_to(to, n) }
    }
    pub(crate) unsafe extern "C" fn set(t: *mut Fake, from: *const u8, offset: usize, n: usize) {
        unsafe { from.copy_to((*t).data.add(offset), n) }
    }

    // What is wrong with these, their names say.
    pub(crate) unsafe extern "C" fn always_true(_: *const Fake) -> bool {
        true
    }
    pub(crate) unsafe extern "C" fn always_false(_: *const Fake) -> bool {
        false
    }
    pub(crate) unsafe extern "C" fn always_null() -> *mut c_void {
        null_mut()
    }
    pub(crate) unsafe extern "C" fn always_one() -> usize {
        1
    }
    pub(crate) unsafe extern "C" fn always_text() -> *const c_char {
        c"ADD".as_ptr()
    }
    pub(crate) unsafe extern "C" fn nothing() {}
    pub(crate) unsafe extern "C" fn more_overhead() -> usize {
        HEADER + size_of::<Fake>() + 16
    }
    pub(crate) unsafe extern "C" fn elsewhere() -> *mut c_void {
        static ELSEWHERE: [u64; 64] = [0; 64];
        (&raw const ELSEWHERE).cast_mut().cast()
    }
    pub(crate) unsafe extern "C" fn add_swapped(c: *mut Region, a: *mut Fake, b: *mut Fake) -> *mut Fake {
        unsafe { add(c, b, a) }
    }
    pub(crate) unsafe extern "C" fn view_of_nothing(c: *mut Region, a: *mut Fake, n: i64, offset: usize) -> *mut Fake {
        let t = unsafe { view_1d(c, a, n, offset) };
        unsafe { (*t).view_src = null_mut() };
        t
    }
    pub(crate) unsafe extern "C" fn two_types(c: *mut Region, d: c_int, a: i64, b: i64, m: i64, n: i64) -> *mut Fake {
        let t = unsafe { new(c, d, a, b, m, n) };
        unsafe { (*t).spare[1] = d };
        t
    }
    pub(crate) unsafe extern "C" fn set_too_far(t: *mut Fake, from: *const u8, offset: usize, n: usize) {
        unsafe { set(t, from, offset + 1, n) }
    }
}

/// The fake's function of a name.
fn fake(name: &str) -> *mut c_void {
    let found: *const () = match name.strip_prefix("ggml_").unwrap_or(name) {
        "tensor_overhead" => ggml::overhead as *const (),
        "init" => ggml::init as *const (),
        "free" | "backend_buffer_free" => ggml::free as *const (),
        "new_tensor_4d" => ggml::new as *const (),
        "add" => ggml::add as *const (),
        "view_1d" => ggml::view_1d as *const (),
        "transpose" => ggml::transpose as *const (),
        "set_name" => ggml::set_name as *const (),
        "get_name" => ggml::get_name as *const (),
        "get_data" => ggml::get_data as *const (),
        "nelements" => ggml::nelements as *const (),
        "nbytes" => ggml::nbytes as *const (),
        "is_contiguous" => ggml::is_contiguous as *const (),
        "op_desc" => ggml::op_desc as *const (),
        "type_name" => ggml::type_name as *const (),
        "backend_cpu_buffer_from_ptr" => ggml::buffer_from_ptr as *const (),
        "backend_buffer_is_host" => ggml::is_host as *const (),
        "backend_tensor_alloc" => ggml::alloc as *const (),
        "backend_tensor_get" => ggml::get as *const (),
        "backend_tensor_set" => ggml::set as *const (),
        _ => panic!("the probe asks for {name}"),
    };
    found.cast_mut().cast()
}

/// Probes a ggml with `function` in place of its own function of the name `replaced`.
fn probe(own: fn(&str) -> *mut c_void, replaced: &str, function: *mut c_void) -> Result<Probed, Error> {
    let mut met = replaced.is_empty();
    let mut lookup = |name: &CStr| {
        let name = name.to_str().expect("a name");
        met |= name == replaced;
        if name == replaced { function } else { own(name) }
    };
    // SAFETY: functions of one ggml; those that replace one misbehave in ways that the probe must notice.
    let probed = unsafe { Probed::new(&mut lookup) };
    assert!(met, "{replaced} is not asked for");
    probed
}

/// The names that a probe asks for.
fn names(own: fn(&str) -> *mut c_void) -> Vec<String> {
    let mut names = Vec::new();
    let mut lookup = |name: &CStr| {
        names.push(name.to_str().expect("a name").to_owned());
        own(names.last().expect("a name"))
    };
    // SAFETY: functions of one ggml.
    unsafe { Probed::new(&mut lookup) }.expect("a probe");
    names
}

#[test]
fn fields_are_found_wherever_they_lie() {
    assert_eq!(probe(fake, "", null_mut()).expect("a probe").layout, LAYOUT);
}

#[test]
fn a_missing_function_is_named() {
    let names = names(fake);
    assert!(names.len() > 15, "{names:?}");
    for name in &names {
        let error = probe(fake, name, null_mut()).err().unwrap_or_else(|| panic!("without {name}"));
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains(&format!("function {name}:")), "{name}: {error}");
    }
}

#[test]
fn contradictions_are_named() {
    let cases: [(&str, *const (), &str); 23] = [
        ("ggml_tensor_overhead", ggml::always_one as *const (), "ggml_tensor_overhead says 1"),
        ("ggml_tensor_overhead", ggml::more_overhead as *const (), "ggml_tensor_overhead says"),
        ("ggml_init", ggml::always_null as *const (), "ggml_init gave NULL"),
        ("ggml_new_tensor_4d", ggml::always_null as *const (), "ggml_new_tensor_4d gave a tensor outside"),
        ("ggml_new_tensor_4d", ggml::elsewhere as *const (), "ggml_new_tensor_4d gave a tensor outside"),
        ("ggml_new_tensor_4d", ggml::two_types as *const (), "two places in ggml_tensor may be its type"),
        ("ggml_add", ggml::elsewhere as *const (), "ggml_add gave a tensor outside"),
        ("ggml_add", ggml::add_swapped as *const (), "no place in ggml_tensor is its src"),
        ("ggml_view_1d", ggml::always_null as *const (), "ggml_view_1d gave a tensor outside"),
        ("ggml_view_1d", ggml::view_of_nothing as *const (), "no place in ggml_tensor is its view_src"),
        ("ggml_transpose", ggml::always_null as *const (), "ggml_transpose gave a tensor outside"),
        ("ggml_get_name", ggml::always_text as *const (), "ggml_get_name says"),
        ("ggml_set_name", ggml::nothing as *const (), "ggml_get_name says"),
        ("ggml_get_data", ggml::always_null as *const (), "ggml_get_data says"),
        ("ggml_nelements", ggml::always_one as *const (), "ggml_nelements says 1"),
        ("ggml_nbytes", ggml::always_one as *const (), "ggml_nbytes says 1"),
        ("ggml_is_contiguous", ggml::always_true as *const (), "ggml_is_contiguous says (true, true)"),
        ("ggml_op_desc", ggml::always_text as *const (), "ggml_op_desc says \"ADD\", expected \"NONE\""),
        ("ggml_type_name", ggml::always_null as *const (), "ggml_type_name says None"),
        ("ggml_backend_tensor_alloc", ggml::nothing as *const (), "no place in ggml_tensor is its data"),
        ("ggml_backend_buffer_is_host", ggml::always_false as *const (), "ggml_backend_buffer_is_host"),
        ("ggml_backend_tensor_get", ggml::nothing as *const (), "ggml_backend_tensor_get says"),
        ("ggml_backend_tensor_set", ggml::set_too_far as *const (), "ggml_backend_tensor_set says"),
    ];
    for (name, function, expected) in cases {
        let error = probe(fake, name, function.cast_mut().cast()).err().unwrap_or_else(|| panic!("{expected}"));
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        assert!(error.message().starts_with(expected), "{name}: {error}, expected {expected}");
    }
}

/// The ggml that the engine carries.
#[cfg(feature = "engine")]
mod real {
    use super::*;
    use ggml_sys as sys;

    fn engine(name: &str) -> *mut c_void {
        let found: *const () = match name.strip_prefix("ggml_").unwrap_or(name) {
            "tensor_overhead" => sys::ggml_tensor_overhead as *const (),
            "init" => sys::ggml_init as *const (),
            "free" => sys::ggml_free as *const (),
            "new_tensor_4d" => sys::ggml_new_tensor_4d as *const (),
            "add" => sys::ggml_add as *const (),
            "view_1d" => sys::ggml_view_1d as *const (),
            "transpose" => sys::ggml_transpose as *const (),
            "set_name" => sys::ggml_set_name as *const (),
            "get_name" => sys::ggml_get_name as *const (),
            "get_data" => sys::ggml_get_data as *const (),
            "nelements" => sys::ggml_nelements as *const (),
            "nbytes" => sys::ggml_nbytes as *const (),
            "is_contiguous" => sys::ggml_is_contiguous as *const (),
            "op_desc" => sys::ggml_op_desc as *const (),
            "type_name" => sys::ggml_type_name as *const (),
            "backend_cpu_buffer_from_ptr" => sys::ggml_backend_cpu_buffer_from_ptr as *const (),
            "backend_buffer_free" => sys::ggml_backend_buffer_free as *const (),
            "backend_buffer_is_host" => sys::ggml_backend_buffer_is_host as *const (),
            "backend_tensor_alloc" => sys::ggml_backend_tensor_alloc as *const (),
            "backend_tensor_get" => sys::ggml_backend_tensor_get as *const (),
            "backend_tensor_set" => sys::ggml_backend_tensor_set as *const (),
            _ => panic!("the probe asks for {name}"),
        };
        found.cast_mut().cast()
    }

    #[test]
    fn the_layout_is_that_of_the_header() {
        use sys::ggml_tensor;
        let expected = Layout {
            dtype: offset_of!(ggml_tensor, type_) as u32,
            shape: offset_of!(ggml_tensor, ne) as u32,
            src: offset_of!(ggml_tensor, src) as u32,
            n_src: 10,
            data: offset_of!(ggml_tensor, data) as u32,
            buffer: offset_of!(ggml_tensor, buffer) as u32,
            view_src: offset_of!(ggml_tensor, view_src) as u32,
            size: size_of::<ggml_tensor>() as u32,
        };
        assert_eq!(probe(engine, "", null_mut()).expect("a probe").layout, expected);
    }

    #[test]
    fn a_function_of_another_name_is_noticed() {
        let error = probe(engine, "ggml_nelements", sys::ggml_nbytes as *const () as *mut c_void).err();
        assert!(error.is_some_and(|e| e.message().starts_with("ggml_nelements says")));
        let error = probe(engine, "ggml_get_name", sys::ggml_op_desc as *const () as *mut c_void).err();
        assert!(error.is_some_and(|e| e.message().starts_with("ggml_get_name says")));
    }
}
