//! What C passes in, checked: pointers, arrays, texts, paths and option structs.

use std::ffi::{CStr, c_char};
use std::path::Path;

use crate::error::{Error, Result};

/// A nullable argument as one that is there.
pub(super) fn some<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| Error::argument(format!("{name} is NULL")))
}

fn check_array<T>(pointer: *const T, len: usize, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::argument(format!("{name} is NULL but holds {len} values")));
    }
    if !pointer.is_aligned() {
        return Err(Error::argument(format!("{name} is not aligned to {} bytes", align_of::<T>())));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::argument(format!("{name} holds {len} values, more than memory can")));
    }
    Ok(())
}

/// A C array as a slice. A zero length is valid with any pointer.
///
/// # Safety
/// If `len > 0` and `pointer` is not NULL, it points to `len` initialised values that outlive `'a` and are not written
/// while it lives.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array(pointer, len, name)?;
    // SAFETY: not NULL, aligned and in range by the check above; the rest is the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// As [`slice`], for output.
///
/// # Safety
/// As [`slice`], and no other pointer reads or writes the array while `'a` lives.
pub(super) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: usize, name: &str) -> Result<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_array(pointer, len, name)?;
    // SAFETY: not NULL, aligned and in range by the check above; the rest is the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// A C string as UTF-8 text.
///
/// # Safety
/// If `pointer` is not NULL, it points to a NUL-terminated string that outlives `'a` and is not written meanwhile.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(Error::argument(format!("{name} is NULL")));
    }
    // SAFETY: not NULL by the check above; the rest is the caller's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|e| Error::argument(format!("{name} is not UTF-8 at byte {}", e.valid_up_to())))
}

/// As [`text`], with NULL for "not given".
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn opt_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: the caller's contract is the one of `text`.
    if pointer.is_null() { Ok(None) } else { unsafe { text(pointer, name) }.map(Some) }
}

/// An array of paths.
///
/// # Safety
/// If `n > 0`, `pointers` is NULL or points to `n` pointers, each NULL or a C string.
pub(super) unsafe fn paths(pointers: *const *const c_char, n: usize, name: &str) -> Result<Vec<std::path::PathBuf>> {
    // SAFETY: the caller promises `n` pointers.
    let pointers = unsafe { slice(pointers, n, name) }?.iter();
    // SAFETY: the caller promises C strings.
    pointers.map(|&file| unsafe { path(file, name) }.map(Path::to_owned)).collect()
}

/// A C string as a path: any bytes on Unix, UTF-8 elsewhere.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn path<'a>(pointer: *const c_char, name: &str) -> Result<&'a Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        if pointer.is_null() {
            return Err(Error::argument(format!("{name} is NULL")));
        }
        // SAFETY: not NULL by the check above; the rest is the caller's contract.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the caller's contract is the one of `text`.
        unsafe { text(pointer, name) }.map(Path::new)
    }
}

/// An array of C strings.
///
/// # Safety
/// As [`slice`] for the array and as [`text`] for every string in it.
pub(super) unsafe fn texts<'a>(pointer: *const *const c_char, len: usize, name: &str) -> Result<Vec<&'a str>> {
    // SAFETY: the caller's contract is the one of `slice`.
    let pointers = unsafe { slice(pointer, len, name) }?;
    let each = pointers.iter().enumerate();
    // SAFETY: the caller's contract is the one of `text`, for each.
    each.map(|(i, &p)| unsafe { text(p, &format!("{name}[{i}]")) }).collect()
}

/// An option struct of the header: starts with `uint32_t size`, only ever grows, and zero means "the default".
///
/// # Safety
/// The type is `repr(C)`, starts with a `u32`, and is valid when all its bytes are zero; every field takes any value
/// that C can store in it.
pub(super) unsafe trait Options: Copy {
    /// Its name in the header.
    const NAME: &'static str;
}

/// The options of a caller that was compiled against this header, an older one (shorter struct: the rest is zero) or
/// a newer one (longer struct: what this build doesn't know must be zero). NULL means that everything is default.
///
/// # Safety
/// If `pointer` is not NULL, it points to as many readable bytes as its first field, `size`, says.
pub(super) unsafe fn options<T: Options>(pointer: *const T) -> Result<T> {
    // SAFETY: all-zero is a valid value of an `Options` type.
    let mut options = unsafe { std::mem::zeroed::<T>() };
    if pointer.is_null() {
        return Ok(options);
    }
    if !pointer.is_aligned() {
        return Err(Error::argument(format!("{} is not aligned to {} bytes", T::NAME, align_of::<T>())));
    }
    // SAFETY: an `Options` type starts with a `u32`; aligned and not NULL by the checks above.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if size < size_of::<u32>() {
        return Err(Error::argument(format!("{0}.size is {size}; set it to sizeof({0})", T::NAME)));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller promises `size` readable bytes; `known` fits both; any bytes are valid in an `Options` type.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut options).cast::<u8>(), known) };
    // SAFETY: the caller promises `size` readable bytes, of which the first `known` are left out.
    let tail = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if tail.iter().any(|&b| b != 0) {
        return Err(Error::unsupported(format!(
            "{} has {size} bytes and uses a field that this version, which knows {}, does not have",
            T::NAME,
            size_of::<T>()
        )));
    }
    Ok(options)
}

/// A result struct of the header, which the caller owns: starts with `uint32_t size`, and only ever grows.
///
/// # Safety
/// The type is `repr(C)` and starts with a `u32`, which is its size.
pub(super) unsafe trait Report: Copy {
    /// Its name in the header.
    const NAME: &'static str;
}

/// Writes as much of `value` as the caller's struct, which may be of an older header, has room for.
///
/// # Safety
/// If `out` is not NULL, it points to as many writable bytes as its first field, `size`, says.
pub(super) unsafe fn report<T: Report>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        return Err(Error::argument(format!("{} is NULL", T::NAME)));
    }
    if !out.is_aligned() {
        return Err(Error::argument(format!("{} is not aligned to {} bytes", T::NAME, align_of::<T>())));
    }
    // SAFETY: a `Report` type starts with a `u32`; aligned and not NULL by the checks above.
    let size = unsafe { out.cast::<u32>().read() } as usize;
    if size < size_of::<u32>() {
        return Err(Error::argument(format!("{0}.size is {size}; set it to sizeof({0})", T::NAME)));
    }
    let known = size.min(size_of::<T>());
    let (from, to) = ((&raw const value).cast::<u8>(), out.cast::<u8>());
    let head = size_of::<u32>();
    // SAFETY: the caller promises `size` writable bytes; `known` fits both, and is not less than the size field.
    unsafe { std::ptr::copy_nonoverlapping(from.add(head), to.add(head), known - head) };
    Ok(())
}

/// A finite number, for fields where C could store anything.
pub(super) fn finite(value: f32, name: &str) -> Result<f32> {
    if value.is_finite() { Ok(value) } else { Err(Error::argument(format!("{name} is {value}; it must be finite"))) }
}

/// A choice that C passes as a number, because an enum with an unknown value would be undefined behaviour in Rust.
pub(super) fn choice<T: Copy>(value: u32, choices: &[T], name: &str) -> Result<T> {
    let found = usize::try_from(value).ok().and_then(|i| choices.get(i));
    found.copied().ok_or_else(|| Error::argument(format!("{name} is {value}; known are 0 to {}", choices.len() - 1)))
}

/// Checks that an output array holds exactly what the call writes.
pub(super) fn expect_len(found: usize, expected: usize, name: &str) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::argument(format!("{name} holds {found} values; expected {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Old {
        size: u32,
        a: u32,
    }
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct New {
        size: u32,
        a: u32,
        b: f32,
        c: u32,
    }
    // SAFETY: `repr(C)`, a `u32` first, numbers only.
    unsafe impl Options for Old {
        const NAME: &'static str = "old";
    }
    // SAFETY: `repr(C)`, a `u32` first, numbers only.
    unsafe impl Options for New {
        const NAME: &'static str = "new";
    }

    #[test]
    fn option_structs_grow() {
        let old = Old { size: size_of::<Old>() as u32, a: 7 };
        // SAFETY: `old` has as many bytes as its `size` says.
        let new = unsafe { options((&raw const old).cast::<New>()) }.unwrap();
        assert_eq!((new.a, new.b, new.c), (7, 0.0, 0));
        let new = New { size: size_of::<New>() as u32, a: 7, b: 0.0, c: 0 };
        // SAFETY: `new` has as many bytes as its `size` says.
        assert_eq!(unsafe { options((&raw const new).cast::<Old>()) }.unwrap().a, 7);
        let new = New { c: 1, ..new };
        // SAFETY: `new` has as many bytes as its `size` says.
        let error = unsafe { options((&raw const new).cast::<Old>()) }.err().expect("an unknown field");
        assert_eq!(error.kind(), Kind::Unsupported);
        // SAFETY: a size below four is refused before anything else is read.
        let error = unsafe { options(&Old { size: 3, a: 7 }) }.err().expect("no size");
        assert_eq!((error.kind(), error.message()), (Kind::Argument, "old.size is 3; set it to sizeof(old)"));
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { options::<Old>(std::ptr::null()) }.unwrap().size, 0);
    }

    #[test]
    fn arrays_are_checked() {
        let values = [1.0f32, 2.0];
        let bytes = values.as_ptr().cast::<u8>();
        // SAFETY: NULL, misaligned and too long pointers are refused before they are read.
        unsafe {
            assert!(slice::<f32>(std::ptr::null(), 0, "x").unwrap().is_empty());
            let null = slice::<f32>(std::ptr::null(), 2, "x").unwrap_err();
            assert_eq!(null.message(), "x is NULL but holds 2 values");
            let odd = slice(bytes.add(1).cast::<f32>(), 1, "x").unwrap_err();
            assert_eq!(odd.message(), "x is not aligned to 4 bytes");
            assert!(slice(values.as_ptr(), usize::MAX, "x").unwrap_err().message().contains("more than memory can"));
        }
        // SAFETY: the pointer and the length are those of `values`.
        assert_eq!(unsafe { slice(values.as_ptr(), 2, "x") }.unwrap(), values);
    }

    #[test]
    fn texts_name_the_bad_one() {
        let words = [c"good".as_ptr(), c"b\xff".as_ptr(), std::ptr::null()];
        // SAFETY: an array of C strings and a NULL.
        unsafe {
            assert_eq!(texts(words.as_ptr(), 1, "words").unwrap(), ["good"]);
            assert_eq!(texts(words.as_ptr(), 2, "words").unwrap_err().message(), "words[1] is not UTF-8 at byte 1");
            let null = texts(words.as_ptr().add(2), 1, "words").unwrap_err();
            assert_eq!(null.message(), "words[0] is NULL");
        }
    }
}
