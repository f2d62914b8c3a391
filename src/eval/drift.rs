//! What quantizing a model does to a dictionary that was trained on another quantization of it.
//!
//! The same dictionary, the same text, one model file after the other: the [self-test](super::self_test), and how many of the
//! features that a token activates are others than with the first model, 1 − |A ∩ B| / |A ∪ B| on average over tokens.
//! Costs a self-test and one early-stopped pass for each model.

use std::path::PathBuf;
use std::sync::Arc;

use super::self_test::{self, SelfTest, self_test, windows};
use crate::dictionary::Dictionary;
use crate::engine::{self, Document, Engine};
use crate::error::{Error, Result};
use crate::progress::{Progress, Step};

/// One model's figures.
#[derive(Clone, Debug)]
pub struct Drift {
    /// Its file.
    pub model: PathBuf,
    /// The self-test.
    pub test: SelfTest,
    /// Share of the active features that are others than with the first model.
    pub changed: f64,
}

/// Measures `dictionary` on each of `models`, which are quantizations of one model; the first is what the others are
/// compared with. Progress names the model.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) without models; what opening one or its self-test returns, among them
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if a model cuts the text into other tokens than the first.
pub fn drift(
    models: &[PathBuf],
    dictionary: &Arc<Dictionary>,
    text: &[Document],
    engine: &engine::Options,
    options: &self_test::Options,
    progress: &mut Progress<'_>,
) -> Result<Vec<Drift>> {
    let point = dictionary
        .point()
        .ok_or_else(|| Error::argument("the dictionary does not say which hook point it belongs to"))?;
    let mut all = Vec::with_capacity(models.len());
    let mut first: Option<Seen> = None;
    for path in models {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut engine = Engine::open(path, engine)?;
        let mut named = |step: Step<'_>| progress(Step { note: &format!("{name}  {}", step.note), ..step });
        let test = self_test(&mut engine, dictionary, text, options, &mut named)?;
        // The features that are active are compared on the part of the text that the cross-entropies are taken from.
        let part = self_test::Options { max_tokens: options.score_tokens, ..options.clone() };
        let windows = windows(&engine, text, &part)?;
        let mut active = Vec::new();
        for window in &windows {
            let rows = engine.rows(window, point)?;
            let codes =
                dictionary.encode_batch(rows.get(dictionary.d_model()..).unwrap_or_default(), engine.options().threads);
            active.extend(codes.rows().map(|row| row.iter().map(|code| code.0).collect::<Vec<u32>>()));
        }
        let changed = match &first {
            None => 0.0,
            Some(first) if first.tokens != windows => {
                let what = format!("{}: cuts the text into other tokens than the first model", path.display());
                return Err(Error::mismatch(what));
            }
            Some(first) => changed(&first.active, &active),
        };
        first.get_or_insert(Seen { tokens: windows, active });
        all.push(Drift { model: path.clone(), test, changed });
    }
    if all.is_empty() { Err(Error::argument("expected models, found none")) } else { Ok(all) }
}

/// What one model made of the text.
struct Seen {
    /// Its tokens, window by window.
    tokens: Vec<Vec<i32>>,
    /// The active features of each row.
    active: Vec<Vec<u32>>,
}

/// The mean of 1 − |A ∩ B| / |A ∪ B| over rows; rows without any active feature are the same.
fn changed(before: &[Vec<u32>], after: &[Vec<u32>]) -> f64 {
    let distance = |(a, b): (&Vec<u32>, &Vec<u32>)| {
        let both = a.iter().filter(|id| b.contains(id)).count();
        let any = a.len() + b.len() - both;
        if any == 0 { 0.0 } else { 1.0 - both as f64 / any as f64 }
    };
    before.iter().zip(after).map(distance).sum::<f64>() / before.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn changed_is_one_minus_the_overlap() {
        let rows = |rows: &[&[u32]]| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        let before = rows(&[&[1, 2, 3], &[], &[4]]);
        assert_eq!(changed(&before, &before), 0.0);
        // 1 − 2/4, 0, 1.
        assert!((changed(&before, &rows(&[&[3, 2, 9], &[], &[5]])) - 0.5).abs() < 1e-12);
    }
}
