//! Conformance with OTP: one test for each case of OTP's own supervisor suite that applies, for what the suite misses,
//! and for what Elixir's dynamic and partitioned supervisors add.
//!
//! The list of rows is in `rows.rs`, that of OTP's rules in `rule_rows.rs`; a row that is not marked as not applicable declares the test of its name, so neither
//! can be without the other. `docs/otp-conformance.md` is made from the same list: `XY_WRITE_DOCS=1` rewrites it.

mod answers;
mod beyond;
mod dynamic;
mod ended;
mod later;
mod mistakes;
mod restart;
mod rows;
mod rule_rows;
mod rules;
mod scale;
mod significant;
mod start;
mod stop;
mod support;
mod topics;
mod tree;
