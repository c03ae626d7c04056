//! xy with actor children and with task children.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use xy_actors::child::{Child, actor, task};
use xy_actors::spec::{ChildSpec, RestartIntensity, Strategy, SupervisorSpec};
use xy_actors::supervisor::Supervisor;

use crate::Figure;
use crate::drive::Measurement;
use crate::floor::Worker;

/// Starts a supervisor with as many of these children as the figure takes.
async fn tree<C: Child>(figure: Figure, child: impl Fn() -> C) -> Supervisor {
    let strategy = if figure == Figure::Group { Strategy::OneForAll } else { Strategy::OneForOne };
    // The window of a supervisor that would give up, with an intensity that these crashes do not reach.
    let period = Duration::from_secs(if figure == Figure::Window { 3600 } else { 1 });
    let intensity = RestartIntensity::new(u32::MAX, period);
    let spec = SupervisorSpec { intensity: Some(intensity), ..SupervisorSpec::new(strategy) };
    let mut builder = Supervisor::builder(spec);
    for index in 0..figure.children() {
        builder = builder.child(ChildSpec::worker(index.to_string()), child());
    }
    builder.spawn().await.expect("starts")
}

pub(crate) async fn actors(figure: Figure) -> f64 {
    let (measurement, starts) = Measurement::begin(figure);
    let _tree = tree(figure, || {
        let starts = starts.clone();
        actor(move || (Worker { starts: starts.clone() }, ()))
    })
    .await;
    measurement.finish().await
}

pub(crate) async fn tasks(figure: Figure) -> f64 {
    let (measurement, starts) = Measurement::begin(figure);
    let _tree = tree(figure, || {
        let starts = starts.clone();
        task(move |context| {
            let (order, mut orders) = mpsc::channel(1);
            starts.try_send((Instant::now(), order)).expect("room");
            async move {
                tokio::select! {
                    _ = orders.recv() => Err("crash".into()),
                    () = context.stopped() => Ok(()),
                }
            }
        })
    })
    .await;
    measurement.finish().await
}
