//! Real programs under a process host: what they get, how they end, and that nothing of them is left.

mod support;
