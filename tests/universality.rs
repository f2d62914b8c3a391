//! Feature spaces of models that are there: the shipped dictionary against itself, and against one on another
//! tokenizer.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Engine, Options};
use tiller::eval::universality::{Request, universality};
use tiller::file::gguf::GgmlType;
use tiller::progress::silent;

const TEXT: &str = "In May the river rose, and the old farmer walked to the church. The king of France wrote to the \
    queen about the war. On Monday morning the doctor gave the children medicine. Tax and trade made the town rich. ";

/// A file of text that says the same of other things again and again.
fn text(dir: &Path) -> PathBuf {
    let path = dir.join("text.txt");
    let nouns = ["river", "army", "tree", "window", "language", "market", "sister", "winter", "engine", "poem"];
    let lines: Vec<String> = nouns
        .iter()
        .map(|noun| format!("{TEXT}She told her brother that a {noun} is like another {noun}.\n"))
        .collect();
    std::fs::write(&path, lines.concat()).unwrap();
    path
}

fn request(a: [PathBuf; 2], b: [PathBuf; 2], text: PathBuf) -> Request {
    let mut request = Request::new(a, b, vec![text]);
    request.max_tokens = 600;
    request.least = 3;
    request.runs = 99;
    request.subsets = 20;
    request.threads = support::THREADS;
    request
}

#[test]
fn a_dictionary_is_its_own_counterpart() {
    let _turn = support::turn();
    let Some(model) = support::model(support::SMOLLM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let own = [model, support::shipped()];
    let mut request = request(own.clone(), own, text(dir.path()));
    let mut last = 0;
    let report = universality(&request, &mut |step| {
        last = step.total;
        true
    })
    .unwrap();
    assert!(last > 0 && report.same_tokenizer && (500..=600).contains(&report.n_tokens), "{}", report.n_tokens);
    assert!(report.steps.correlated > 100 && report.a.alive == report.b.alive && report.a.l0 == report.b.l0);
    assert!(report.mean_best_r > 0.999, "{}", report.mean_best_r);
    // Two features that fire on the same few tokens, equally strong, are one to the correlation.
    let own = report.pairs.iter().filter(|p| p.a == p.b).count();
    assert!(own * 10 >= report.pairs.len() * 9 && own > 20, "{own} of {}", report.pairs.len());
    assert!(report.pairs.iter().all(|p| p.r > 0.99 && p.tokens_a.len() <= 5));
    for s in &report.similarity {
        assert!(s.value > 0.95 && s.shuffled.p <= 0.01 + 1e-9, "{s:?}");
    }
    let again = universality(&request, &mut silent).unwrap();
    assert_eq!(
        (&again.pairs, &again.similarity, &again.subspaces),
        (&report.pairs, &report.similarity, &report.subspaces)
    );
    request.memory = 10;
    let error = universality(&request, &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("4814 × 4814"), "{error}");
    request.memory = 1000;
    assert_eq!(universality(&request, &mut |_| false).unwrap_err().kind(), Kind::Cancelled);
    // At another layer the same directions mean something else.
    request.layer_b = Some(3);
    let other = universality(&request, &mut silent).unwrap();
    assert!(other.mean_best_r < report.mean_best_r - 0.1, "{}", other.mean_best_r);
    request.layer_b = Some(99);
    assert_eq!(universality(&request, &mut silent).unwrap_err().kind(), Kind::Argument);
}

/// A dictionary of random directions, of which each row activates the 32 nearest.
fn random(model: &Path, layer: usize, path: &Path) {
    let options = Options { threads: support::THREADS, context: 64, batch: 64, ..Options::default() };
    let d = Engine::open(model, &options).unwrap().d_model();
    let n = 256;
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let rows: Vec<f32> = (0..n * d).map(|_| next()).collect();
    let parts = Parts {
        d_model: d,
        encoder: rows.clone(),
        decoder: rows,
        encoder_bias: vec![0.0; n],
        decoder_bias: vec![0.0; d],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::TopK { k: 32 }),
        info: Info { layer: Some(layer), ..Info::default() },
    };
    Dictionary::from_parts(parts).unwrap().save_gguf(path, GgmlType::F32).unwrap();
}

#[test]
fn two_tokenizers_are_compared_at_the_ends_of_words() {
    let _turn = support::turn();
    let (Some(smollm), Some(gemma)) = (support::model(support::SMOLLM), support::model(support::GEMMA)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("random.gguf");
    random(&gemma, 9, &other);
    let text = text(dir.path());
    let words =
        std::fs::read_to_string(&text).unwrap().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).count();
    let request = request([smollm, support::shipped()], [gemma, other], text);
    let report = universality(&request, &mut silent).unwrap();
    assert!(!report.same_tokenizer && report.pieces_left_out == 0);
    // All words but the first one of each piece, and what one of the tokenizers does not end where the word does.
    let found = report.n_tokens as usize + report.sinks as usize;
    assert!(found * 10 > words * 9 && found <= words, "{found} of {words}");
    assert_eq!((report.b.n_features, report.b.l0), (256, 32.0));
    assert!(report.pairs.iter().flat_map(|p| &p.tokens_a).all(|word| word.chars().all(char::is_alphanumeric)));
}
