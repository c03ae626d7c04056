//! The control plane under load: how fast it answers, and whether it still does when many clients misbehave.
//!
//! `benches/control/run` builds and runs it: `control speed` and `control flood`. Both start an `xyd` of their own in a
//! temporary directory with 1,000 servers that sleep.

mod daemon;
mod echo;
mod figures;
mod flood;
mod speed;

use std::process::ExitCode;

use daemon::Daemon;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let number = |name: &str, usual: usize| {
        std::env::var(name)
            .ok()
            .map_or(usual, |text| text.parse().expect("a number of servers or connections"))
    };
    let start = |programs: &str| Daemon::start(programs.as_ref(), number("SERVERS", 1_000));
    let is_met = match arguments[..] {
        ["speed", programs] => {
            speed::run(&start(programs));
            true
        }
        ["flood", programs] => flood::run(&start(programs), number("CONNECTIONS", 10_000)),
        // What `flood` starts.
        ["flooders", place, connections] => {
            flood::be_flooders(place, connections.parse().expect("a number of connections"));
            true
        }
        // What `speed` compares with.
        ["echo", path, length] => {
            echo::be_echo(path, length.parse().expect("a length"));
            true
        }
        _ => panic!("usage: control speed|flood DIRECTORY OF PROGRAMS"),
    };
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
