//! The words that directions point at in the unembedding: what a few directions mean where no dictionary can read them.
//!
//! ```text
//! cos(RMSNorm_final(t), U_v − mean U)        over the tokens v that are whole words
//! ```
//!
//! The mean is taken away because every row of an unembedding shares a large part, by which some tokens win always. The
//! estimator [`lens`](super::lens) compares many features with each other; here there are few.

use super::best::Best;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::num::{axpy, dot, norm};

/// Letters of a word at least: shorter tokens are mostly parts of words.
const LETTERS: usize = 3;

/// The `n` words that each of `directions` `[d_model]` points at most, with the cosine, best first.
///
/// # Errors
/// [`Unsupported`](crate::Kind::Unsupported) for a model without a final RMS norm; [`Mismatch`](crate::Kind::Mismatch) for a
/// direction of another width; see [`Model::unembedding_row`].
pub fn words(model: &Model, directions: &[Vec<f32>], n: usize) -> Result<Vec<Vec<(String, f32)>>> {
    let d = model.d_model();
    if let Some(other) = directions.iter().map(Vec::len).find(|len| *len != d) {
        return Err(Error::mismatch(format!("words of a direction: expected the model's width {d}, found {other}")));
    }
    if model.layer_norm() {
        let name = model.architecture();
        return Err(Error::unsupported(format!("lens: expected a final RMS norm, but {name} has a layer norm")));
    }
    let tokens = whole_words(model);
    let (mut mean, mut row) = (vec![0f32; d], vec![0f32; d]);
    for (token, _) in &tokens {
        model.unembedding_row(*token, &mut row)?;
        axpy(1.0 / tokens.len() as f32, &row, &mut mean);
    }
    let weights = model.output_norm()?;
    let targets: Vec<Vec<f32>> = directions
        .iter()
        .map(|direction| {
            let target: Vec<f32> = direction.iter().zip(&weights).map(|(v, w)| v * w).collect();
            let length = norm(&target).max(f32::MIN_POSITIVE);
            target.into_iter().map(|v| v / length).collect()
        })
        .collect();
    // One word may have several tokens, in other spellings.
    let mut best: Vec<Best> = directions.iter().map(|_| Best::new(4 * n)).collect();
    for (place, (token, _)) in (0u32..).zip(&tokens) {
        model.unembedding_row(*token, &mut row)?;
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
        let length = norm(&row).max(f32::MIN_POSITIVE);
        targets.iter().zip(&mut best).for_each(|(target, best)| best.offer(place, dot(target, &row) / length));
    }
    let spelled = |best: Best| {
        let mut words: Vec<(String, f32)> = Vec::new();
        for (place, score) in best.into_sorted() {
            let Some((_, word)) = tokens.get(place as usize) else { continue };
            if words.len() < n && words.iter().all(|(known, _)| known != word) {
                words.push((word.clone(), score));
            }
        }
        words
    };
    Ok(best.into_iter().map(spelled).collect())
}

/// The tokens that are a blank and a word, with the word in lower case.
fn whole_words(model: &Model) -> Vec<(i32, String)> {
    let n = i32::try_from(model.n_vocab()).unwrap_or(i32::MAX);
    let word = |token| {
        let bytes = model.token_bytes(token)?;
        let word = std::str::from_utf8(&bytes).ok()?.strip_prefix(' ')?.to_lowercase();
        let whole = word.chars().count() >= LETTERS && word.chars().all(char::is_alphabetic);
        whole.then_some((token, word))
    };
    (0..n).filter_map(word).collect()
}
