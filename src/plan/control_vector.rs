//! llama.cpp's control vectors: one constant direction a layer, added inside the graph, so at no cost; and their file.
//!
//! The container is a GGUF with `general.architecture = "controlvector"` and F32 tensors `direction.N` of shape `[d_model]`,
//! N ≥ 1; llama.cpp adds `direction.N` to the residual stream after block N, in front of the node `l_out-N`. Layer 0 has none.
//!
//! Two traps. llama.cpp's own generator is off by one: it captures `l_out-0`, `l_out-1`, … and writes them as `direction.1`,
//! `direction.2`, …, so what it calls N was measured at `l_out-(N−1)` and acts one layer later (`"shift": -1` in a plan puts
//! it back). And other programs put other operators into the same container: a file that names one that is not "add"
//! (`glp.mode`, `tiller.op`) is refused.

use crate::error::{Error, Kind, Result};
use crate::file::gguf::{GgmlType, Gguf, Tensor, Writer};
use crate::num::{axpy, is_bearable, norm};
use std::collections::BTreeMap;
use std::path::Path;

const ARCHITECTURE: &str = "controlvector";
/// Keys by which files say what their directions are for.
const OPERATOR_KEYS: [&str; 2] = ["tiller.op", "glp.mode"];

/// One constant direction a layer, for layers 1 and up.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlVector {
    d_model: usize,
    directions: BTreeMap<usize, Vec<f32>>,
}

impl ControlVector {
    /// No directions.
    pub fn new(d_model: usize) -> Self {
        Self { d_model, directions: BTreeMap::new() }
    }

    /// Width of a direction.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// The directions `[d_model]` by the layer whose `l_out` they change.
    pub fn directions(&self) -> &BTreeMap<usize, Vec<f32>> {
        &self.directions
    }

    /// Adds to the direction of a layer.
    ///
    /// # Errors
    /// [`Kind::Argument`] for layer 0, another width, or numbers that are not finite; [`Kind::Numeric`] for a sum that is too
    /// long for a model's norm, which squares it.
    pub fn add(&mut self, layer: usize, direction: &[f32]) -> Result<()> {
        if layer == 0 {
            return Err(Error::argument("layer: a control vector acts on layers from 1, found 0"));
        }
        if direction.len() != self.d_model {
            let (expected, found) = (self.d_model, direction.len());
            return Err(Error::argument(format!(
                "direction of layer {layer}: expected {expected} numbers, found {found}"
            )));
        }
        if let Some(i) = direction.iter().position(|v| !v.is_finite()) {
            return Err(Error::argument(format!("direction of layer {layer}: number {i} is {}", direction[i])));
        }
        let sum = self.directions.entry(layer).or_insert_with(|| vec![0.0; direction.len()]);
        axpy(1.0, direction, sum);
        match norm(sum) {
            length if is_bearable(length) => Ok(()),
            length => {
                let what = format!("direction of layer {layer}: a length of {length:e}, which a model cannot square");
                Err(Error::numeric(what).hinted("give a smaller strength"))
            }
        }
    }

    /// First and last layer with a direction: `il_start` and `il_end` of `llama_set_adapter_cvec`.
    pub fn layers(&self) -> Option<(usize, usize)> {
        Some((*self.directions.first_key_value()?.0, *self.directions.last_key_value()?.0))
    }

    /// What `llama_set_adapter_cvec` takes, `[n_layer − 1, d_model]`: layer 1 first, zeros where there is no direction. (It
    /// has to be complete: a shorter buffer would leave an older vector's rows in place.)
    ///
    /// # Errors
    /// [`Kind::Mismatch`] if a direction is for a layer that the model does not have.
    pub fn data(&self, n_layer: usize) -> Result<Vec<f32>> {
        if let Some((_, last)) = self.layers()
            && last >= n_layer
        {
            return Err(Error::mismatch(format!(
                "control vector: the model has layers 0 to {}, found one for layer {last}",
                n_layer.saturating_sub(1)
            )));
        }
        let mut data = vec![0.0; n_layer.saturating_sub(1) * self.d_model];
        for (layer, direction) in &self.directions {
            data[(layer - 1) * self.d_model..][..self.d_model].copy_from_slice(direction);
        }
        Ok(data)
    }

    /// Reads a control vector file.
    ///
    /// # Errors
    /// [`Kind::Io`]; [`Kind::Format`] for a GGUF that is no control vector, or with directions of other names, types or shapes
    /// than llama.cpp accepts; [`Kind::Unsupported`] for an operator other than "add".
    pub fn open(path: &Path) -> Result<Self> {
        let file = Gguf::open(path)?;
        let architecture = file.str("general.architecture")?;
        if architecture != ARCHITECTURE {
            let what = format!("general.architecture: expected \"{ARCHITECTURE}\", found \"{architecture}\"");
            return Err(Error::format(path, what));
        }
        for key in OPERATOR_KEYS {
            if let Some(op) = file.opt_str(key)?
                && op != "add"
            {
                let text = format!("{}: {key}: only \"add\" is supported, found \"{op}\"", path.display());
                return Err(Error::new(Kind::Unsupported, text));
            }
        }
        let width = match file.tensors() {
            [] => return Err(Error::format(path, "expected tensors `direction.N`, found none")),
            [first, ..] => first.row_len(),
        };
        let mut vector = Self::new(width);
        for tensor in file.tensors() {
            let layer = layer_of(tensor, width).map_err(|what| Error::format(path, what))?;
            let (numbers, _) = file.data(tensor).as_chunks::<4>();
            let direction: Vec<f32> = numbers.iter().map(|&b| f32::from_le_bytes(b)).collect();
            vector.add(layer, &direction).map_err(|e| Error::format(path, e))?;
        }
        Ok(vector)
    }

    /// Writes a file that llama.cpp's programs take with `--control-vector`; `model_hint` is the model's architecture.
    ///
    /// # Errors
    /// [`Kind::Argument`] if there is no direction; [`Kind::Io`].
    pub fn save(&self, path: &Path, model_hint: &str) -> Result<()> {
        if self.directions.is_empty() {
            return Err(Error::argument(format!(
                "{}: a control vector file needs a direction, found none",
                path.display()
            )));
        }
        let mut file = Writer::new();
        file.set("general.architecture", ARCHITECTURE);
        file.set("controlvector.model_hint", model_hint);
        file.set("controlvector.layer_count", i32::try_from(self.directions.len()).unwrap_or(i32::MAX));
        file.set("tiller.op", "add");
        for (layer, direction) in &self.directions {
            let bytes = bytemuck::cast_slice(direction.as_slice());
            file.tensor(&format!("direction.{layer}"), &[self.d_model], GgmlType::F32, bytes);
        }
        file.write(path)
    }
}

/// The layer that a tensor is for, if it is a direction as llama.cpp wants it.
fn layer_of(tensor: &Tensor, width: usize) -> std::result::Result<usize, String> {
    let name = &tensor.name;
    let layer = name.strip_prefix("direction.").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let layer = layer.and_then(|n| n.parse::<u32>().ok()).filter(|&n| n > 0);
    let layer = layer.ok_or_else(|| format!("tensor \"{name}\": expected `direction.N` with a layer N from 1"))?;
    if tensor.kind != GgmlType::F32 {
        return Err(format!("tensor \"{name}\": expected type f32, found {}", tensor.kind.name()));
    }
    if tensor.row_len() == 0 || tensor.n_rows() != 1 || tensor.shape.is_empty() {
        return Err(format!("tensor \"{name}\": expected one dimension, found shape {:?}", tensor.shape));
    }
    if tensor.row_len() != width {
        return Err(format!("tensor \"{name}\": expected {width} numbers as in the first, found {}", tensor.row_len()));
    }
    usize::try_from(layer).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_complete_and_starts_at_layer_one() {
        let mut vector = ControlVector::new(2);
        vector.add(2, &[1.0, 2.0]).unwrap();
        vector.add(2, &[0.5, 0.0]).unwrap();
        vector.add(1, &[9.0, 9.0]).unwrap();
        assert_eq!(vector.data(4).unwrap(), [9.0, 9.0, 1.5, 2.0, 0.0, 0.0]);
        assert_eq!(vector.layers(), Some((1, 2)));
        assert_eq!(vector.data(2).unwrap_err().kind(), Kind::Mismatch);
        assert_eq!(vector.add(0, &[1.0, 2.0]).unwrap_err().kind(), Kind::Argument);
        assert_eq!(vector.add(1, &[1.0]).unwrap_err().kind(), Kind::Argument);
        assert_eq!(vector.add(1, &[1.0, f32::NAN]).unwrap_err().kind(), Kind::Argument);
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        let mut vector = ControlVector::new(5);
        vector.add(3, &[1.0, -2.0, 0.25, 0.0, 7.5]).unwrap();
        vector.add(11, &[0.5; 5]).unwrap();
        vector.save(&path, "llama").unwrap();
        assert_eq!(ControlVector::open(&path).unwrap(), vector);
        let file = Gguf::open(&path).unwrap();
        assert_eq!(file.str("general.architecture").unwrap(), "controlvector");
        assert_eq!(file.str("controlvector.model_hint").unwrap(), "llama");
        assert_eq!(file.u32("controlvector.layer_count").unwrap(), 2);
        assert_eq!(file.tensor("direction.11").unwrap().shape, [5]);
        assert_eq!(ControlVector::new(5).save(&path, "llama").unwrap_err().kind(), Kind::Argument);
    }

    /// Writes a file of one tensor and returns the error of reading it.
    fn refused(
        architecture: &str,
        name: &str,
        kind: GgmlType,
        shape: &[usize],
        bytes: &[u8],
        op: Option<&str>,
    ) -> Error {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        let mut file = Writer::new();
        file.set("general.architecture", architecture);
        if let Some(op) = op {
            file.set("glp.mode", op);
        }
        if !name.is_empty() {
            file.tensor(name, shape, kind, bytes);
        }
        file.write(&path).unwrap();
        let error = ControlVector::open(&path).unwrap_err();
        assert!(error.message().contains("v.gguf: "), "{error}");
        error
    }

    #[test]
    fn what_llama_cpp_refuses_is_refused() {
        let zeros = [0u8; 16];
        let cases = [
            (refused("llama", "direction.1", GgmlType::F32, &[4], &zeros, None), "found \"llama\""),
            (refused(ARCHITECTURE, "", GgmlType::F32, &[4], &zeros, None), "found none"),
            (refused(ARCHITECTURE, "direction.0", GgmlType::F32, &[4], &zeros, None), "from 1"),
            (refused(ARCHITECTURE, "direction.x", GgmlType::F32, &[4], &zeros, None), "direction.x"),
            (refused(ARCHITECTURE, "direction.+1", GgmlType::F32, &[4], &zeros, None), "direction.+1"),
            (refused(ARCHITECTURE, "direction.99999999999", GgmlType::F32, &[4], &zeros, None), "from 1"),
            (refused(ARCHITECTURE, "steer.1", GgmlType::F32, &[4], &zeros, None), "steer.1"),
            (refused(ARCHITECTURE, "direction.1", GgmlType::F16, &[8], &zeros, None), "found f16"),
            (refused(ARCHITECTURE, "direction.1", GgmlType::F32, &[2, 2], &zeros, None), "[2, 2]"),
            (refused(ARCHITECTURE, "direction.1", GgmlType::F32, &[1], &f32::NAN.to_le_bytes(), None), "NaN"),
        ];
        for (error, text) in &cases {
            assert_eq!(error.kind(), Kind::Format, "{error}");
            assert!(error.message().to_lowercase().contains(&text.to_lowercase()), "{error}: {text}");
        }
        let other = refused(ARCHITECTURE, "direction.1", GgmlType::F32, &[4], &zeros, Some("project"));
        assert_eq!(other.kind(), Kind::Unsupported);
        assert!(other.message().contains("found \"project\""), "{other}");
    }
}
