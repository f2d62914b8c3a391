//! An adoption of the real model in the shortest time there is, cancelled on the way: it goes on where it was, ends in time,
//! and leaves a dictionary that opens, its explanations and a report.
//!
//! The time is scripted: each step that the adoption tells of takes as many seconds as the script says, so it does the same
//! work on a fast machine, a slow one and a busy one.

#![cfg(feature = "engine")]

mod support;

use std::cell::Cell;
use std::path::Path;

use support::SMOLLM;
use tiller::Kind;
use tiller::adopt::{Adopted, Options, adopt_by};
use tiller::dictionary::Dictionary;
use tiller::engine::Document;
use tiller::explain::Explanations;

const MINUTES: f64 = 3.0;

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
    ["src", "tests", "include", "bindings", "examples", "benches"]
        .iter()
        .map(|name| root.join(name))
        .filter(|path| path.is_dir())
        .for_each(|path| gather(&path, &mut all));
    all
}

/// A machine of a known speed.
struct Machine {
    now: Cell<f64>,
    /// How much longer than usual everything takes.
    busy: f64,
}

impl Machine {
    /// Seconds that a step of some work takes: a batch of 512 tokens, a batch of training rows, a strength that is tried.
    fn step(&self, what: &str) -> f64 {
        let seconds = match what {
            what if what.contains("learning") => 0.01,
            what if what.contains("training") => 0.1,
            what if what.contains("explaining") => 0.05,
            what if what.contains("steering") => 0.5,
            what if what.contains("self-test") => 0.2,
            _ => 1.0,
        };
        seconds * self.busy
    }

    /// Adopts until some work begins; what was done, in order.
    fn adopt(&self, directory: &Path, options: &Options, until: &str) -> (tiller::Result<Adopted>, Vec<String>) {
        let model = support::model(SMOLLM).expect("the model");
        let mut done: Vec<String> = Vec::new();
        let made = adopt_by(&|| self.now.get(), &model, directory, options, &mut |step| {
            self.now.set(self.now.get() + self.step(step.note));
            let what = step.note.split(" %").next().unwrap_or_default();
            let what = what.trim_end_matches(|c: char| !c.is_alphabetic());
            if done.last().is_none_or(|last| last != what) {
                done.push(what.to_owned());
            }
            until.is_empty() || what != until
        });
        (made, done)
    }
}

#[test]
fn a_cancelled_adoption_goes_on_and_ends_in_time() {
    let Some(_) = support::model(SMOLLM) else { return };
    let _turn = support::turn();
    let dir = tempfile::tempdir().unwrap();
    let (text, layers, threads) = (text(), vec![4, 9], support::THREADS);
    let mut options = Options { minutes: MINUTES, text, layers, threads, ..Options::new().unwrap() };
    options.instructions = vec!["Answer in one very short sentence.".into()];
    options.suite.concepts.truncate(2);
    options.suite.prompts.truncate(6);
    options.suite.search_prompts.truncate(3);

    let machine = Machine { now: Cell::new(1e6), busy: 1.0 };
    let (stopped, first) = machine.adopt(dir.path(), &options, "layer 9: training");
    let before = machine.now.get() - 1e6;
    println!("{before:.1} s: {first:?}");
    assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
    let others = Options { features: 512, ..options.clone() };
    let (refused, _) = machine.adopt(dir.path(), &others, "");
    assert_eq!(refused.unwrap_err().kind(), Kind::Mismatch);

    // Much later, on a machine that has become busy: there is time for half of it.
    let machine = Machine { now: Cell::new(5e6), busy: 2.0 };
    let (made, second) = machine.adopt(dir.path(), &options, "");
    let (made, seconds) = (made.unwrap(), machine.now.get() - 5e6);
    println!("{seconds:.1} s more, {:.1} in all: {second:?}", made.seconds);
    println!("block {}, {:?}, {:?}", made.layer, made.tried, made.tested);
    assert!((made.seconds - before - seconds).abs() < 1e-3, "the clock went on: {before} {seconds} {}", made.seconds);
    assert!((0.5..1.15).contains(&(made.seconds / (60.0 * MINUTES))), "{}", made.seconds);
    let begun = |work: &str| second.iter().any(|what| what == work);
    assert!(begun("rows of the chosen layer") && !begun("layer 4: training"), "what is done is kept: {second:?}");

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
    // The report claims what was seen, and no more.
    match made.tested.shown.first() {
        Some(shown) => assert!(report.contains(&shown.words) && shown.hits[1] >= shown.hits[0] + 2, "{report}"),
        None => assert!(report.contains("could not be steered") && report.contains("tiller learn"), "{report}"),
    }
    assert!(made.tested.explained > 0 && made.tested.explained <= made.tested.features.1);

    // What was learned before lies in a file of its own, and the report says how it is used.
    let [learned] = made.learned.as_slice() else { panic!("{:?}", made.learned) };
    let file = learned.file.as_ref().expect("the model follows");
    assert!(Dictionary::open(&dir.path().join(file)).unwrap().info().learned.is_some());
    assert!(learned.chat && report.contains(&format!("--steer {file}")), "{report}");

    // What is finished is not begun again.
    let before = std::fs::read(&made.dictionary).unwrap();
    let (again, done) = machine.adopt(dir.path(), &options, "");
    let again = again.unwrap();
    assert!(done.is_empty() && again.layer == made.layer, "{done:?}");
    assert!(std::fs::read(&again.dictionary).unwrap() == before);
    let work: Vec<_> = dir.path().join("work").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(work, ["state.json"], "only what a later call needs is kept");

    // More minutes go to the layer that was taken.
    let more = Options { minutes: 2.0 * MINUTES, ..options };
    let (longer, done) = machine.adopt(dir.path(), &more, "");
    let longer = longer.unwrap();
    println!("{done:?}, {:?}", longer.tested);
    assert!(done.iter().any(|what| what == "rows of the chosen layer"), "{done:?}");
    assert!(!done.iter().any(|what| what.starts_with("layer ") || what.starts_with("learning")), "{done:?}");
    assert!(longer.layer == made.layer && longer.tried.len() == 2 && longer.learned == made.learned);
    assert!(longer.tested.rows > 1000 && longer.seconds > made.seconds, "{:?}", longer.tested);
}
