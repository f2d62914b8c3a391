//! Floor 7: evaluators.

pub mod concepts;
pub mod quality;
