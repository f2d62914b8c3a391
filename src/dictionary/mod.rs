//! Floor 2: sparse dictionaries over the residual stream: encode, decode, files.
