//! Floor 1: the one memory map, GGUF, safetensors, NumPy's and torch's files, and writing by temp file and rename.
//!
//! | module | owns |
//! |---|---|
//! | [`map`](Map) | the only memory map of the library |
//! | `input` | files that are read: regular ones, of a limited size: [`open`], [`read_text`] |
//! | [`atomic`](write_atomic) | files that appear whole or not at all |
//! | [`Lock`] | one writer at a time |
//! | [`gguf`] | the container of models, dictionaries and control vectors: checked reader, streaming writer |
//! | [`safetensors`] | the container of activations and of other people's dictionaries |
//! | [`npy`] | NumPy's arrays, alone and in archives: checked reader, streaming writer |
//! | `zip` | the directory of an archive, whose entries are used where they lie |
//! | `torch` | torch's pickles and storages; nothing in a pickle is run |
//! | `text` | text files: whole or line by line, anything else refused by name |
//! | `json` | where a JSON text is wrong, with the path of the key |
//! | [`tensors`](Tensors) | named arrays, whichever of these containers they come in |
//!
//! Readers look at headers only; tensor data stays in the map until somebody asks for its bytes.

#[cfg(target_endian = "big")]
compile_error!("tiller reads little-endian files in place and has not been written for big-endian machines");

mod allowance;
mod atomic;
pub mod gguf;
mod input;
pub(crate) mod json;
mod lock;
mod map;
pub mod npy;
pub mod safetensors;
mod sink;
mod source;
mod tensors;
pub(crate) mod text;
mod torch;
mod view;
mod zip;

pub use atomic::{check_writable, write_atomic, write_atomic_by_name};
pub use input::{for_each_line, open, read, read_text_if_there, reserve, room, zeros};
pub use lock::Lock;
pub use map::Map;
pub use sink::Sink;
pub use tensors::{Tensors, UNNAMED};
pub use text::{name_contents, read_text};
pub use view::{Dtype, View};
