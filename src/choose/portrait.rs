//! One feature seen whole: what pushing it makes likelier, where it fires most, and what lies near it.

use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine};
use crate::error::{Error, Result};
use crate::eval::trial::PROMPTS;
use crate::explain::baselines::{Span, TopAct};
use crate::explain::windows::Text;
use crate::num::dot;
use crate::plan::{Op, Plan, Route, Rule, Selector, Strength};
use crate::progress::{Progress, report};

/// The `n` features whose decoder rows have the largest cosine with that of `feature`, best first.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) for a feature that does not exist.
pub fn neighbours(dictionary: &Dictionary, feature: u32, n: usize) -> Result<Vec<(u32, f32)>> {
    check(dictionary, feature)?;
    let (mut own, mut row) = (vec![0.0; dictionary.d_out()], vec![0.0; dictionary.d_out()]);
    dictionary.decoder_row(feature as usize, &mut own);
    let length = |i: usize| dictionary.decoder_norm(i).max(f32::MIN_POSITIVE);
    let mut all = Vec::with_capacity(dictionary.n_features());
    for i in (0..dictionary.n_features()).filter(|&i| i != feature as usize) {
        dictionary.decoder_row(i, &mut row);
        all.push((i as u32, dot(&own, &row) / (length(i) * length(feature as usize))));
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(n);
    Ok(all)
}

fn check(dictionary: &Dictionary, feature: u32) -> Result<()> {
    let n = dictionary.n_features();
    if (feature as usize) < n {
        return Ok(());
    }
    Err(Error::argument(format!("feature {feature} does not exist; the dictionary has 0 to {}", n.saturating_sub(1))))
}

/// The `n` tokens that pushing `feature` by a vector of `push` times the row's length makes likelier behind neutral prompts,
/// with the mean gain in nats: those with the largest share of the divergence, p' (log p' − log p). No plan is in force
/// afterwards.
///
/// # Errors
/// As [`neighbours`]; [`Mismatch`](crate::Kind::Mismatch) for a dictionary that does not fit; what the engine returns.
pub fn effect(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    feature: u32,
    push: f32,
    n: usize,
) -> Result<Vec<(String, f32)>> {
    check(dictionary, feature)?;
    let rule = Rule::new(Op::Add, [feature], Strength::norm(push)).select(Selector::default().include_first(false));
    let plan = Plan::new([rule]).compile(&[("d", dictionary.clone())], &engine.target(), Route::Auto)?;
    let prompts = PROMPTS.iter().map(|text| engine.tokenize(text, true)).collect::<Result<Vec<_>>>()?;
    let mut logs = Vec::with_capacity(2);
    for plan in [None, Some(Arc::new(plan))] {
        engine.set_plan(plan)?;
        let mut last: Vec<Vec<f32>> = Vec::with_capacity(prompts.len());
        let mut read = Ok(());
        for wave in prompts.chunks(engine.sequences()) {
            read = engine.predict(wave, &mut |sequence, position, logits| {
                if position + 1 == wave[sequence].len() {
                    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let base = max + logits.iter().map(|l| (l - max).exp()).sum::<f32>().ln();
                    last.push(logits.iter().map(|l| l - base).collect());
                }
            });
            if read.is_err() {
                break;
            }
        }
        let hooked = engine.finish();
        engine.set_plan(None)?;
        read?;
        hooked.ok()?;
        logs.push(last);
    }
    let [before, after] = &logs[..] else { return Ok(Vec::new()) };
    let share = 1.0 / prompts.len() as f32;
    let mut all: Vec<(usize, f32, f32)> = (0..engine.n_vocab())
        .map(|token| {
            let both = || before.iter().zip(after).map(|(b, a)| (a[token], b[token]));
            let gain = both().map(|(a, b)| a - b).sum::<f32>() * share;
            (token, both().map(|(a, b)| a.exp() * (a - b)).sum::<f32>() * share, gain)
        })
        .filter(|(_, divergence, gain)| divergence.is_finite() && *gain > 0.0)
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(n);
    Ok(all.into_iter().map(|(token, _, gain)| (engine.detokenize(&[token as i32]), gain)).collect())
}

/// The `n` pieces of `documents` that excite `feature` most, of their first `max_tokens` tokens together. Progress counts
/// documents.
///
/// # Errors
/// As [`effect`]; [`Cancelled`](crate::Kind::Cancelled).
pub fn texts(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    feature: u32,
    documents: &[Document],
    max_tokens: usize,
    n: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<(f32, String)>> {
    check(dictionary, feature)?;
    let none = || Error::mismatch("the dictionary does not say its layer");
    let point = dictionary.point().filter(|_| dictionary.d_model() == engine.d_model()).ok_or_else(none)?;
    let (mut top, mut left) = (TopAct::new(feature as usize + 1, n), max_tokens);
    for (done, document) in (0..).zip(documents) {
        report(progress, done, documents.len() as u64, "reading")?;
        let tokens = engine.document_tokens(document)?;
        for window in tokens.get(..tokens.len().min(left)).unwrap_or_default().chunks(engine.longest()) {
            engine.read_rows(&[window.to_vec()], &[point], &mut |_, _, rows| {
                let (positions, bounds) = ((0..window.len() as i32).collect::<Vec<_>>(), [0, window.len()]);
                let text = Text { tokens: window, positions: &positions, documents: &bounds };
                // Position 0 is a sink.
                for (row, codes) in dictionary.encode_batch(rows, 1).rows().enumerate().skip(1) {
                    let own: Vec<(u32, f32)> = codes.iter().copied().filter(|(f, _)| *f == feature).collect();
                    top.row(text, row, &own)?;
                }
                top.end(window.len());
                Ok(())
            })?;
        }
        left -= tokens.len().min(left);
        if left == 0 {
            break;
        }
    }
    let spans: Vec<Span> = top.into_spans().pop().unwrap_or_default();
    let shown = |span: Span| (span.activation, span.text(&|token| engine.token_bytes(token, false)));
    Ok(spans.into_iter().map(shown).collect())
}
