//! Floor 2: a GGUF language model seen from outside.
