//! A run on disk: everything that [`State`] holds, in one safetensors file.
//!
//! The file appears by a rename, so a run that is killed at any moment leaves the last whole checkpoint. The order of the
//! rows is drawn from the seed again, and nothing else lives outside the state: a resumed run ends bit for bit where an
//! uninterrupted one does. NumPy and PyTorch read the file too.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::options::Options;
use super::sparsity::Pressure;
use super::weights::{Moments, Parameter, State};
use crate::error::{Error, Result};
use crate::file::write_atomic;

/// What tells a checkpoint from other safetensors files.
const FORMAT: &str = "tiller train checkpoint 2";

fn parameters<'a>(state: &'a State, options: &Options) -> Vec<(&'static str, &'a Parameter, Vec<usize>)> {
    let mut all = vec![
        ("W_enc", &state.encoder, vec![state.n, state.d]),
        ("W_dec", &state.decoder, vec![state.n, state.d]),
        ("b_enc", &state.encoder_bias, vec![state.n]),
        ("b_dec", &state.decoder_bias, vec![state.d]),
    ];
    let names = options.variant.extras(options);
    all.extend(names.iter().zip(&state.extras).map(|(&(name, _), extra)| (name, extra, vec![state.n])));
    all
}

/// Writes `state` to `path`. `rows` is the fingerprint of what is trained on.
pub(super) fn save(path: &Path, state: &State, options: &Options, rows: &str) -> Result<()> {
    let scalars = [state.scale, state.limit];
    let pressure = state.pressure.numbers();
    let mut tensors: Vec<(String, &str, Vec<usize>, &[u8])> = Vec::new();
    for (name, parameter, shape) in parameters(state, options) {
        let parts = [("", &parameter.values), (".m", &parameter.moments.first), (".v", &parameter.moments.second)];
        for (suffix, data) in parts {
            tensors.push((format!("{name}{suffix}"), "F32", shape.clone(), bytemuck::cast_slice(data)));
        }
    }
    tensors.push(("idle".into(), "U64", vec![state.n], bytemuck::cast_slice(&state.idle)));
    tensors.push(("mean".into(), "F32", vec![state.d], bytemuck::cast_slice(&state.mean)));
    tensors.push(("pressure".into(), "F64", vec![pressure.len()], bytemuck::cast_slice(&pressure)));
    tensors.push(("scale, limit".into(), "F32", vec![2], bytemuck::cast_slice(&scalars)));

    let mut header = Map::new();
    let metadata = json!({
        "format": FORMAT, "step": state.step.to_string(), "recipe": options.recipe(), "rows": rows,
    });
    header.insert("__metadata__".into(), metadata);
    let mut at = 0;
    for (name, kind, shape, data) in &tensors {
        let end = at + data.len();
        header.insert(name.clone(), json!({ "dtype": kind, "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    // Data begin at a multiple of 64, so that a reader may map them as numbers.
    let padded = (8 + header.len()).next_multiple_of(64) - 8;
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    write_atomic(path, |out| {
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|e| Error::io("write", path, e));
        put(&(header.len() as u64).to_le_bytes())?;
        put(header.as_bytes())?;
        tensors.iter().try_for_each(|(_, _, _, data)| put(data))
    })
}

/// Reads the state of a run with these options over these rows; `None` if there is no file yet.
///
/// # Errors
/// [`Kind::Format`](crate::Kind::Format) if the file is no checkpoint or is damaged;
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if it belongs to a run with other options or other rows.
pub(super) fn load(path: &Path, d: usize, options: &Options, rows: &str) -> Result<Option<State>> {
    if !path.try_exists().map_err(|e| Error::io("read", path, e))? {
        return Ok(None);
    }
    // Mapped, so that what a file claims to hold takes no memory before it is known to be this run's.
    let map = crate::file::Map::open(path)?;
    let bytes = map.bytes();
    let malformed = |e: safetensors::SafeTensorError| Error::format(path, format!("not a whole safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |key: &str| metadata.get(key).map_or("", String::as_str);
    if field("format") != FORMAT {
        return Err(Error::format(path, format!("expected format {FORMAT:?}, found {:?}", field("format"))));
    }
    same_recipe(path, field("recipe"), &options.recipe())?;
    if field("rows") != rows {
        return Err(Error::mismatch(format!(
            "{}: the checkpoint was trained on other rows (fingerprint {}, here {rows}); remove it or name another",
            path.display(),
            field("rows")
        )));
    }
    let step = field("step").parse().map_err(|_| Error::format(path, "metadata step: expected a number"))?;
    let file = File { path, tensors: SafeTensors::deserialize(bytes).map_err(malformed)? };
    let n = options.n_features;
    let scalars = file.numbers::<f32>("scale, limit", Dtype::F32, &[2])?;
    let extras = options.variant.extras(options);
    let extras = extras.iter().map(|(name, _)| file.parameter(name, &[n])).collect::<Result<Vec<_>>>()?;
    let pressure = Pressure::from_numbers(&file.numbers::<f64>("pressure", Dtype::F64, &[Pressure::LEN])?);
    Ok(Some(State {
        d,
        n,
        encoder: file.parameter("W_enc", &[n, d])?,
        decoder: file.parameter("W_dec", &[n, d])?,
        encoder_bias: file.parameter("b_enc", &[n])?,
        decoder_bias: file.parameter("b_dec", &[d])?,
        extras,
        pressure,
        idle: file.numbers("idle", Dtype::U64, &[n])?,
        mean: file.numbers("mean", Dtype::F32, &[d])?,
        scale: scalars[0],
        limit: scalars[1],
        step,
    }))
}

/// Names the first setting that differs.
pub(super) fn same_recipe(path: &Path, found: &str, expected: &str) -> Result<()> {
    let parse = |text: &str| serde_json::from_str::<HashMap<String, Value>>(text).unwrap_or_default();
    let (found, expected) = (parse(found), parse(expected));
    let mut names: Vec<&String> = expected.keys().collect();
    names.sort();
    for name in names {
        let (was, is) = (found.get(name).unwrap_or(&Value::Null), &expected[name]);
        if was != is {
            return Err(Error::mismatch(format!(
                "{}: the checkpoint was written with {name} {was}, here it is {is}; remove it or name another",
                path.display()
            )));
        }
    }
    Ok(())
}

struct File<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl File<'_> {
    fn numbers<T: bytemuck::AnyBitPattern>(&self, name: &str, kind: Dtype, shape: &[usize]) -> Result<Vec<T>> {
        let tensor =
            self.tensors.tensor(name).map_err(|_| Error::format(self.path, format!("tensor {name:?} is missing")))?;
        if tensor.dtype() != kind || tensor.shape() != shape {
            let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            return Err(Error::format(
                self.path,
                format!("tensor {name:?}: expected {kind:?} {shape:?}, found {found}"),
            ));
        }
        let bytes = tensor.data().chunks_exact(size_of::<T>());
        Ok(bytes.map(bytemuck::pod_read_unaligned).collect())
    }

    fn parameter(&self, name: &str, shape: &[usize]) -> Result<Parameter> {
        let read = |suffix| self.numbers(&format!("{name}{suffix}"), Dtype::F32, shape);
        Ok(Parameter { values: read("")?, moments: Moments { first: read(".m")?, second: read(".v")? } })
    }
}
