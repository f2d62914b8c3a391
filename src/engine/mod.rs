//! Floor 6: running models through llama.cpp.
