//! `tiller bench --what steering`, `--what behaviours` and `--what wishes`: what steers a model to an instruction, side by
//! side; wishes are what users tried, learned and used with all defaults on one message.
//!
//! | method | what |
//! |---|---|
//! | `unsteered` | the model as it is |
//! | `asked` | told in the prompt, where the learner found that it changes the answers most |
//! | `words` | features of `--dictionary` by the concept's words |
//! | `prompted` | features of `--dictionary` that asking turns up |
//! | `delta` | the mean difference that asking makes at one layer, added there |
//! | `constant` | learned, the constant form: a control vector |
//! | `gated` | learned, the gated form |
//! | `learned` | learned, in the form that the learner chose |
//! | `both` | two of those at once |
//! | `random` | [`NULLS`] control vectors of random directions, as long as constant forms are at each layer |
//!
//! `--what talk` asks how they last: settings are `chat` and `later`, 1,500 tokens of other talk after the instruction.
//!
//! Concepts are scored by held-out words per 100 tokens over unsteered, in the chat template and in plain text; behaviours by
//! the detectors of [`Behaviour`]. Prompts that score are seen by nothing else: the learner has messages of its own, and the
//! strengths of `words`, `prompted` and `delta` are searched on others. Every case lies in `--keep FILE` as soon as it is done, with its
//! texts, so that a run that was cut goes on where it was; what was learned lies beside it.
//!
//! Cases are `gain/<setting>/<method>/<concept>` and the same for `perplexity`, `distinct`, `loops` (shares) and `ms` (a token,
//! all prompts side by side); behaviours have `score` and, of learned methods, `share` (of what asking does). Intervals hold
//! 95 % of a bootstrap over prompts, of medians over concepts.

mod figures;
mod learned;
mod methods;
mod prompts;
mod records;
mod tasks;

use std::path::Path;

use tiller::choose::learn;
use tiller::engine::{Engine, Generate};
use tiller::eval::trial::SEQUENCES;
use tiller::model::Model;
use tiller::{Error, Result};

use super::{Args, Lines, TOKENS, model_name};
use crate::open;
use methods::{Method, Workbench};
use records::Records;
use tasks::{Setting, Task};

/// Random control vectors that every concept stands beside: each concept draws its share, as long as its own.
const NULLS: usize = 30;

/// Tokens that `tiller run` writes where nobody says how many.
const AS_RUN: usize = 100;
/// Tokens of the context for talk: eight prompts with all that was said before.
const TALK_CONTEXT: usize = 16_384;

/// Which of the suites.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    Concepts,
    Behaviours,
    Wishes,
    Talk,
}

pub(super) fn run(args: &Args, suite: Suite, lines: &mut Lines<'_>) -> Result<()> {
    let tasks = match suite {
        Suite::Concepts => tasks::concepts(&super::concepts::suite(args)?),
        Suite::Behaviours => tasks::behaviours(&args.concepts)?,
        Suite::Wishes => tasks::wishes(),
        Suite::Talk => tasks::pairs(&super::concepts::suite(args)?),
    };
    for path in &args.model {
        model(args, path, suite, &tasks, lines)?;
    }
    Ok(())
}

/// All tasks on one model.
fn model(args: &Args, path: &Path, suite: Suite, tasks: &[Task], lines: &mut Lines<'_>) -> Result<()> {
    let file = Model::open(path)?;
    let dictionary = match (&args.dictionary, suite) {
        (Some(dictionary), Suite::Concepts) => {
            Some((dictionary.clone(), open::dictionary(dictionary, &file, lines.out)?))
        }
        _ => None,
    };
    // What another learner made is another case.
    let version = format!("{}/{}", file.fingerprint(), learn::VERSION);
    let max_tokens = args.max_tokens.unwrap_or(if suite == Suite::Wishes { AS_RUN } else { TOKENS });
    let mut records = Records::open(args.keep.as_deref(), &version, max_tokens)?;
    let context = if suite == Suite::Talk { TALK_CONTEXT } else { 4096 };
    let engine: Engine = args.machine.engine(path, context, SEQUENCES)?;
    let mut bench =
        Workbench::new(engine, &version, dictionary, args, (NULLS.div_ceil(tasks.len().max(1)), lines.out))?;
    bench.max_tokens = max_tokens;
    if suite == Suite::Wishes {
        bench.sampling = Generate::chat();
    }
    let settings: &[Setting] = match (suite, bench.has_template()) {
        (Suite::Concepts, true) => &[Setting::Chat, Setting::Plain],
        (Suite::Concepts, false) => &[Setting::Plain],
        (Suite::Talk, true) => &[Setting::Chat, Setting::Later],
        (Suite::Behaviours | Suite::Wishes, true) => &[Setting::Chat],
        (Suite::Behaviours | Suite::Wishes | Suite::Talk, false) => {
            return Err(Error::unsupported(format!("{}: this is asked for in a chat template", path.display())));
        }
    };
    let name = model_name(path);
    let methods = bench.methods(suite);
    if let Some(other) = args.case.split(',').find(|c| !c.is_empty() && !methods.iter().any(|m| m.name() == *c)) {
        let known: Vec<&str> = methods.iter().map(|m| m.name()).collect();
        return Err(Error::argument(format!("--case: expected some of {}, found {other:?}", known.join(", "))));
    }
    for task in tasks {
        for &setting in settings {
            for method in methods.iter().copied().filter(|&method| is_wanted(args, method)) {
                if records.get(setting, method, task.kept_as(method)).is_some() {
                    continue;
                }
                // What cannot be done (an instruction that the model does not follow) is told and left out.
                match bench.measure(task, setting, method) {
                    Ok(Some(record)) => records.add(record)?,
                    Ok(None) => {}
                    Err(error) if error.kind() == tiller::Kind::Unsupported => {
                        lines.out.note(format!("warning: {} {}: {}", task.name, method.name(), error.message()));
                    }
                    Err(error) => return Err(error),
                }
            }
            if suite != Suite::Wishes {
                figures::tell(&name, task, setting, &records, lines)?;
            }
        }
    }
    if suite == Suite::Wishes {
        return figures::wishes(&name, tasks, &records, lines);
    }
    if suite == Suite::Talk {
        figures::kept(&name, tasks, &records, lines)?;
    }
    for &setting in settings {
        figures::nulls(&name, tasks, setting, &records, lines)?;
        figures::medians(&name, tasks, setting, &records, lines)?;
    }
    if !lines.out.json() {
        figures::texts(tasks, settings, &records, lines.out)?;
    }
    Ok(())
}

/// Whether `--case` names a method, or none; all are held against the unsteered model.
fn is_wanted(args: &Args, method: Method) -> bool {
    args.case.is_empty() || method == Method::Unsteered || args.case.split(',').any(|name| name == method.name())
}

impl Method {
    /// The methods that a suite compares.
    fn of(suite: Suite, dictionary: bool) -> Vec<Self> {
        let learned = [Self::Unsteered, Self::Asked, Self::Constant, Self::Gated, Self::Random];
        let all = learned.into_iter().chain([Self::Delta, Self::Words, Self::Prompted, Self::Learned, Self::Both]);
        let wanted = |method: &Self| match suite {
            Suite::Concepts => match method {
                Self::Words | Self::Prompted => dictionary,
                _ => !matches!(method, Self::Learned | Self::Both),
            },
            Suite::Talk => matches!(method, Self::Unsteered | Self::Asked | Self::Learned | Self::Both),
            Suite::Wishes => matches!(method, Self::Unsteered | Self::Asked | Self::Learned),
            Suite::Behaviours => matches!(method, Self::Unsteered | Self::Asked | Self::Constant | Self::Gated),
        };
        all.filter(wanted).collect()
    }
}
