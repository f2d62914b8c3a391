//! Floor 9: any model made steerable on the machine it runs on, in a given time.
//!
//! [`adopt`] harvests rows of a few layers, trains a small dictionary on each, explains it and calculates how much more the
//! model would speak of a few concepts if it were steered by their words, at equal cost
//! ([`expected`](crate::eval::expected)). The layer where that works best gets the rest of the time: more rows, a larger
//! dictionary, explanations, a self-test, and a report that says what was measured and why that layer was taken.
//!
//! Before that it learns a few instructions ([`learn`](crate::choose::learn)): they steer where a small dictionary has nothing.
//! The shares below are of the time that is left then.
//!
//! | until this share of the time | what | file |
//! |---|---|---|
//! | 0.02 | how fast the model runs, and whether a copy with weights of another type runs faster | `harvest.rs` |
//! | a third of all | features of some instructions | `starter.rs` |
//! | 0.16 | rows of all candidate layers, in one pass | `harvest.rs` |
//! | 0.36 | for each a dictionary, explanations, expected gains | `layers.rs` |
//! | 0.68 | rows of the best layer | `harvest.rs` |
//! | 0.80 | the dictionary | `build.rs` |
//! | 0.97 | statistics, explanations, self-test, gains, the report | `build.rs`, `report.rs` |
//!
//! What is done is kept in `work/`: after a crash or a cancelled run the next call goes on, with the time that is left. When
//! a finished adoption is given more minutes, all of the additional time goes to the layer that was taken.

mod build;
mod clock;
mod harvest;
mod layers;
mod report;
mod starter;
mod state;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::engine::Document;
use crate::error::{Error, Result};
use crate::eval::concepts::Suite;
use crate::file::Lock;
use crate::model::Model;
use crate::progress::Progress;
use clock::Clock;
pub use state::{Learned, Shown, Tested, Tried};
use state::{Settings, State};

/// How a model is adopted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time that it may take, in minutes; 3 at least.
    pub minutes: f64,
    /// Text to learn from; without any the model writes its own.
    pub text: Vec<Document>,
    /// Layers to try; none: three between the middle and five sixths of the depth.
    pub layers: Vec<usize>,
    /// Features of the dictionary; 0: one for a hundred rows.
    pub features: usize,
    /// Threads; 0 takes all.
    pub threads: usize,
    /// Layers that go to a GPU, if this build has one.
    pub gpu_layers: usize,
    /// Instructions that are learned, as many as a third of the time allows.
    pub instructions: Vec<String>,
    /// Concepts to choose the layer and to measure the result by.
    pub suite: Suite,
    /// Keeps the rows and the trial dictionaries in `work/`.
    pub keep: bool,
}

impl Options {
    /// The defaults: half an hour, the built-in concepts.
    ///
    /// # Errors
    /// See [`Suite::built_in`].
    pub fn new() -> Result<Self> {
        Ok(Self {
            minutes: 30.0,
            text: Vec::new(),
            layers: Vec::new(),
            features: 0,
            threads: 0,
            gpu_layers: 0,
            instructions: starter::INSTRUCTIONS.map(str::to_owned).to_vec(),
            suite: Suite::built_in()?,
            keep: false,
        })
    }
}

/// What an adoption made.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The dictionary, a GGUF file.
    pub dictionary: PathBuf,
    /// Its explanations, JSONL.
    pub explanations: PathBuf,
    /// What was learned, each with its file.
    pub learned: Vec<Learned>,
    /// What was measured, Markdown.
    pub report: PathBuf,
    /// The layer that it is of.
    pub layer: usize,
    /// The layers that were tried.
    pub tried: Vec<Tried>,
    /// How the dictionary did.
    pub tested: Tested,
    /// Seconds that it took, earlier calls included.
    pub seconds: f64,
}

/// What one adoption works with.
struct Job<'a> {
    path: &'a Path,
    model: Model,
    directory: &'a Path,
    work: PathBuf,
    options: &'a Options,
    clock: Clock<'a>,
    state: State,
}

/// Makes `model` steerable: writes `dictionary.gguf`, `dictionary.jsonl` and `report.md` to `directory`.
///
/// Progress counts seconds of [`Options::minutes`]; its note says what is being done. A cancelled call may be made again:
/// it goes on where this one ended.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) for options out of range or too little text for a dictionary;
/// [`Mismatch`](crate::Kind::Mismatch) if `directory` holds an adoption of another model or with other options;
/// [`Io`](crate::Kind::Io) if another process is adopting into it;
/// [`Cancelled`](crate::Kind::Cancelled); what harvesting, training and steering return.
pub fn adopt(model: &Path, directory: &Path, options: &Options, progress: &mut Progress<'_>) -> Result<Adopted> {
    let started = Instant::now();
    adopt_by(&|| started.elapsed().as_secs_f64(), model, directory, options, progress)
}

/// As [`adopt`], by the clock `seconds`, which tells how many have passed since some moment: the time that is left and the
/// speeds that sizes are chosen by are measured with it alone.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_by(
    seconds: &dyn Fn() -> f64,
    model: &Path,
    directory: &Path,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Adopted> {
    if !(options.minutes >= 3.0 && options.minutes.is_finite()) {
        return Err(Error::argument(format!("adopt: expected 3 minutes or more, found {}", options.minutes)));
    }
    if options.suite.concepts.len() < 2 {
        return Err(Error::argument("adopt: expected a suite of two concepts or more"));
    }
    let opened = Model::open(model)?;
    let layers = layers::candidates(options, opened.n_layer())?;
    let work = directory.join("work");
    std::fs::create_dir_all(&work).map_err(|e| Error::io("create", &work, e))?;
    let _held = Lock::of_directory(directory)?;
    let settings = Settings {
        model: opened.fingerprint().to_owned(),
        layers,
        features: options.features,
        text: text::identity(&options.text),
    };
    let mut state = State::open(&work, settings)?;
    state.give(options.minutes * 60.0);
    let clock = Clock::new(seconds, options.minutes * 60.0 - state.earlier, state.spent);
    let mut job = Job { path: model, model: opened, directory, work, options, clock, state };
    let made = job.run(progress);
    job.save()?;
    made
}

impl Job<'_> {
    fn run(&mut self, progress: &mut Progress<'_>) -> Result<Adopted> {
        let text = self.text(progress)?;
        self.speed(&text, progress)?;
        self.starter(progress)?;
        self.try_layers(&text, progress)?;
        self.build(&text, progress)?;
        let tested = match &self.state.tested {
            Some(tested) => tested.clone(),
            None => return Err(Error::numeric("adopt: nothing was tested")),
        };
        let layer = self.layer()?;
        self.save()?;
        let report = self.report(&tested)?;
        if !self.options.keep {
            self.clear()?;
        }
        Ok(Adopted {
            dictionary: self.dictionary(),
            explanations: self.explanations(),
            learned: self.state.learned.clone(),
            report,
            layer,
            tried: self.state.tried.clone(),
            tested,
            seconds: self.state.earlier + self.clock.elapsed(),
        })
    }

    fn dictionary(&self) -> PathBuf {
        self.directory.join("dictionary.gguf")
    }

    fn explanations(&self) -> PathBuf {
        self.directory.join("dictionary.jsonl")
    }

    /// The layer that was chosen.
    fn layer(&self) -> Result<usize> {
        // Of layers that steer as well, the one nearest to two thirds of the depth.
        let off = |tried: &Tried| (3 * tried.layer + 3).abs_diff(2 * self.model.n_layer());
        let best = self.state.tried.iter().max_by(|a, b| a.gain().total_cmp(&b.gain()).then(off(b).cmp(&off(a))));
        best.map(|tried| tried.layer).ok_or_else(|| Error::numeric("adopt: no layer was tried"))
    }

    fn save(&mut self) -> Result<()> {
        self.state.spent = self.clock.elapsed();
        self.state.save(&self.work)
    }

    fn threads(&self) -> usize {
        match self.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// Removes what only going on needs, but not the state: a finished adoption is not begun again.
    fn clear(&self) -> Result<()> {
        let entries = self.work.read_dir().map_err(|e| Error::io("read", &self.work, e))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else if path.file_name().is_some_and(|name| name != state::FILE) {
                std::fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(())
    }
}
