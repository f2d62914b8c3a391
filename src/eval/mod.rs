//! Floor 7: evaluators.

pub mod concepts;
pub mod quality;
#[cfg(feature = "engine")]
pub mod self_test;
