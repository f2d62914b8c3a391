//! Floor 3: what features mean, in words.
