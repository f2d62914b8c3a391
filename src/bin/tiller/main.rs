//! The command `tiller`.

fn main() {}
