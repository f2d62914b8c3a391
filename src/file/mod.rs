//! Floor 1: the one memory map, GGUF, safetensors, and writing by temp file and rename.
