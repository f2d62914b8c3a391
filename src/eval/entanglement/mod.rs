//! Does steering one concept leave the others alone (arXiv 2512.15134)?

pub mod correlation;
pub mod dci;
pub mod effect;
pub mod grammar;
pub mod probing;
pub mod sentences;
#[cfg(test)]
mod tests;
