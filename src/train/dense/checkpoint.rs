//! A run on disk: everything that [`State`] holds, in one safetensors file, which appears by a rename.

use std::path::Path;

use super::fit::State;
use super::frame::Frame;
use super::network::Network;
use super::options::Options;
use crate::error::{Error, Result};
use crate::file::safetensors::{self, Dtype};
use crate::train::checkpoint::same_recipe;
use crate::train::weights::{Moments, Parameter};

/// What tells such a checkpoint from other safetensors files.
const FORMAT: &str = "tiller dense checkpoint 1";

fn parameters(network: &Network) -> [(&'static str, &Parameter, Vec<usize>); 6] {
    let (n, d) = (network.n, network.d);
    [
        ("W_enc", &network.encoder, vec![n, d]),
        ("W_dec", &network.decoder, vec![n, d]),
        ("b_enc", &network.encoder_bias, vec![n]),
        ("b_dec", &network.decoder_bias, vec![d]),
        ("gain", &network.gain, vec![n]),
        ("shift", &network.shift, vec![n]),
    ]
}

/// Writes `state` to `path`. `rows` is the fingerprint of what is trained on.
pub(super) fn save(path: &Path, state: &State, options: &Options, rows: &str) -> Result<()> {
    let State { network, frame, multiplier, step } = state;
    let (scalars, exact) = ([frame.scale, frame.limit], [*multiplier]);
    let mut file = safetensors::Writer::new();
    file.metadata("format", FORMAT);
    file.metadata("step", &step.to_string());
    file.metadata("recipe", &options.recipe());
    file.metadata("rows", rows);
    let mut put = |name: &str, shape: &[usize], values: &[f32]| {
        file.tensor(name, Dtype::F32, shape, bytemuck::cast_slice::<f32, u8>(values).to_vec());
    };
    for (name, parameter, shape) in parameters(network) {
        put(name, &shape, &parameter.values);
        put(&format!("{name}.m"), &shape, &parameter.moments.first);
        put(&format!("{name}.v"), &shape, &parameter.moments.second);
    }
    put("running.mean", &[network.n], &network.mean);
    put("running.variance", &[network.n], &network.variance);
    put("middle", &[network.d], &frame.middle);
    put("scale, limit", &[2], &scalars);
    file.tensor("multiplier", Dtype::F64, &[1], bytemuck::cast_slice::<f64, u8>(&exact).to_vec());
    file.write(path)
}

/// Reads the state of a run with these options over these rows; `None` if there is no file yet.
///
/// # Errors
/// [`Kind::Format`](crate::Kind::Format) if the file is no checkpoint or is damaged;
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if it belongs to a run with other options or other rows.
pub(super) fn load(path: &Path, d: usize, options: &Options, rows: &str) -> Result<Option<State>> {
    let there = path.try_exists().map_err(|e| Error::io("read", path, e))?;
    if !there {
        return Ok(None);
    }
    let file = safetensors::File::open(path)?;
    let field = |key: &str| file.metadata(key).unwrap_or_default().to_owned();
    if field("format") != FORMAT {
        return Err(Error::format(path, format!("expected format {FORMAT:?}, found {:?}", field("format"))));
    }
    same_recipe(path, &field("recipe"), &options.recipe())?;
    if field("rows") != rows {
        return Err(Error::mismatch(format!(
            "{}: the checkpoint was trained on other rows (fingerprint {}, here {rows}); remove it or name another",
            path.display(),
            field("rows")
        )));
    }
    let step = field("step").parse().map_err(|_| Error::format(path, "metadata step: expected a number"))?;
    let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let view = file.tensor(name)?.expect_shape(shape)?;
        match view.dtype() {
            Dtype::F32 => Ok(view.to_f32()?.into_owned()),
            found => Err(Error::format(path, format!("tensor \"{name}\": expected F32, found {found:?}"))),
        }
    };
    let parameter = |name: &str, shape: &[usize]| -> Result<Parameter> {
        let (first, second) = (read(&format!("{name}.m"), shape)?, read(&format!("{name}.v"), shape)?);
        Ok(Parameter { values: read(name, shape)?, moments: Moments { first, second } })
    };
    let n = options.n_latents;
    let network = Network {
        d,
        n,
        encoder: parameter("W_enc", &[n, d])?,
        decoder: parameter("W_dec", &[n, d])?,
        encoder_bias: parameter("b_enc", &[n])?,
        decoder_bias: parameter("b_dec", &[d])?,
        gain: parameter("gain", &[n])?,
        shift: parameter("shift", &[n])?,
        mean: read("running.mean", &[n])?,
        variance: read("running.variance", &[n])?,
    };
    let scalars = read("scale, limit", &[2])?;
    let frame = Frame { middle: read("middle", &[d])?, scale: scalars[0], limit: scalars[1] };
    let exact = file.tensor("multiplier")?.expect_shape(&[1])?;
    let multiplier = exact.bytes().first_chunk::<8>().map_or(0.0, |&bytes| f64::from_le_bytes(bytes));
    Ok(Some(State { network, frame, multiplier, step }))
}
