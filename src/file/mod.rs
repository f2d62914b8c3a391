//! Floor 1: the one memory map, GGUF, safetensors, and writing by temp file and rename.
//!
//! | module | owns |
//! |---|---|
//! | [`map`](Map) | the only memory map of the library |
//! | [`atomic`](write_atomic) | files that appear whole or not at all |
//! | [`gguf`] | the container of models, dictionaries and control vectors: checked reader, streaming writer |
//! | [`safetensors`] | the container of activations and of other people's dictionaries |
//!
//! Readers look at headers only; tensor data stays in the map until somebody asks for its bytes.

#[cfg(target_endian = "big")]
compile_error!("tiller reads little-endian files in place and has not been written for big-endian machines");

mod atomic;
pub mod gguf;
mod map;
pub mod safetensors;
mod sink;
mod tensors;
mod view;

pub use atomic::write_atomic;
pub use map::Map;
pub use sink::Sink;
pub use tensors::Tensors;
pub use view::{Dtype, View};
