//! Floor 7: evaluators.

pub mod concepts;
