//! Floor 7: evaluators.
