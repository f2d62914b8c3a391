//! safetensors, the container of activations and of other people's dictionaries.
