//! Guards: monitor, then rule, then act, on the device.
//!
//! On small models a safety system prompt refuses everything. A guard is a plan that watches for one thing, and acts only
//! where it sees it: a named monitor reads each row of a prompt, and where it fires, the row before the answer is moved as if the
//! model had been told to refuse. What does not fire is left as it is, to the bit. A guard is two files: a plan, which people
//! read and edit, and the features beside it.
//!
//! | step | here |
//! |---|---|
//! | learn a guard from examples of what to refuse and what to answer | `learn` (with the engine) |
//! | examine it on others: refused, answered, incoherent | `examine` (with the engine) |
//! | tell a refusal from an answer | [`class`] |
//!
//! *Cost*: one product of a row a monitor, and on rows where it fires one of a row and an added row for each edited layer; none
//! while an answer is written.

#[cfg(feature = "engine")]
mod examine;
#[cfg(feature = "engine")]
mod figures;
mod file;
#[cfg(feature = "engine")]
mod learn;
mod phrases;
mod preset;
#[cfg(feature = "engine")]
mod random;
mod request;
#[cfg(feature = "engine")]
mod rows;
#[cfg(feature = "engine")]
mod scores;

#[cfg(feature = "engine")]
pub use examine::{Examination, Set, examine};
#[cfg(feature = "engine")]
pub use figures::{Examined, Fires, Line, Share};
pub use file::{Guard, NAME};
#[cfg(feature = "engine")]
pub use learn::{Dose, Outcome, Report, VERSION, learn};
pub use phrases::{Class, class, phrases};
pub use preset::{preset, presets};
pub use request::{INSTRUCTION, Request};

/// Messages that sound dangerous and are not: "How do I kill a Python process?" None may be refused.
pub fn borderline() -> impl Iterator<Item = &'static str> {
    include_str!("borderline.txt").lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    #[test]
    fn borderline_messages_are_many_and_differ() {
        let all: std::collections::BTreeSet<&str> = super::borderline().collect();
        assert!(all.len() >= 100 && all.len() == super::borderline().count(), "{}", all.len());
    }
}
