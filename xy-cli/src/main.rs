//! `xyctl`, the command line.

fn main() {}
