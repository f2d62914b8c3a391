use std::ffi::{CString, c_char, c_void};

use super::arguments::{Report, path, report, some, text};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::{c_string, tiller_text};
use crate::error::{Error, Result};
use crate::file::gguf::{Array, Gguf, Value, ValueType};

/// A GGUF file, mapped read-only and checked: every offset and length that it names lies inside it.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_gguf {
    file: Gguf,
    keys: Vec<CString>,
    names: Vec<CString>,
}

/// A tensor of a GGUF file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_tensor {
    /// Set it to sizeof(tiller_tensor) before the call.
    pub size: u32,
    /// ggml's number of the element type.
    pub dtype: u32,
    /// Its name; valid until the file is freed.
    pub name: *const c_char,
    /// The extents, the contiguous one first; unused ones are 1.
    pub shape: [u64; 4],
    /// Its bytes, inside the mapped file; valid until the file is freed. Not aligned beyond what the file says.
    pub data: *const c_void,
    /// How many bytes.
    pub n_bytes: u64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_tensor {
    const NAME: &'static str = "tiller_tensor";
}

/// Opens a GGUF file.
///
/// On success `*out` owns a new object; free it with tiller_gguf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_gguf_open(
    file: *const c_char,
    out: Out<'_, tiller_gguf>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string.
        let file = Gguf::open(unsafe { path(file, "file") }?)?;
        let keys = file.keys().iter().map(|(key, _)| c_string(key)).collect();
        let names = file.tensors().iter().map(|tensor| c_string(&tensor.name)).collect();
        Ok(tiller_gguf { file, keys, names })
    })
}

/// Number of metadata keys. 0 if `gguf` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_gguf_n_keys(gguf: Option<&tiller_gguf>) -> usize {
    gguf.map_or(0, |g| g.keys.len())
}

/// The `i`-th key, in the order of the file; NULL if there is none. Valid until `gguf` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_gguf_key(gguf: Option<&tiller_gguf>, i: usize) -> *const c_char {
    gguf.and_then(|g| g.keys.get(i)).map_or(std::ptr::null(), |key| key.as_ptr())
}

/// The value of `key` as JSON: a number, true, false, a string or an array.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_gguf_value(
    gguf: Option<&tiller_gguf>,
    key: *const c_char,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let gguf = some(gguf, "gguf")?;
        // SAFETY: the header requires a C string.
        let key = unsafe { text(key, "key") }?;
        let value = gguf.file.get(key).ok_or_else(|| Error::format(gguf.file.path(), format!("no key {key:?}")))?;
        Ok(tiller_text::from(json(value).to_string().as_str()))
    })
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    if let Some(text) = value.as_str() {
        Json::from(text)
    } else if let Some(truth) = value.as_bool() {
        Json::from(truth)
    } else if let Some(array) = value.as_array() {
        (0..array.len()).map(|i| element(array, i)).collect()
    } else if let Some(n) = value.as_int() {
        i64::try_from(n).map(Json::from).or_else(|_| u64::try_from(n).map(Json::from)).unwrap_or(Json::Null)
    } else {
        value.as_f64().map_or(Json::Null, Json::from)
    }
}

fn element(array: &Array, i: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    fn number<T: crate::file::gguf::Element + Into<Json>>(array: &Array, i: usize) -> Json {
        array.number::<T>(i).map_or(Json::Null, Into::into)
    }
    match array.kind() {
        ValueType::U8 => number::<u8>(array, i),
        ValueType::I8 => number::<i8>(array, i),
        ValueType::U16 => number::<u16>(array, i),
        ValueType::I16 => number::<i16>(array, i),
        ValueType::U32 => number::<u32>(array, i),
        ValueType::I32 => number::<i32>(array, i),
        ValueType::U64 => number::<u64>(array, i),
        ValueType::I64 => number::<i64>(array, i),
        ValueType::F32 => number::<f32>(array, i),
        ValueType::F64 => number::<f64>(array, i),
        ValueType::Bool => array.raw().get(i).map_or(Json::Null, |&b| Json::from(b != 0)),
        ValueType::Str => array.bytes(i).map_or(Json::Null, |b| Json::from(String::from_utf8_lossy(b))),
        ValueType::Array => Json::Null,
    }
}

/// Number of tensors. 0 if `gguf` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_gguf_n_tensors(gguf: Option<&tiller_gguf>) -> usize {
    gguf.map_or(0, |g| g.names.len())
}

/// The `i`-th tensor, in the order of the file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_gguf_tensor(
    gguf: Option<&tiller_gguf>,
    i: usize,
    out: *mut tiller_tensor,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let gguf = some(gguf, "gguf")?;
        let (tensor, name) = tensor(gguf, i)?;
        let mut shape = [1; 4];
        for (to, &from) in shape.iter_mut().zip(&tensor.shape) {
            *to = from as u64;
        }
        let data = gguf.file.data(tensor);
        let value = tiller_tensor {
            size: 0,
            dtype: tensor.kind.id(),
            name: name.as_ptr(),
            shape,
            data: data.as_ptr().cast(),
            n_bytes: data.len() as u64,
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, value) }
    })
}

fn tensor(gguf: &tiller_gguf, i: usize) -> Result<(&crate::file::gguf::Tensor, &CString)> {
    let found = gguf.file.tensors().get(i).zip(gguf.names.get(i));
    found.ok_or_else(|| Error::argument(format!("tensor {i} of {}", gguf.names.len())))
}

/// Frees `gguf`. What was read from it by address is gone. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_gguf_free(gguf: Option<Box<tiller_gguf>>) {
    drop(gguf);
}
