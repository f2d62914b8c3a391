//! Floor 3: training dictionaries.
