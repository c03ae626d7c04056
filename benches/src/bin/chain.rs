//! Supervisors nested in each other: how long they take to start, and how long a crash at the bottom to end them all.
//!
//! `cargo run --release -p benches --bin chain` measures chains of 100 and 1000 on one thread, beside hand-written ractor
//! actors that start the next one and fail with it; the two take turns. Printed are medians and spread in milliseconds.

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use xy_actors::child::task;
use xy_actors::spec::{ChildSpec, RestartIntensity, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, supervisor};

const ROUNDS: usize = 11;

/// How long a chain took to start and to end.
type Times = (Duration, Duration);

async fn xy(depth: usize) -> Times {
    let (started, mut starts) = mpsc::channel(1);
    let leaf = task(move |_| {
        let (crash, crashed) = tokio::sync::oneshot::channel::<()>();
        started.try_send(crash).expect("room");
        async move {
            // The sender goes when it is to crash.
            drop(crashed.await);
            Err("crash".into())
        }
    });
    let brittle = || SupervisorSpec {
        intensity: Some(RestartIntensity::new(0, Duration::from_secs(1))),
        ..SupervisorSpec::new(Strategy::OneForOne)
    };
    let mut nested = supervisor(brittle()).child(ChildSpec::worker("leaf"), leaf);
    for _ in 2..depth {
        nested = supervisor(brittle()).child(ChildSpec::supervisor("s"), nested);
    }
    let builder = Supervisor::builder(brittle()).child(ChildSpec::supervisor("s"), nested);
    let begun = Instant::now();
    let tree = builder.start().await.expect("starts");
    let crash = starts.recv().await.expect("starts");
    let start = begun.elapsed();
    let begun = Instant::now();
    drop(crash);
    tree.ended().await;
    (start, begun.elapsed())
}

/// One link of a hand-written chain. It starts the next in a message of its own: a start within a start is a stack frame.
struct Link {
    started: mpsc::Sender<ActorRef<()>>,
}

impl Actor for Link {
    type Msg = ();
    type State = usize;
    type Arguments = usize;

    async fn pre_start(&self, myself: ActorRef<()>, below: usize) -> Result<usize, ActorProcessingErr> {
        if below == 0 {
            self.started.try_send(myself)?;
        } else {
            myself.send_message(())?;
        }
        Ok(below)
    }

    async fn handle(
        &self,
        myself: ActorRef<()>,
        (): (),
        below: &mut usize,
    ) -> Result<(), ActorProcessingErr> {
        if *below == 0 {
            return Err("crash".into());
        }
        let next = Link { started: self.started.clone() };
        Actor::spawn_linked(None, next, *below - 1, myself.get_cell()).await?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        _: &mut usize,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            _ => Ok(()),
        }
    }
}

async fn ractor(depth: usize) -> Times {
    let (started, mut starts) = mpsc::channel(1);
    let begun = Instant::now();
    let (_root, ended) = Actor::spawn(None, Link { started }, depth).await.expect("starts");
    let leaf = starts.recv().await.expect("starts");
    let start = begun.elapsed();
    let begun = Instant::now();
    leaf.send_message(()).expect("lives");
    ended.await.expect("ends");
    (start, begun.elapsed())
}

fn cell(times: &mut [Duration]) -> (f64, String) {
    times.sort();
    let at = |index: usize| times[index].as_secs_f64() * 1e3;
    let median = at(times.len() / 2);
    (median, format!("{median:.2} ({:.2}..{:.2})", at(0), at(times.len() - 1)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| chain | raw ractor (ms) | xy (ms) | ratio |");
    println!("|---|---|---|---|");
    for depth in [100, 1000] {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let (raw, ours) = (ractor(depth).await, xy(depth).await);
            for (list, time) in times.iter_mut().zip([raw.0, ours.0, raw.1, ours.1]) {
                list.push(time);
            }
        }
        let [raw_start, start, raw_end, end] = &mut times;
        for (what, raw, ours) in [("start", raw_start, start), ("escalate", raw_end, end)] {
            let ((floor, raw), (median, ours)) = (cell(raw), cell(ours));
            println!("| {depth} supervisors, {what} | {raw} | {ours} | {:.2} |", median / floor);
        }
    }
}
