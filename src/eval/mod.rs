//! Floor 7: evaluators.
//!
//! | module | asks |
//! |---|---|
//! | [`behaviours`] | how formal, angry, French, … is a text? |
//! | [`bootstrap`] | how far would a figure move with other prompts? |
//! | [`card`] | what does a plan do, what else does it do, and what is the verdict? (feature `engine`) |
//! | [`choices`] | does a plan harm what the model knows? |
//! | [`codes`] | what are the codes of rows in files, and the rows of codes? |
//! | [`concepts`] | does steering by a concept's words work, and how hard should it be? |
//! | [`consistency`] | does a model answer paraphrases alike, and can steering make it? (feature `engine`) |
//! | [`diagnosis`] | what is wrong with a dictionary that does not fit? |
//! | [`divergence`] | how far does a plan move what comes next? (feature `engine`) |
//! | [`drift`] | what does quantizing the model do to a dictionary? (feature `engine`) |
//! | [`entanglement`] | do features say one concept each, and does steering by one leave the others alone? |
//! | [`evaluate`] | evaluators by name, for callers in any language (feature `engine`) |
//! | [`expected`] | what does a plan do to the next word, before any is drawn? (feature `engine`) |
//! | [`explained`] | which way to explain features is best? (feature `engine`) |
//! | [`firing`] | on which tokens of a text do features fire? (feature `engine`) |
//! | [`fluency`] | is a text whole, or does it loop, or is it gibberish? |
//! | [`gain`] | how much more does a model speak of a concept when steered by its words? (feature `engine`) |
//! | [`mpc`] | do single features say what concepts' log-odds are? |
//! | [`output`] | which features that read a concept also make the model write it? (feature `engine`) |
//! | [`quality`] | how well does a dictionary describe rows? |
//! | [`self_test`] | does it fit the model at hand, and does the model notice its reconstructions? (feature `engine`) |
//! | [`sinks`] | which rows lie so far from all others that no figure may count them? |
//! | [`temporal`] | are the side effects that a temporal model predicts the ones that the model has? (feature `engine`) |
//! | [`trial`] | what does a model write with a plan and without, and how fluent is it? (feature `engine`) |
//! | [`universality`] | are the features of two dictionaries, or models, the same? |

pub mod behaviours;
pub mod bootstrap;
#[cfg(feature = "engine")]
pub mod card;
pub mod choices;
pub mod codes;
pub mod concepts;
#[cfg(feature = "engine")]
pub mod consistency;
pub mod diagnosis;
#[cfg(feature = "engine")]
pub mod divergence;
#[cfg(feature = "engine")]
pub mod drift;
pub mod entanglement;
#[cfg(feature = "engine")]
pub mod evaluate;
#[cfg(feature = "engine")]
pub mod expected;
#[cfg(feature = "engine")]
pub mod explained;
#[cfg(feature = "engine")]
pub mod firing;
pub mod fluency;
#[cfg(feature = "engine")]
pub mod gain;
pub mod mpc;
#[cfg(feature = "engine")]
pub mod output;
pub mod quality;
#[cfg(feature = "engine")]
pub mod self_test;
pub mod sinks;
#[cfg(feature = "engine")]
pub mod temporal;
#[cfg(feature = "engine")]
pub mod trial;
pub mod universality;
