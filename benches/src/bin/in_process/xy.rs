//! xy with actor children and with task children.

use std::time::Instant;

use ractor::ActorRef;
use tokio::sync::mpsc;
use xy_actors::child::{actor, task};
use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, SupervisorBuilder};

use crate::floor::Worker;
use crate::{CRASHES, Figure, GROUP, GROUPS, MANY, STORM, STORMS, median_us, resident};

fn builder(figure: Figure) -> (SupervisorBuilder, usize) {
    let (strategy, count) = match figure {
        Figure::Crash => (Strategy::OneForOne, 1),
        Figure::Storm => (Strategy::OneForOne, STORM),
        Figure::Start | Figure::Memory => (Strategy::OneForOne, MANY),
        Figure::Group => (Strategy::OneForAll, GROUP),
    };
    // The window is that of a supervisor that would give up, with an intensity that these crashes do not reach.
    let intensity = xy_actors::spec::RestartIntensity::new(u32::MAX, std::time::Duration::from_secs(1));
    let spec = SupervisorSpec { intensity: Some(intensity), ..SupervisorSpec::new(strategy) };
    (Supervisor::builder(spec), count)
}

pub(crate) async fn actors(figure: Figure) -> f64 {
    let (sender, starts) = mpsc::channel(2 * MANY);
    let before = (Instant::now(), resident());
    let (mut builder, count) = builder(figure);
    for index in 0..count {
        let started = sender.clone();
        let child = actor(move || (Worker { started: started.clone() }, ()));
        builder = builder.child(ChildSpec::worker(index.to_string()), child);
    }
    let tree = builder.spawn().await.expect("starts");
    let result = drive(figure, count, before, starts).await;
    drop(tree);
    result
}

/// Measures children that are actors, whoever supervises them.
pub(crate) async fn drive(
    figure: Figure,
    count: usize,
    (begun, memory): (Instant, f64),
    mut starts: mpsc::Receiver<(Instant, ActorRef<Instant>)>,
) -> f64 {
    let mut actors = Vec::with_capacity(count);
    for _ in 0..count {
        actors.push(starts.recv().await.expect("starts").1);
    }
    match figure {
        Figure::Start => begun.elapsed().as_secs_f64() * 1e3,
        Figure::Memory => (resident() - memory) / count as f64,
        Figure::Crash => {
            let mut times = Vec::with_capacity(CRASHES);
            for _ in 0..CRASHES {
                let crash = Instant::now();
                actors.pop().expect("one").send_message(crash).expect("lives");
                let (start, actor) = starts.recv().await.expect("starts");
                times.push(start - crash);
                actors.push(actor);
            }
            median_us(times)
        }
        Figure::Storm => {
            let begin = Instant::now();
            for _ in 0..STORMS {
                for actor in actors.drain(..) {
                    actor.send_message(begin).expect("lives");
                }
                for _ in 0..count {
                    actors.push(starts.recv().await.expect("starts").1);
                }
            }
            (STORMS * count) as f64 / begin.elapsed().as_secs_f64()
        }
        Figure::Group => {
            let begin = Instant::now();
            for _ in 0..GROUPS {
                actors.pop().expect("some").send_message(begin).expect("lives");
                actors.clear();
                for _ in 0..count {
                    actors.push(starts.recv().await.expect("starts").1);
                }
            }
            begin.elapsed().as_secs_f64() * 1e3 / GROUPS as f64
        }
    }
}

/// What a task says when it starts: when, and how to crash it.
type Start = (Instant, mpsc::Sender<()>);

pub(crate) async fn tasks(figure: Figure) -> f64 {
    let (sender, mut starts) = mpsc::channel::<Start>(2 * MANY);
    let (begun, memory) = (Instant::now(), resident());
    let (mut builder, count) = builder(figure);
    for index in 0..count {
        let started = sender.clone();
        let child = task(move |context| {
            let (order, mut orders) = mpsc::channel(1);
            started.try_send((Instant::now(), order)).expect("room");
            async move {
                tokio::select! {
                    _ = orders.recv() => Err("crash".into()),
                    () = context.stopped() => Ok(()),
                }
            }
        });
        builder = builder.child(ChildSpec::worker(index.to_string()), child);
    }
    let tree = builder.spawn().await.expect("starts");
    let mut orders = Vec::with_capacity(count);
    for _ in 0..count {
        orders.push(starts.recv().await.expect("starts").1);
    }
    let result = match figure {
        Figure::Start => begun.elapsed().as_secs_f64() * 1e3,
        Figure::Memory => (resident() - memory) / count as f64,
        Figure::Crash => {
            let mut times = Vec::with_capacity(CRASHES);
            for _ in 0..CRASHES {
                let crash = Instant::now();
                orders.pop().expect("one").try_send(()).expect("lives");
                let (start, order) = starts.recv().await.expect("starts");
                times.push(start - crash);
                orders.push(order);
            }
            median_us(times)
        }
        Figure::Storm => {
            let begin = Instant::now();
            for _ in 0..STORMS {
                for order in orders.drain(..) {
                    order.try_send(()).expect("lives");
                }
                for _ in 0..count {
                    orders.push(starts.recv().await.expect("starts").1);
                }
            }
            (STORMS * count) as f64 / begin.elapsed().as_secs_f64()
        }
        Figure::Group => {
            let begin = Instant::now();
            for _ in 0..GROUPS {
                let last = orders.pop().expect("some");
                last.try_send(()).expect("lives");
                let old = std::mem::take(&mut orders);
                for _ in 0..count {
                    orders.push(starts.recv().await.expect("starts").1);
                }
                drop((last, old));
            }
            begin.elapsed().as_secs_f64() * 1e3 / GROUPS as f64
        }
    };
    drop(tree);
    result
}
