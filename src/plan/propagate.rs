//! Propagating edits: a feature, and what it drives in the same row.
//!
//! A temporal model (arXiv 2509.23323) says that z = (I − M)⁻¹(…): whoever changes latent i changes Ψ_0 e_i = (I − M)⁻¹ e_i.
//! The isolated edit adds `d_i`, the propagating one `Σ_j (Ψ_0)_ji d_j`. Both are constants, known when a plan is compiled.

use super::apply::Edit;
use super::compile::{World, finite, length};
use super::rule::{Rule, Unit};
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::num::axpy;
use crate::train::temporal::Temporal;

/// The directions of features with what they drive, `[ids.len(), d]`, by the decoder of `dictionary`.
pub(super) fn directions(model: &Temporal, dictionary: &Dictionary, ids: &[u32], out: &mut [f32]) -> Result<()> {
    let (name, found) = (&model.origin().dictionary, &dictionary.info().name);
    if !name.is_empty() && !found.is_empty() && name != found {
        return Err(Error::mismatch(format!(
            "propagate: the temporal model is for dictionary \"{name}\", found \"{found}\""
        )));
    }
    let d = dictionary.d_out();
    let slice = dictionary.slice(model.features())?;
    for (k, (&id, row)) in ids.iter().zip(out.chunks_exact_mut(d)).enumerate() {
        let Some(latent) = model.latent(id) else {
            let n = model.n_latents();
            return Err(Error::mismatch(format!(
                "features[{k}]: feature {id} is not among the {n} of the temporal model; add it without `propagate`"
            )));
        };
        let mut edit = vec![0.0; model.n_latents()];
        edit[latent] = 1.0;
        let response = model.response(&edit, 0)?;
        for (j, &amount) in response.iter().flatten().enumerate().filter(|(_, a)| **a != 0.0) {
            slice.add_decoder(j, amount, row);
        }
    }
    Ok(())
}

/// What a rule on latents of a model of rows does, and where.
pub(super) fn latents(rule: &Rule, model: &Temporal, world: &World) -> Result<(HookPoint, Edit)> {
    let strength = rule.strength.unwrap_or(super::Strength::raw(0.0));
    if strength.unit == Unit::Activation {
        return Err(Error::mismatch(
            "strength.unit: expected `raw` or `norm`, found `activation`: latents of rows have none, their mean is 0",
        ));
    }
    let own = model.origin().point;
    let Some(layer) = rule.layer.or(own.map(HookPoint::layer)) else {
        return Err(Error::mismatch("layer: the temporal model does not say its layer, so the rule must"));
    };
    let point = HookPoint::new(rule.hook.or(own.map(HookPoint::site)).unwrap_or_default(), layer);
    world.check_layer(layer)?;
    let mut sum = vec![0f32; world.d_model];
    for (k, feature) in rule.features.iter().enumerate() {
        let latent = usize::try_from(feature.id).unwrap_or(usize::MAX);
        let direction = model.direction(latent, true).map_err(|e| Error::mismatch(format!("features[{k}]: {e}")))?;
        if direction.len() != world.d_model {
            let (expected, found) = (world.d_model, direction.len());
            return Err(Error::mismatch(format!(
                "propagate: the model's width is {expected}, the temporal model's is {found}"
            )));
        }
        let unit = match strength.unit {
            Unit::Norm => 1.0 / length(&direction, &format!("features[{k}]: the direction of latent {latent}"))?,
            Unit::Raw | Unit::Activation => 1.0,
        };
        axpy(strength.value * feature.weight * unit, &direction, &mut sum);
    }
    let sum = finite(sum)?;
    Ok((point, if strength.unit == Unit::Norm { Edit::Relative(sum) } else { Edit::Constant(sum) }))
}
