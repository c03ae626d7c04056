//! What a caller waits for while children misbehave: one hangs in its start for ever, one ignores its stop, one backs off.
//!
//! `cargo run --release -p benches --bin latency` asks and operates on a hundred other children, and does the same in a
//! tree without those three; the two take turns. Printed are p50, p99 and the maximum in microseconds.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use xy_actors::child::{Child, StartContext, StartFuture, TaskChild, task};
use xy_actors::policy::State;
use xy_actors::spec::{Backoff, ChildSpec, Order, RestartIntensity, Shutdown, Strategy, SupervisorSpec};
use xy_actors::supervisor::Supervisor;

const OTHERS: usize = 100;
const ROUNDS: usize = 20;
/// Calls of each kind and round.
const CALLS: usize = 500;

/// A child whose start is never done.
struct Hangs;

impl Child for Hangs {
    fn start(&self, _: StartContext) -> StartFuture {
        Box::pin(std::future::pending())
    }
}

fn obedient() -> TaskChild {
    task(|context| async move {
        context.stopped().await;
        Ok(())
    })
}

async fn tree(troubled: bool) -> Supervisor {
    let spec = SupervisorSpec {
        order: Order::Concurrent,
        intensity: Some(RestartIntensity::new(u32::MAX, Duration::from_secs(1))),
        ..SupervisorSpec::new(Strategy::OneForOne)
    };
    let mut builder = Supervisor::builder(spec);
    for index in 0..OTHERS {
        builder = builder.child(ChildSpec::worker(index.to_string()), obedient());
    }
    if !troubled {
        return builder.start().await.expect("starts");
    }
    let hour = Duration::from_secs(3600);
    let backoff = Backoff { base: hour, max: hour, ..Backoff::default() };
    let endless = ChildSpec { shutdown: Shutdown::Infinity, ..ChildSpec::worker("stubborn") };
    let tree = builder
        .child(ChildSpec::worker("hangs"), Hangs)
        .child(endless, task(|_| std::future::pending()))
        .child(
            ChildSpec { backoff: Some(backoff), ..ChildSpec::worker("waits") },
            task(|_| async { Err("crash".into()) }),
        )
        .spawn()
        .await
        .expect("spawns");
    tree.wait_for("stubborn", |child| child.ready).await.expect("runs");
    let stopping = tree.clone();
    tokio::spawn(async move { stopping.stop("stubborn", None).await });
    for (id, state) in
        [("hangs", State::Starting), ("stubborn", State::Stopping), ("waits", State::Restarting)]
    {
        tree.wait_for(id, |child| child.state == state).await.expect("is in trouble");
    }
    tree
}

#[derive(Debug, Clone, Copy)]
enum Call {
    WhichChild,
    WhichChildren,
    CountChildren,
    Stop,
    Start,
    Restart,
}

const ALL: [Call; 6] =
    [Call::WhichChild, Call::WhichChildren, Call::CountChildren, Call::Stop, Call::Start, Call::Restart];

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::WhichChild => "which_child",
            Self::WhichChildren => "which_children",
            Self::CountChildren => "count_children",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }

    async fn make(self, tree: &Supervisor, child: &str) {
        match self {
            Self::WhichChild => drop(tree.which_child(child).await.expect("answers")),
            Self::WhichChildren => drop(tree.which_children().await.expect("answers")),
            Self::CountChildren => drop(tree.count_children().await.expect("answers")),
            Self::Stop => drop(tree.stop(child, None).await.expect("answers")),
            Self::Start => drop(tree.start(child, None).await.expect("answers")),
            Self::Restart => drop(tree.restart(child, None).await.expect("answers")),
        }
    }
}

/// Makes calls of one kind about one child after the other, and notes how long each took.
async fn measure(call: Call, tree: &Supervisor, times: &mut Vec<Duration>) {
    for index in 0..CALLS {
        let child = (index % OTHERS).to_string();
        if matches!(call, Call::Start) {
            tree.stop(child.as_str(), None).await.expect("answers");
        }
        let begun = Instant::now();
        call.make(tree, &child).await;
        times.push(begun.elapsed());
        if matches!(call, Call::Stop) {
            tree.start(child.as_str(), None).await.expect("answers");
        }
    }
}

fn cells(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let mut text = String::new();
    for part in [0.5, 0.99, 1.0] {
        write!(text, " {:.1} |", at(part)).expect("writes to memory");
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| call | calm p50 (us) | p99 | max | troubled p50 | p99 | max |");
    println!("|---|---|---|---|---|---|---|");
    let (calm, troubled) = (tree(false).await, tree(true).await);
    for call in ALL {
        let (mut before, mut during) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            measure(call, &calm, &mut before).await;
            measure(call, &troubled, &mut during).await;
        }
        println!("| {} |{}{}", call.name(), cells(&mut before), cells(&mut during));
    }
    for id in ["hangs", "stubborn", "waits"] {
        let state = troubled.which_child(id).await.expect("answers").state;
        assert!(!matches!(state, State::Running | State::Stopped), "{id} was in trouble all the time");
    }
}
