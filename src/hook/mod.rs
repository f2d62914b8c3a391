//! Floor 5: rows in, rows out, inside a live ggml graph.
