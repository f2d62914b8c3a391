//! NumPy's files: `.npy`, one array, and `.npz`, a zip archive of them.
//!
//! An array is: six bytes of magic, a version, the length of the header, the header (a Python dictionary with the type,
//! the order of dimensions and the shape), the elements. Elements in C order and little-endian are used where they lie;
//! Fortran order and big-endian ones are put in order when they are first asked for; deflated ones are inflated when the
//! file is opened.
//!
//! NumPy has no bf16. The package `ml_dtypes` brings one, which is saved as two bytes without a type, `V2`: that is how it
//! is read and written here.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use super::allowance::Allowance;
use super::sink;
use super::source::{Data, Source};
use super::tensors::Contents;
use super::view::{Dtype, Tensor, width};
use super::zip::Zip;
use super::{Sink, write_atomic};
use crate::error::{Error, Kind, Result};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Magic, version, and two bytes of length, as version 1 has it.
const PREFIX_BYTES: usize = 10;
/// NumPy aligns the elements to this.
const ALIGNMENT: usize = 64;
/// NumPy itself refuses headers past 10,000 bytes; those of plain arrays are short.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// NumPy's own limit.
const MAX_DIMS: usize = 64;
/// The ending that `numpy.savez` adds to a name.
const ENDING: &str = ".npy";

/// Whether a file that starts with these bytes is an array.
pub(super) fn recognize(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Whether an archive is one of arrays.
pub(super) fn recognize_zip(zip: &Zip) -> bool {
    zip.entries().iter().any(|entry| entry.name.ends_with(ENDING))
}

/// The arrays of an archive, by their names without the ending. Entries of other kinds are left alone; arrays of strings,
/// objects and the like are put aside, so that they don't keep anybody from the numbers beside them.
pub(super) fn read_zip(zip: &Zip, allowance: &mut Allowance) -> Result<Contents> {
    let mut contents = Contents::default();
    for entry in zip.entries() {
        let Some(name) = entry.name.strip_suffix(ENDING) else { continue };
        let source = zip.read(entry, allowance)?;
        match read(&source, zip.path(), &format!("array \"{name}\""), allowance) {
            Ok(array) => contents.tensors.insert(name.to_owned(), array).is_some(),
            Err(e) if e.kind() == Kind::Unsupported => contents.aside.insert(name.to_owned(), e).is_some(),
            Err(e) => return Err(e),
        };
    }
    Ok(contents)
}

/// The array that all of `source` is; `place` is what errors call it.
pub(super) fn read(source: &Source, path: &Path, place: &str, allowance: &mut Allowance) -> Result<Tensor> {
    let bytes = source.bytes();
    let (header, start) = header(bytes).map_err(|what| Error::format(path, format_args!("{place}: {what}")))?;
    let parsed = Header::parse(header).map_err(|what| match what {
        Wrong::Format(what) => Error::format(path, format_args!("{place}: header: {what}")),
        Wrong::Unsupported(what) => Error::unsupported(format!("{}: {place}: {what}", path.display())),
    })?;
    let Header { dtype, swapped, fortran, shape } = parsed;
    let width = width(dtype);
    let expected = shape.iter().try_fold(width, |n, &d| n.checked_mul(d));
    let found = bytes.len().saturating_sub(start);
    let elements = source.slice(start..bytes.len()).filter(|_| expected == Some(found));
    let mut stride = 1usize;
    let mut next = |&d: &usize| {
        let this = stride;
        stride = stride.saturating_mul(d);
        this
    };
    let strides: Vec<usize> = if fortran {
        shape.iter().map(&mut next).collect()
    } else {
        let reversed: Vec<_> = shape.iter().rev().map(&mut next).collect();
        reversed.into_iter().rev().collect()
    };
    let data = elements.and_then(|all| Data::strided(&all, &shape, &strides, width, swapped)).ok_or_else(|| {
        let expected = expected.map_or_else(|| "more than 2^64".to_owned(), |n| n.to_string());
        let what = format_args!("{place}: expected {expected} bytes of {dtype:?} for shape {shape:?}, found {found}");
        Error::format(path, what)
    })?;
    allowance.take(data.memory(), path, place)?;
    Ok(Tensor { dtype, shape, data })
}

/// The header's text, and where the elements start.
fn header(bytes: &[u8]) -> std::result::Result<(&str, usize), String> {
    let Some(([major, _minor], rest)) = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<2>()) else {
        return Err("expected NumPy's magic and version, found something else".to_owned());
    };
    let split = match major {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest
            .split_first_chunk::<4>()
            .map(|(n, rest)| (usize::try_from(u32::from_le_bytes(*n)).unwrap_or(usize::MAX), rest)),
        other => return Err(format!("expected version 1, 2 or 3 of NumPy's format, found {other}")),
    };
    let Some((n, rest)) = split else { return Err("expected the length of the header, found the end".to_owned()) };
    if n > MAX_HEADER_BYTES {
        return Err(format!("expected a header of at most {MAX_HEADER_BYTES} bytes, found {n}"));
    }
    let text = rest.get(..n).ok_or_else(|| format!("expected {n} bytes of header, found {}", rest.len()))?;
    let text = std::str::from_utf8(text).map_err(|e| format!("header: expected text, found {e}"))?;
    Ok((text, bytes.len().saturating_sub(rest.len()).saturating_add(n)))
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: Dtype,
    swapped: bool,
    fortran: bool,
    shape: Vec<usize>,
}

#[derive(Debug, PartialEq)]
enum Wrong {
    Format(String),
    Unsupported(String),
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, in any order.
    fn parse(text: &str) -> std::result::Result<Self, Wrong> {
        let expected = |what: &str, at: &Literal<'_>| {
            let found: String = at.0.chars().take(24).collect();
            Wrong::Format(format!("expected {what}, found \"{}\"", found.escape_debug()))
        };
        let mut l = Literal(text);
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        l.symbol("{").ok_or_else(|| expected("a dictionary", &l))?;
        while l.symbol("}").is_none() {
            let key = l.string().ok_or_else(|| expected("a key", &l))?;
            l.symbol(":").ok_or_else(|| expected("a colon", &l))?;
            let first = match key {
                "descr" if l.0.trim_start().starts_with(['[', '(']) => {
                    return Err(Wrong::Unsupported("expected plain numbers, found records with fields".to_owned()));
                }
                "descr" => descr.replace(l.string().ok_or_else(|| expected("a type", &l))?).is_none(),
                "fortran_order" => fortran.replace(l.boolean().ok_or_else(|| expected("a bool", &l))?).is_none(),
                "shape" => shape.replace(l.sizes().ok_or_else(|| expected("a tuple of sizes", &l))?).is_none(),
                _ => return Err(Wrong::Format(format!("expected no key \"{}\", found it", key.escape_debug()))),
            };
            if !first {
                return Err(Wrong::Format(format!("expected the key \"{key}\" once, found it twice")));
            }
            if l.symbol(",").is_none() && !l.0.trim_start().starts_with('}') {
                return Err(expected("a comma", &l));
            }
        }
        if !l.0.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '\0').is_empty() {
            return Err(expected("nothing behind the dictionary", &l));
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(Wrong::Format("expected the keys descr, fortran_order and shape, found fewer".to_owned()));
        };
        let (dtype, swapped) = dtype(descr).ok_or_else(|| {
            let known = "floats, integers or bools of up to 8 bytes";
            Wrong::Unsupported(format!("expected {known}, found type \"{}\"", descr.escape_debug()))
        })?;
        Ok(Self { dtype, swapped, fortran, shape })
    }
}

/// The type that NumPy calls `descr`, and whether its elements are big-endian.
fn dtype(descr: &str) -> Option<(Dtype, bool)> {
    let (order, name) = descr.split_at_checked(1)?;
    let dtype = match name {
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "V2" => Dtype::BF16,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "b1" => Dtype::BOOL,
        _ => return None,
    };
    match order {
        "<" | "|" | "=" => Some((dtype, false)),
        ">" => Some((dtype, true)),
        _ => None,
    }
}

/// What is left of a text in Python's notation.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn symbol(&mut self, symbol: &str) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(symbol)?;
        Some(())
    }

    /// Between single or double quotes; the strings that occur have no escapes.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (string, rest) = text.get(1..)?.split_once(quote)?;
        self.0 = rest;
        (!string.contains('\\')).then_some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.symbol("True") {
            Some(()) => Some(true),
            None => self.symbol("False").map(|()| false),
        }
    }

    /// `()`, `(3,)`, `(3, 4)`; Python 2 wrote `(3L,)`.
    fn sizes(&mut self) -> Option<Vec<usize>> {
        self.symbol("(")?;
        let mut sizes = Vec::new();
        while self.symbol(")").is_none() {
            let text = self.0.trim_ascii_start();
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let (number, rest) = text.split_at_checked(digits)?;
            sizes.push(number.parse().ok()?);
            self.0 = rest.strip_prefix('L').unwrap_or(rest);
            if self.symbol(",").is_none() && !self.0.trim_ascii_start().starts_with(')') || sizes.len() > MAX_DIMS {
                return None;
            }
        }
        Some(sizes)
    }
}

/// Writes an array of `shape` (the last dimension is contiguous), whose bytes are at hand, to a `.npy` file: beside `path`
/// first, then renamed over it.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if the data is not what the shape takes,
/// [`Kind::Unsupported`](crate::Kind::Unsupported) for types that NumPy lacks, [`Kind::Io`](crate::Kind::Io).
pub fn write<'a>(path: &Path, dtype: Dtype, shape: &[usize], data: impl Into<Cow<'a, [u8]>>) -> Result<()> {
    write_data(path, dtype, shape, sink::Data::Bytes(data.into()))
}

/// As [`write()`], of bytes that `make` puts into the file, in as many pieces as it likes.
///
/// # Errors
/// As [`write()`], and what `make` returns.
pub fn write_with<'a>(
    path: &Path,
    dtype: Dtype,
    shape: &[usize],
    make: impl FnOnce(&mut Sink<'_>) -> Result<()> + 'a,
) -> Result<()> {
    write_data(path, dtype, shape, sink::Data::Made(Box::new(make)))
}

fn write_data(path: &Path, dtype: Dtype, shape: &[usize], data: sink::Data<'_>) -> Result<()> {
    let descr = match dtype {
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::BF16 => "|V2",
        Dtype::I8 => "|i1",
        Dtype::I16 => "<i2",
        Dtype::I32 => "<i4",
        Dtype::I64 => "<i8",
        Dtype::U8 => "|u1",
        Dtype::U16 => "<u2",
        Dtype::U32 => "<u4",
        Dtype::U64 => "<u8",
        Dtype::BOOL => "|b1",
        other => {
            let path = path.display();
            return Err(Error::unsupported(format!("{path}: expected a type that NumPy has, found {other:?}")));
        }
    };
    let total = shape.iter().try_fold(width(dtype), |n, &d| n.checked_mul(d)).filter(|_| shape.len() <= MAX_DIMS);
    let total = total.ok_or_else(|| {
        let path = path.display();
        let what = format!("expected at most {MAX_DIMS} dimensions and 2^64 bytes, found shape {shape:?}");
        Error::argument(format!("{path}: {what}"))
    })?;
    let sizes = match shape {
        [one] => format!("{one},"),
        sizes => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}").into_bytes();
    // The line feed ends the header, and spaces in front of it align the elements.
    let padded = (PREFIX_BYTES + header.len() + 1).next_multiple_of(ALIGNMENT) - PREFIX_BYTES;
    header.resize(padded - 1, b' ');
    header.push(b'\n');
    let length =
        u16::try_from(header.len()).map_err(|e| Error::argument(format!("{}: header: {e}", path.display())))?;
    write_atomic(path, |out| {
        let prefix = [MAGIC, &[1, 0], &length.to_le_bytes(), &header].concat();
        out.write_all(&prefix).map_err(|e| Error::io("write", path, e))?;
        data.write(out, path, "array", total)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Tensors;

    fn header(text: &str) -> std::result::Result<Header, Wrong> {
        Header::parse(text)
    }

    #[test]
    fn headers_in_every_spelling() {
        let read = |dtype, swapped, fortran, shape: &[usize]| Header { dtype, swapped, fortran, shape: shape.to_vec() };
        for (text, expected) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n",
                read(Dtype::F32, false, false, &[3, 4]),
            ),
            ("{\"shape\":(),\"descr\":\">i8\",\"fortran_order\":True}", read(Dtype::I64, true, true, &[])),
            ("{'descr': '|b1', 'fortran_order': False, 'shape': (3L,), }", read(Dtype::BOOL, false, false, &[3])),
            ("{'descr': '<V2', 'fortran_order': False, 'shape': (0, 7)}\0\0", read(Dtype::BF16, false, false, &[0, 7])),
        ] {
            assert_eq!(header(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn headers_that_are_wrong() {
        let formats = [
            "",
            "[]",
            "{",
            "{'descr'",
            "{'descr' '<f4'}",
            "{'descr': '<f4'}",
            "{'descr': 4, 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': () 'x': 1}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}",
            "{'descr': '<f4\\'', 'fortran_order': False, 'shape': ()}",
        ];
        for text in formats {
            assert!(matches!(header(text), Err(Wrong::Format(_))), "{text}: {:?}", header(text));
        }
        let many = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({})}}", "1,".repeat(65));
        assert!(matches!(header(&many), Err(Wrong::Format(_))));
        for descr in ["'|O'", "'<c8'", "'<U4'", "'|S3'", "'<M8[ns]'", "'<f16'", "'|V1'", "''", "'é4'", "[('a', '<f4')]"]
        {
            let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ()}}");
            assert!(matches!(header(&text), Err(Wrong::Unsupported(_))), "{text}: {:?}", header(&text));
        }
    }

    #[test]
    fn what_is_written_comes_back_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let values: Vec<f32> = (0..6).map(|v| v as f32).collect();
        write(&path, Dtype::F32, &[2, 3], bytemuck::cast_slice(&values)).unwrap();
        let file = Tensors::open(&path).unwrap();
        let view = file.get(crate::file::UNNAMED).unwrap().expect_shape(&[2, 3]).unwrap();
        assert_eq!(*view.to_f32().unwrap(), values);
        assert_eq!(view.mapped().unwrap().1.start % ALIGNMENT, 0);
        write_with(&path, Dtype::I16, &[], |out| out.put(&[7, 0])).unwrap();
        let file = Tensors::open(&path).unwrap();
        assert_eq!(file.get(crate::file::UNNAMED).unwrap().to_i64().unwrap(), [7]);
        for dtype in [Dtype::F16, Dtype::F64, Dtype::BF16, Dtype::I8, Dtype::U8, Dtype::U16, Dtype::U32, Dtype::BOOL] {
            write(&path, dtype, &[5, 1], vec![1; 5 * width(dtype)]).unwrap();
            let file = Tensors::open(&path).unwrap();
            assert_eq!(file.get(crate::file::UNNAMED).unwrap().dtype(), dtype);
        }
    }

    #[test]
    fn what_no_array_can_be_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let kind = |dtype, shape: &[usize], n| write(&path, dtype, shape, vec![0; n]).unwrap_err().kind();
        assert_eq!(kind(Dtype::F8_E4M3, &[1], 1), Kind::Unsupported);
        assert_eq!(kind(Dtype::F32, &[2], 7), Kind::Argument);
        assert_eq!(kind(Dtype::F32, &[usize::MAX, 2], 7), Kind::Argument);
        assert_eq!(kind(Dtype::U8, &[1; 65], 1), Kind::Argument);
        assert!(!path.exists());
    }
}
