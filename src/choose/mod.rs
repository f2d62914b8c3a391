//! Floor 8: choosing what to steer by, by what it does.
//!
//! | module | chooses |
//! |---|---|
//! | [`learn`] | features that are distilled from an instruction, and how strongly they act |

pub mod learn;
