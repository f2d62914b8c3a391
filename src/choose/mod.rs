//! Floor 8: choosing what to steer by, by what it does.
//!
//! | module | chooses |
//! |---|---|
//! | [`portrait`] | nothing: it shows one feature whole |
//! | [`prompted`] | features that the model itself turns when it is told |
//! | [`learn`] | features that are distilled from an instruction, and how strongly they act |

pub mod learn;
pub mod portrait;
pub mod prompted;
