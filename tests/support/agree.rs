//! How far two computations of one thing by llama.cpp may lie apart.
//!
//! Equal inputs give equal bits on some processors only. ggml's kernels differ from build to build and by the number of rows
//! in a batch, and its threads share out sums; so the last bit of a sum may be another one. The next product rounds its input
//! to 8 bits: where a value lies between two steps, a last bit becomes a whole step, and the layers above spread it.
//!
//! Measured (norms of differences over norms): flipping the last bit of half of all values after block 0, and cutting a
//! batch of 128 rows into batches of 5 and of 1, moved rows of the residual stream by up to 0.03, the logits of a text by up
//! to 0.01 (SmolLM2) and 0.04 (Gemma 3), those of one token by up to 0.04 and 0.08, log probabilities of the likeliest
//! tokens by up to 0.15 and of any token by up to 1.1. The bounds are some 2.5 times that. What a test looks for has to be
//! several times its bound.

/// All rows, or all logits, of a text.
pub(crate) const TEXT: f64 = 0.1;
/// One row, or the logits of one token.
pub(crate) const ROW: f64 = 0.2;
/// The log probability of a likely token, in nats.
pub(crate) const LIKELY: f64 = 0.4;

/// ‖a − b‖ / ‖b‖.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let diff: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (diff / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

/// Tokens, or words, that two texts begin with alike.
pub(crate) fn alike<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The log probability of `token`.
pub(crate) fn log_probability(logits: &[f32], token: i32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    f64::from(logits[token as usize] - max) - sum.ln()
}

/// Two texts that were written greedily after `prompt` under the plan in force are the same, or part where the two tokens are
/// about as likely; how many tokens they have in common.
#[cfg(feature = "engine")]
#[track_caller]
pub(crate) fn same_choices(engine: &mut tiller::engine::Engine, prompt: &[i32], a: &[i32], b: &[i32]) -> usize {
    let same = alike(a, b);
    if let (Some(&one), Some(&other)) = (a.get(same), b.get(same)) {
        let mut gap = f64::NAN;
        let text = [prompt, &a[..=same]].concat();
        let at = text.len() - 1;
        let mut read = |_: usize, logits: &[f32]| gap = log_probability(logits, one) - log_probability(logits, other);
        engine.score_each(&text, at, &mut read).unwrap();
        assert!(gap.abs() <= 2.0 * LIKELY, "token {same}: {one} or {other}, {gap:.2} nats apart");
    }
    same
}

/// As [`same_choices`], of a text that was written elsewhere: it goes on as `tokens` do, or with another token that is about
/// as likely.
#[cfg(feature = "engine")]
#[track_caller]
pub(crate) fn same_text(engine: &mut tiller::engine::Engine, prompt: &[i32], tokens: &[i32], text: &str) {
    let begins = |n: &usize| text.starts_with(&engine.detokenize(&tokens[..*n]));
    let same = (0..=tokens.len()).rev().find(begins).unwrap_or(0);
    let rest = text[engine.detokenize(&tokens[..same]).len()..].to_owned();
    if same < tokens.len() {
        let mut after = Vec::new();
        let read = [prompt, &tokens[..=same]].concat();
        let at = read.len() - 1;
        engine.score_each(&read, at, &mut |_, logits| after.extend_from_slice(logits)).unwrap();
        let goes_on = |id: &i32| {
            let piece = engine.detokenize(&[*id]);
            !piece.is_empty() && rest.starts_with(&piece)
        };
        let other = (0..engine.n_vocab() as i32).filter(goes_on).map(|id| log_probability(&after, id));
        let gap = log_probability(&after, tokens[same]) - other.fold(f64::NEG_INFINITY, f64::max);
        assert!(gap <= 2.0 * LIKELY, "token {same}: {rest:?} is {gap:.2} nats less likely");
    } else {
        assert!(rest.trim().is_empty(), "{rest:?} is too much");
    }
}
