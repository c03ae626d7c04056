//! The control plane under load: how fast it answers, and whether it still does when many clients misbehave.
//!
//! `benches/control/run` builds and runs it: `control speed` and `control flood`. Both start an `xyd` of their own in a
//! temporary directory with 1,000 servers that sleep.

mod daemon;
mod figures;
mod flood;
mod speed;

use daemon::Daemon;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (part, programs) = (arguments.next(), arguments.next());
    let programs = programs.unwrap_or_else(|| "target/release".to_owned());
    let number = |name: &str, usual: usize| {
        std::env::var(name)
            .ok()
            .map_or(usual, |text| text.parse().expect("a number of servers or connections"))
    };
    let start = || Daemon::start(programs.as_ref(), number("SERVERS", 1_000));
    match part.as_deref() {
        Some("speed") => speed::run(&start()),
        Some("flood") => flood::run(&start(), number("CONNECTIONS", 10_000)),
        _ => panic!("usage: control speed|flood [DIRECTORY OF PROGRAMS]"),
    }
}
