//! Random schedules against the pure half: whatever happens in whatever order, the laws in `world.rs` hold.
//!
//! A run is its seed. `XY_SIM_STEPS` sets how many inputs are fed in all, `XY_SIM_SEED` the first seed, and `XY_SIM_TRACE=1`
//! prints every input and action; a failure prints the command that replays its seed. For about an hour (a step takes 1.5
//! microseconds on a fast machine), on seeds that nobody has tried before:
//!
//! ```text
//! XY_SIM_STEPS=2000000000 XY_SIM_SEED=$(date +%s%N) \
//!     cargo test --release -p xy-actors --no-default-features --test simulation -- --nocapture
//! ```
//!
//! `docs/mutations.md` lists the bugs that were planted to see that the laws can fail.

mod random;
mod schedule;
mod world;

use schedule::Schedule;

const DEFAULT_STEPS: u64 = 1_000_000;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{variable}` is no number: {text}")),
        Err(_) => default,
    }
}

/// Names the seed of the run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: XY_SIM_SEED={} XY_SIM_STEPS=1 XY_SIM_TRACE=1 cargo test -p xy-actors --no-default-features \
                 --test simulation random",
                self.0
            );
        }
    }
}

fn run(seed: u64) -> u64 {
    let named = Seed(seed);
    Schedule::new(named.0).run()
}

#[test]
fn random_schedules_keep_the_laws() {
    let total = number("XY_SIM_STEPS", DEFAULT_STEPS);
    let mut seed = number("XY_SIM_SEED", 1);
    let mut steps = 0;
    let mut runs = 0u64;
    while steps < total {
        steps += run(seed);
        seed += 1;
        runs += 1;
    }
    println!("{steps} steps in {runs} runs");
}
