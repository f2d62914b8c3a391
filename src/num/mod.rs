//! Floor 0: dot kernels, top-k, linear algebra, statistics, random numbers.
