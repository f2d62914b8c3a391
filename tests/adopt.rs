//! An adoption of the real model in the shortest time there is, cancelled on the way: it goes on where it was, ends in time,
//! and leaves a dictionary that opens, its explanations and a report.

#![cfg(feature = "engine")]

mod support;

use std::path::Path;
use std::time::Instant;

use support::SMOLLM;
use tiller::Kind;
use tiller::adopt::{Options, adopt};
use tiller::dictionary::Dictionary;
use tiller::engine::Document;
use tiller::explain::Explanations;
use tiller::progress::silent;

const MINUTES: f64 = 3.0;
/// When the first call is cancelled, in seconds.
const CANCELLED: u64 = 50;

/// Text that is there: what this library says of itself.
fn text() -> Vec<Document> {
    fn gather(directory: &Path, into: &mut Vec<Document>) {
        let mut paths: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => gather(&path, into),
                Some("rs" | "md" | "h" | "hpp" | "go") => {
                    into.push(Document::Text(std::fs::read_to_string(&path).unwrap()))
                }
                _ => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![Document::Text(std::fs::read_to_string(root.join("README.md")).unwrap())];
    ["src", "tests", "include", "bindings"]
        .iter()
        .map(|name| root.join(name))
        .filter(|path| path.is_dir())
        .for_each(|path| gather(&path, &mut all));
    all
}

#[test]
fn a_cancelled_adoption_goes_on_and_ends_in_time() {
    let Some(model) = support::model(SMOLLM) else { return };
    let _turn = support::turn();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options { minutes: MINUTES, text: text(), layers: vec![14, 19], ..Options::new().unwrap() };
    options.suite.concepts.truncate(2);
    options.suite.prompts.truncate(6);
    options.suite.search_prompts.truncate(3);

    let start = Instant::now();
    let error = adopt(&model, dir.path(), &options, &mut |step| step.done < CANCELLED).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    let others = Options { features: 512, ..options.clone() };
    let error = adopt(&model, dir.path(), &others, &mut silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");

    let mut began = None;
    let made = adopt(&model, dir.path(), &options, &mut |step| {
        began.get_or_insert(step.done);
        true
    })
    .unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds:.0} s: block {}, {:?}", made.layer, made.tested);
    assert!(began >= Some(CANCELLED), "the clock went on: {began:?}");
    assert!(seconds < 1.2 * 60.0 * MINUTES && made.seconds < 1.2 * 60.0 * MINUTES, "{seconds} {}", made.seconds);

    // Both layers were tried alike, and the better one was taken.
    assert_eq!(made.tried.iter().map(|tried| tried.layer).collect::<Vec<_>>(), options.layers);
    assert!(
        made.tried.iter().all(|tried| tried.rows == made.tried[0].rows && !tried.gains.is_empty()),
        "{:?}",
        made.tried
    );
    let best = made.tried.iter().map(|tried| tried.gain()).fold(0.0, f64::max);
    assert!(made.tried.iter().any(|tried| tried.layer == made.layer && tried.gain() == best), "{:?}", made.tried);

    let dictionary = Dictionary::open(&made.dictionary).unwrap();
    assert_eq!((dictionary.d_model(), dictionary.n_features()), (576, made.tested.features.1));
    assert_eq!(dictionary.point().map(|point| point.layer()), Some(made.layer));
    assert!(made.tested.fvu < 0.9 && made.tested.l0 > 1.0 && made.tested.rows > 1000, "{:?}", made.tested);
    let explanations = Explanations::load(&made.explanations).unwrap();
    let explained = (0..dictionary.n_features() as u32).filter(|&feature| explanations.get(feature).is_some()).count();
    assert!(explained > 0);
    let report = std::fs::read_to_string(&made.report).unwrap();
    assert!(report.contains(&format!("Why block {}", made.layer)), "{report}");

    // What is finished is not begun again.
    let (start, before) = (Instant::now(), std::fs::read(&made.dictionary).unwrap());
    let again = adopt(&model, dir.path(), &options, &mut silent).unwrap();
    assert!(start.elapsed().as_secs() < 10 && again.layer == made.layer);
    assert!(std::fs::read(&again.dictionary).unwrap() == before);
    let work: Vec<_> = dir.path().join("work").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(work, ["state.json"], "only what a later call needs is kept");
}
