//! Rows of both runs over the same answers, at all layers in one pass each.

use super::asking::{Case, common};
use super::work::Work;
use crate::engine::Engine;
use crate::error::Result;
use crate::hook_point::HookPoint;
use crate::train::learn::Contrast;

/// Bytes that the rows of all layers and both runs may take; answers are cut to fit.
pub(super) const MEMORY: usize = 1 << 30;

/// Which rows of an answer are compared: the same number at the end of both runs, less what is cut off behind them.
fn compared(case: &Case, answer: &[i32], tail: usize, most: usize) -> (usize, usize) {
    let n = answer.len();
    let common = common(&case.plain, &case.asked) + n;
    // The first token that both share behind different ones still stands for what it ends; and the first row is a sink.
    let rows = common.min(tail + n).min(case.plain.len() + n - 1).min(case.asked.len() + n - 1);
    (rows, rows.saturating_sub(most))
}

/// Cases with their answers, as they are read: behind the asked prompt, or behind the plain one.
fn texts(answered: &[(&Case, &[i32])], asked: bool) -> Vec<Vec<i32>> {
    let text = |(case, answer): &(&Case, &[i32])| {
        let plain = case.against.as_ref().unwrap_or(&case.plain);
        [if asked { &case.asked } else { plain }, *answer].concat()
    };
    answered.iter().map(text).collect()
}

/// Reads cases with their answers and adds the rows at `layers` to `rows`. `tail`: rows of the template behind a message.
pub(super) fn add(
    engine: &mut Engine,
    rows: &mut Contrast,
    answered: &[(&Case, &[i32])],
    (layers, tail): (&[usize], usize),
    most: usize,
    work: &mut Work<'_>,
) -> Result<()> {
    let d = engine.d_model();
    let points: Vec<HookPoint> = layers.iter().map(|&layer| HookPoint::from(layer)).collect();
    // So many answers that a wave fills about one batch.
    for wave in answered.chunks(8) {
        let spans: Vec<(usize, usize)> = wave.iter().map(|(case, answer)| compared(case, answer, tail, most)).collect();
        let cut = |text: usize, found: &[f32]| {
            let (n, off) = spans[text];
            let end = found.len() / d - off;
            found[(end + off - n) * d..end * d].to_vec()
        };
        let mut asked = vec![Vec::new(); wave.len() * points.len()];
        engine.read_rows(&texts(wave, true), &points, &mut |text, point, found| {
            asked[text * points.len() + point] = cut(text, found);
            Ok(())
        })?;
        engine.read_rows(&texts(wave, false), &points, &mut |text, point, found| {
            rows.add(layers[point], &asked[text * points.len() + point], &cut(text, found))
        })?;
        work.step(wave.len(), "reading answers")?;
    }
    Ok(())
}

/// The same for messages on which the features must be silent: rows of the whole plain run but the first, and of the asked one
/// those that are compared; `most` of each at most, evenly.
pub(super) fn add_silent(
    engine: &mut Engine,
    rows: &mut Contrast,
    answered: &[(&Case, &[i32])],
    (layers, tail): (&[usize], usize),
    most: usize,
    work: &mut Work<'_>,
) -> Result<()> {
    let d = engine.d_model();
    let points: Vec<HookPoint> = layers.iter().map(|&layer| HookPoint::from(layer)).collect();
    for wave in answered.chunks(8) {
        for asked in [false, true] {
            engine.read_rows(&texts(wave, asked), &points, &mut |text, point, found| {
                let (case, answer) = &wave[text];
                let n = found.len() / d;
                let kept = if asked { compared(case, answer, tail, usize::MAX).0 } else { n - 1 };
                let every = kept.div_ceil(most.max(1)).max(1);
                let some: Vec<f32> =
                    found[(n - kept) * d..].chunks_exact(d).step_by(every).flatten().copied().collect();
                rows.add_silent(layers[point], &some)
            })?;
        }
        work.step(wave.len(), "reading answers to other messages")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_behind_the_message_are_compared() {
        let case = |plain: &[i32], asked: &[i32]| Case {
            message: String::new(),
            plain: plain.into(),
            asked: asked.into(),
            against: None,
        };
        // Template 1 … 8 9; message 5, instruction 6 7.
        let appended = case(&[1, 5, 8, 9], &[1, 5, 6, 7, 8, 9]);
        assert_eq!(compared(&appended, &[3, 4], 2, 100), (4, 0));
        let system = case(&[1, 5, 8, 9], &[2, 6, 7, 1, 5, 8, 9]);
        assert_eq!(compared(&system, &[3, 4], 2, 100), (4, 0), "the message itself is left out");
        assert_eq!(compared(&system, &[3, 4], 2, 3), (4, 1), "the last row is cut off");
        // The whole plain run is in the asked one: its first row is a sink.
        assert_eq!(compared(&case(&[8, 9], &[7, 8, 9]), &[3], 2, 100).0, 2);
    }
}
