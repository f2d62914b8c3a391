//! Where features fire, on the dictionary that ships.
#![cfg(feature = "engine")]

mod support;

use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Options};
use tiller::eval::firing::{fire, loudest};
use tiller::explain::{Explanations, pointed, pursuit};
use tiller::model::Model;

/// Fires on "treatment", "treated", "treat" by its explanation.
const TREATMENT: u32 = 959;
const TEXT: &str =
    "The dog ran home over the hill. In the hospital the doctor began the treatment of a fever. The sky was blue.";

fn open() -> Option<(Engine, Dictionary)> {
    let path = support::model(support::SMOLLM)?;
    let options = Options { context: 512, threads: support::THREADS, ..Options::default() };
    Some((Engine::open(&path, &options).unwrap(), Dictionary::open(&support::shipped()).unwrap()))
}

#[test]
fn a_known_feature_is_highest_on_its_word() {
    let _turn = support::turn();
    let Some((mut engine, dictionary)) = open() else { return };
    let tokens = engine.document_tokens(&Document::Text(TEXT.into())).unwrap();
    // Twice, so that the second window's values have to stand behind the first's.
    let windows = [tokens.clone(), tokens.clone()];
    let others = [0, TREATMENT, 7];
    let values = fire(&mut engine, &dictionary, &others, &windows).unwrap();
    let found = &values[1];
    assert_eq!(found.len(), 2 * tokens.len());
    for (start, half) in [(0, &found[..tokens.len()]), (tokens.len(), &found[tokens.len()..])] {
        let best = (0..half.len()).max_by(|&a, &b| half[a].total_cmp(&half[b])).unwrap();
        assert!(half[best] > 0.0 && half[0] == 0.0);
        assert_eq!(engine.detokenize(&tokens[best..=best]), " treatment", "token {best} of the window at {start}");
    }
    // The same as the whole dictionary's encoding of the rows.
    let rows = engine.rows(&tokens, dictionary.point().unwrap()).unwrap();
    let (d, mut codes) = (engine.d_model(), vec![0f32; dictionary.n_features()]);
    for (t, row) in rows.chunks_exact(d).enumerate().skip(1) {
        dictionary.encode(row, &mut codes);
        let (one, other) = (codes[TREATMENT as usize], found[t]);
        // Rows of two readings differ a little; near its threshold a feature is on in one and off in the other.
        assert!((one - other).abs() <= 0.1 * one.max(other).max(40.0), "token {t}: {one} and {other}");
    }
    let loud = loudest(&mut engine, &dictionary, &windows[..1], 20, 1).unwrap();
    assert!(loud.len() == 20 && loud.contains(&TREATMENT), "{loud:?}");
    assert!(fire(&mut engine, &dictionary, &[dictionary.n_features() as u32], &windows).is_err());
}

#[test]
fn directions_are_read_as_the_features_that_they_are_made_of() {
    let _turn = support::turn();
    let Some((engine, dictionary)) = open() else { return };
    let explanations = Explanations::load(&support::shipped().with_extension("jsonl")).unwrap();
    let row = |i: usize| {
        let mut row = vec![0f32; dictionary.d_out()];
        dictionary.decoder_row(i, &mut row);
        row
    };
    let (one, other) = (row(TREATMENT as usize), row(1205));
    let both: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + 0.7 * b).collect();
    let read = pursuit::pursue(&both, dictionary.n_features(), &|i, row| dictionary.decoder_row(i, row), 8).unwrap();
    let found: Vec<u32> = read.parts.iter().map(|(feature, _)| *feature).collect();
    assert!(found.contains(&TREATMENT) && found.contains(&1205) && read.explained > 0.99, "{read:?}");
    assert!(explanations.get(found[0]).is_some_and(|e| e.words.iter().any(|(word, _)| word == "treatment")));
    let model = Model::open(engine.path()).unwrap();
    // A row of the unembedding itself, seen through the norm's weights, points at its word.
    let weights = model.output_norm().unwrap();
    let token = engine.tokenize(" ocean", false).unwrap()[0];
    let mut direction = vec![0f32; model.d_model()];
    model.unembedding_row(token, &mut direction).unwrap();
    direction.iter_mut().zip(&weights).for_each(|(v, w)| *v /= w);
    let words = pointed::words(&model, &[direction, one], 12).unwrap();
    assert_eq!(words[0][0].0, "ocean", "{:?}", words[0]);
    assert!(words[0].len() == 12 && words[0].windows(2).all(|pair| pair[0].1 >= pair[1].1));
    let opposed = pointed::words(&model, &[vec![1.0; 3]], 3);
    assert!(opposed.is_err(), "another width");
}
