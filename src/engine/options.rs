//! How a model is opened, and what of that fits the model and the machine.

use ggml_sys as sys;

use crate::error::{Error, Kind, Result};
use crate::model::Model;

/// Tokens of the context where neither the caller nor the model says.
const CONTEXT: usize = 4096;
/// Tokens of a context that llama.cpp can number.
const MOST: usize = i32::MAX as usize;

/// How a model is opened and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads for computing; 0 takes as many as there are processors for this process. More are not started: a thread
    /// that waits for a processor holds up all the others, which wait for it awake.
    pub threads: usize,
    /// Tokens that the context holds, over all sequences; 0 takes what the model was trained with, at most 4,096.
    pub context: usize,
    /// Tokens computed at once when text is read; no less than there are sequences.
    pub batch: usize,
    /// Sequences that may run side by side; no more than the context has tokens.
    pub sequences: usize,
    /// Layers that go to a GPU, if this build has one.
    pub gpu_layers: usize,
    /// Whether the hook is installed; without it nothing can be steered through the callback or harvested. Off only to
    /// measure what the hook costs.
    pub hook: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, context: 0, batch: 512, sequences: 1, gpu_layers: 0, hook: true }
    }
}

/// Options as they are in force.
pub(super) struct Fitted {
    pub(super) options: Options,
    /// Positions that a sequence may have.
    pub(super) positions: usize,
    /// What the caller did not ask for, or may not expect.
    pub(super) notes: Vec<String>,
}

impl Options {
    /// Fills in the defaults and refuses what llama.cpp would abort on.
    pub(super) fn fit(&self, model: &Model) -> Result<Fitted> {
        let (mut options, mut notes) = (self.clone(), Vec::new());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if options.threads > processors {
            notes.push(format!("{} threads asked for, {processors} used: one a processor", options.threads));
        }
        options.threads = if options.threads == 0 { processors } else { options.threads.min(processors) };
        // SAFETY: answers from what the build and the machine have.
        if options.gpu_layers > 0 && !unsafe { sys::llama_supports_gpu_offload() } {
            let layers = options.gpu_layers;
            notes
                .push(format!("{layers} layers asked for on a GPU, but this build has none: all run on the processor"));
        }
        options.sequences = options.sequences.max(1);
        // SAFETY: answers a constant.
        let most = unsafe { sys::llama_max_parallel_sequences() };
        if options.sequences > most {
            return Err(Error::argument(format!("sequences is {}, expected {most} or fewer", options.sequences)));
        }
        let (trained, learned) = (model.context_length(), model.learned_positions());
        if options.context == 0 {
            let trained = if trained == 0 { CONTEXT } else { trained.min(CONTEXT) };
            options.context = learned.map_or(trained, |learned| learned.min(trained)).max(options.sequences);
        }
        let context = options.context;
        if context > MOST {
            return Err(Error::argument(format!("context is {context}, expected {MOST} tokens or fewer")));
        }
        if options.sequences > context {
            let sequences = options.sequences;
            return Err(Error::argument(format!("sequences is {sequences}, but the context has {context} tokens")));
        }
        match learned {
            Some(learned) if context > learned => notes.push(format!(
                "a context of {context} tokens asked for, but the model has learned {learned} positions: no text is read \
                 beyond them"
            )),
            None if trained > 0 && context > trained => notes.push(format!(
                "the context has {context} tokens, the model was trained with {trained}: what a text has beyond them is \
                 read badly"
            )),
            _ => {}
        }
        options.batch = options.batch.clamp(1, context).max(options.sequences);
        let positions = learned.map_or(context, |learned| learned.min(context));
        Ok(Fitted { options, positions, notes })
    }
}

/// What is said of a model whose graphs have no place for the hook and which writes no text.
pub(super) fn no_decoder(model: &Model) -> Error {
    let (path, architecture) = (model.path().display(), model.architecture());
    let what = format!(
        "{path}: expected a decoder, found an encoder (general.architecture = \"{architecture}\"), which writes no text"
    );
    Error::new(Kind::Unsupported, what).hinted("take a model that generates text")
}
