//! Plans at work: operators against a dense reference, which rows they reach, and how they compile.

mod compile;
mod fixtures;
mod layered;
mod monitors;
mod operators;
mod propagate;
mod selection;
mod traps;
