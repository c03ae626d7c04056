//! `xyd`, the daemon.

fn main() {}
