//! Floor 8: the C border.
