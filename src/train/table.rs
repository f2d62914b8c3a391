//! Rows in files of others: a matrix in NumPy's `.npy` or `.npz`, in safetensors, or in a file of torch.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::{Dtype, Tensors, View};

/// A matrix of rows in somebody's file, mapped: a row is converted to `f32` when it is read.
///
/// The last dimension is the width; the others are laid out one after another, so `[documents, positions, d_model]` is
/// rows too.
#[derive(Debug)]
pub struct Table {
    file: Tensors,
    name: String,
    dtype: Dtype,
    n_rows: usize,
    d_model: usize,
}

impl Table {
    /// Opens `path` and takes the tensor `name`; without a name the only matrix of floating-point numbers in it.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) if the file is damaged, lacks the tensor, holds
    /// none or several matrices, or an empty one; [`Kind::Unsupported`](crate::Kind::Unsupported) for elements other than
    /// F32, F16, BF16 and F64.
    pub fn open(path: &Path, name: Option<&str>) -> Result<Self> {
        let file = Tensors::open(path)?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => only_matrix(&file)?,
        };
        let view = file.get(&name)?;
        let (dtype, shape) = (view.dtype(), view.shape());
        if !is_float(dtype) {
            return Err(Error::unsupported(format!(
                "{}: tensor \"{name}\": expected F32, F16, BF16 or F64, found {dtype:?}",
                path.display()
            )));
        }
        let d_model = if shape.len() > 1 { shape.last().copied().unwrap_or(0) } else { 0 };
        let elements = view.bytes().len() / (dtype.bitsize() / 8);
        if d_model == 0 || elements == 0 {
            let what = format_args!("tensor \"{name}\": expected rows [n, d_model], found shape {shape:?}");
            return Err(Error::format(path, what));
        }
        Ok(Self { n_rows: elements / d_model, d_model, dtype, name, file })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// Copies row `i` to `out` as f32.
    ///
    /// # Panics
    /// When there is no row `i`, or `out` is not `d_model` long.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n_rows && out.len() == self.d_model, "row {i} of {}, width {}", self.n_rows, self.d_model);
        let bytes = self.file.opt(&self.name).map_or(&[][..], |view: View<'_>| view.bytes());
        let size = self.dtype.bitsize() / 8 * self.d_model;
        let row = bytes.get(i * size..(i + 1) * size).unwrap_or_default();
        match self.dtype {
            Dtype::F32 => convert(row, out, f32::from_le_bytes),
            Dtype::F64 => convert(row, out, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => convert(row, out, |b| half::f16::from_le_bytes(b).to_f32()),
            _ => convert(row, out, |b| half::bf16::from_le_bytes(b).to_f32()),
        }
    }

    /// Its path and the tensor's name, for messages.
    pub(super) fn place(&self) -> String {
        format!("{}: tensor \"{}\"", PathBuf::from(self.path()).display(), self.name)
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

fn only_matrix(file: &Tensors) -> Result<String> {
    let matrix = |name: &&str| file.opt(name).is_some_and(|view| is_float(view.dtype()) && view.shape().len() > 1);
    let names: Vec<&str> = file.names().filter(matrix).collect();
    match names[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(Error::format(file.path(), "expected a matrix of floating-point rows [n, d_model], found none")),
        [..] => {
            let what = format_args!("expected one matrix of rows, found {}: name the tensor", names.join(", "));
            Err(Error::format(file.path(), what))
        }
    }
}

fn convert<const N: usize>(row: &[u8], out: &mut [f32], from: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(row.as_chunks::<N>().0) {
        *out = from(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{npy, safetensors};
    use crate::train::Rows;

    #[test]
    fn every_type_of_element_and_dimensions_in_front() {
        let dir = tempfile::tempdir().unwrap();
        let values = [1.5f32, -2.0, 0.25, 8.0, 3.0, -0.5];
        let bytes = |each: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|&v| each(v)).collect::<Vec<u8>>();
        let cases = [
            (Dtype::F32, bytes(&|v| v.to_le_bytes().to_vec())),
            (Dtype::F64, bytes(&|v| f64::from(v).to_le_bytes().to_vec())),
            (Dtype::F16, bytes(&|v| half::f16::from_f32(v).to_le_bytes().to_vec())),
            (Dtype::BF16, bytes(&|v| half::bf16::from_f32(v).to_le_bytes().to_vec())),
        ];
        for (dtype, bytes) in cases {
            let path = dir.path().join("rows.npy");
            npy::write(&path, dtype, &[1, 3, 2], bytes).unwrap();
            let table = Table::open(&path, None).unwrap();
            assert_eq!((table.n_rows(), table.d_model()), (3, 2));
            let rows = Rows::from_tables(&[&table, &table]).unwrap();
            assert_eq!((rows.len(), rows.d_model()), (6, 2));
            let mut row = [0f32; 2];
            rows.read(4, &mut row).unwrap();
            assert_eq!(row, [0.25, 8.0], "{dtype:?}");
        }
    }

    #[test]
    fn files_that_hold_no_rows_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let write = |tensors: &[(&str, Dtype, &[usize], &[u8])]| {
            let mut file = safetensors::Writer::new();
            for (name, dtype, shape, bytes) in tensors {
                file.tensor(name, *dtype, shape, bytes.to_vec());
            }
            file.write(&path).unwrap();
        };
        let opened = |name: Option<&str>| Table::open(&path, name).err().unwrap().message().to_owned();
        write(&[("a", Dtype::F32, &[1, 2], &[0; 8]), ("b", Dtype::F32, &[2, 1], &[0; 8])]);
        assert!(opened(None).contains("found a, b: name the tensor"), "{}", opened(None));
        assert!(opened(Some("c")).contains("\"c\""));
        Table::open(&path, Some("b")).unwrap();
        write(&[("a", Dtype::I32, &[1, 2], &[0; 8]), ("v", Dtype::F32, &[2], &[0; 8])]);
        assert!(opened(None).contains("found none"));
        assert!(opened(Some("a")).contains("found I32"));
        assert!(opened(Some("v")).contains("found shape [2]"));
        let nan = f32::NAN.to_le_bytes();
        write(&[("a", Dtype::F32, &[2, 1], &[[0; 4], nan].concat())]);
        let table = Table::open(&path, None).unwrap();
        let error = Rows::from_tables(&[&table]).unwrap().read(1, &mut [0.0]).unwrap_err();
        assert!(error.message().contains("t.safetensors: tensor \"a\": row 1, column 0: expected a finite"), "{error}");
        assert!(Rows::from_tables(&[]).is_err());
    }
}
