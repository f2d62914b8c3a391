//! Sentences through the model: one row each, at one layer or two.

use super::request::Pooling;
use crate::engine::{Document, Engine};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;

/// Sentences that are read between two reports of progress.
const WAVE: usize = 128;

/// The sentences' tokens.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for one that is longer than a batch.
pub(super) fn tokens(engine: &Engine, texts: &[String]) -> Result<Vec<Vec<i32>>> {
    let one = |(i, text): (usize, &String)| {
        let tokens = engine.document_tokens(&Document::Text(text.clone()));
        let most = engine.longest();
        match tokens {
            Ok(tokens) if tokens.len() > most => {
                let n = tokens.len();
                Err(Error::argument(format!("sentence {}: expected at most {most} tokens, found {n}", i + 1)))
            }
            other => other.map_err(|e| e.context(format!("sentence {}", i + 1))),
        }
    };
    texts.iter().enumerate().map(one).collect()
}

/// A row for each text at each of `points`: `[texts, d_model]`. The plan in force applies. `tell` is told how many were
/// read.
///
/// # Errors
/// What the engine and `tell` return.
pub(super) fn read(
    engine: &mut Engine,
    texts: &[Vec<i32>],
    points: &[HookPoint],
    pooling: Pooling,
    tell: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<f32>>> {
    let d = engine.d_model();
    let mut all = vec![Vec::with_capacity(texts.len() * d); points.len()];
    for wave in texts.chunks(WAVE) {
        engine.read_rows(wave, points, &mut |_, point, rows| {
            all[point].extend(pooled(rows, d, pooling));
            Ok(())
        })?;
        tell(wave.len())?;
    }
    Ok(all)
}

/// One row of those of a text, `[tokens, d_model]`.
fn pooled(rows: &[f32], d: usize, pooling: Pooling) -> Vec<f32> {
    let first = match pooling {
        Pooling::Last => rows.len().saturating_sub(d),
        // A text of one token has no other row.
        Pooling::Mean if rows.len() > d => d,
        Pooling::Mean => 0,
    };
    let used = rows.get(first..).unwrap_or_default();
    let n = (used.len() / d) as f64;
    let mut mean = vec![0f64; d];
    used.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / n));
    mean.into_iter().map(|m| m as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_its_last_row_or_the_mean_of_all_but_the_first() {
        let rows = [100.0, 200.0, 1.0, 2.0, 3.0, 6.0];
        assert_eq!(pooled(&rows, 2, Pooling::Last), [3.0, 6.0]);
        assert_eq!(pooled(&rows, 2, Pooling::Mean), [2.0, 4.0]);
        assert_eq!(pooled(&rows[..2], 2, Pooling::Mean), [100.0, 200.0]);
    }
}
