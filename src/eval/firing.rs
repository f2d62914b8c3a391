//! On which tokens of a text do features fire? f = relu(w·x + b) (or what the dictionary's activation makes of it) on the
//! rows that the model has without steering, each feature at its own layer.
//!
//! The first token of every window is the model's attention sink, whose row lies far from all others: it counts as 0.

use std::collections::BTreeMap;

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;

/// How the values of several features on one token become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Over {
    /// Their sum.
    #[default]
    Sum,
    /// The largest.
    Max,
}

/// The values of `features` on every token of `windows`, one after the other: `[features.len()]` lists `[n_tokens]`. The plan
/// in force applies: set none to see the model's own rows.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) for a feature that does not exist, or a window longer than
/// [`Engine::longest`]; [`Unsupported`](crate::Kind::Unsupported) if the dictionary reads a place that no hook shows.
pub fn fire(
    engine: &mut Engine,
    dictionary: &Dictionary,
    features: &[u32],
    windows: &[Vec<i32>],
) -> Result<Vec<Vec<f32>>> {
    // The places among `features` of those at each point.
    let mut places: BTreeMap<HookPoint, Vec<usize>> = BTreeMap::new();
    for (place, &feature) in features.iter().enumerate() {
        places.entry(point(dictionary, feature)?).or_default().push(place);
    }
    let points: Vec<HookPoint> = places.keys().copied().collect();
    let ids = |places: &Vec<usize>| places.iter().map(|&place| features[place]).collect::<Vec<u32>>();
    let slices = places.values().map(|places| dictionary.slice(&ids(places))).collect::<Result<Vec<_>>>()?;
    let places: Vec<Vec<usize>> = places.into_values().collect();
    let starts = starts(windows);
    let n_tokens = windows.iter().map(Vec::len).sum();
    let (mut values, d) = (vec![vec![0f32; n_tokens]; features.len()], engine.d_model());
    engine.read_rows(windows, &points, &mut |window, point, rows| {
        let (slice, places) = (&slices[point], &places[point]);
        let mut codes = vec![0f32; places.len()];
        for (t, row) in rows.chunks_exact(d).enumerate().skip(1) {
            slice.encode(row, &mut codes);
            places.iter().zip(&codes).for_each(|(&place, &f)| values[place][starts[window] + t] = f);
        }
        Ok(())
    })?;
    Ok(values)
}

/// The at most `n` features that tell most about a text: those with the largest Σ_t f/mean · log(1/density), as words are
/// weighed in search. Of a dictionary without statistics, Σ_t f. Of one whose features live at several layers, all.
///
/// # Errors
/// As [`fire`].
pub fn loudest(
    engine: &mut Engine,
    dictionary: &Dictionary,
    windows: &[Vec<i32>],
    n: usize,
    threads: usize,
) -> Result<Vec<u32>> {
    if dictionary.is_layered() {
        return Ok((0..dictionary.n_features() as u32).collect());
    }
    let (mut sums, d) = (vec![0f64; dictionary.n_features()], engine.d_model());
    engine.read_rows(windows, &[point(dictionary, 0)?], &mut |_, _, rows| {
        let codes = dictionary.encode_batch(rows.get(d..).unwrap_or_default(), threads);
        codes.entries().iter().for_each(|&(feature, f)| sums[feature as usize] += f64::from(f));
        Ok(())
    })?;
    let weight = |feature: usize| {
        let stats = dictionary.stats(feature).filter(|stats| stats.mean > 0.0 && stats.density > 0.0);
        stats.map_or(1.0, |stats| f64::from((1.0 / stats.density).ln().max(0.0) / stats.mean))
    };
    let mut all: Vec<(usize, f64)> =
        sums.into_iter().enumerate().map(|(i, sum)| (i, sum * weight(i))).filter(|(_, sum)| *sum > 0.0).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(all.into_iter().take(n).map(|(i, _)| i as u32).collect())
}

/// One value a token, of several features.
pub fn together(values: &[Vec<f32>], over: Over) -> Vec<f32> {
    let n = values.first().map_or(0, Vec::len);
    let at = |t: usize| values.iter().map(move |values| values.get(t).copied().unwrap_or(0.0));
    (0..n)
        .map(|t| match over {
            Over::Sum => at(t).sum(),
            Over::Max => at(t).fold(0.0, f32::max),
        })
        .collect()
}

fn point(dictionary: &Dictionary, feature: u32) -> Result<HookPoint> {
    dictionary.feature_point(feature as usize).ok_or_else(|| {
        let (name, hook) = (dictionary.info().title(), dictionary.hook_point());
        Error::unsupported(format!("{name}: feature {feature}: expected a known hook point, found {hook:?}"))
    })
}

/// Where each window begins.
fn starts(windows: &[Vec<i32>]) -> Vec<usize> {
    windows
        .iter()
        .scan(0, |at, window| {
            let start = *at;
            *at += window.len();
            Some(start)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_layers_become_one() {
        let values = [vec![0.0, 1.0, 2.0], vec![0.5, 3.0, 0.0]];
        assert_eq!(together(&values, Over::Sum), [0.5, 4.0, 2.0]);
        assert_eq!(together(&values, Over::Max), [0.5, 3.0, 2.0]);
        assert!(together(&[], Over::Sum).is_empty());
        assert_eq!(starts(&[vec![1, 2], vec![3], vec![4]]), [0, 2, 3]);
    }
}
