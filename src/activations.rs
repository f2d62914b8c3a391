//! Floor 2: shards of residual rows on disk, with token ids, positions and document bounds.
