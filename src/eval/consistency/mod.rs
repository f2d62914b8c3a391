//! Does a model answer the same question alike, however it is asked, and can steering make it (arXiv 2501.11036)?
//!
//! Groups of paraphrases ([`groups`]) are answered greedily and in few tokens; pairs of answers agree or do not
//! ([`answers`]). On some groups the features are found that tell the two apart ([`contrast`]), on others how hard they are
//! pushed, and the rest is scored: agreement and accuracy before and after, and what it costs in KL, perplexity, and
//! multiple-choice answers. Groups of one kind stay together, so that no wording is both fitted on and scored.
//!
//! Beside it stand the same edits with signs drawn anew: what any push of these features does.
//!
//! *Cost*: every text is answered once without a plan; those to choose on once for every strength, those to score on once
//! with the plan and once for every control.

pub mod answers;
mod bench;
pub mod contrast;
pub mod groups;
mod report;
mod request;
mod run;
mod split;

pub use report::{Cost, Dose, Example, Report};
pub use request::Request;
pub use run::consistency;
