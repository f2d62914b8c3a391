//! Floor 4: what to do to the residual stream, as data.
