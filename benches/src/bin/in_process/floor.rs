//! The floors: what a programmer would write by hand, without any policy.

use std::collections::HashMap;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{CRASHES, Figure, GROUP, GROUPS, MANY, STORM, STORMS, median_us, resident};

/// A worker that says when it starts and fails when told.
pub(crate) struct Worker {
    pub(crate) started: mpsc::Sender<(Instant, ActorRef<Instant>)>,
}

impl Actor for Worker {
    type Msg = Instant;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Instant>, (): ()) -> Result<(), ActorProcessingErr> {
        self.started.try_send((Instant::now(), myself))?;
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Instant>, _: Instant, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err("crash".into())
    }
}

/// A hand-written supervisor: restarts whoever fails.
struct Restarter;

struct Restarting {
    started: mpsc::Sender<(Instant, ActorRef<Instant>)>,
    children: HashMap<ActorId, ActorRef<Instant>>,
    whole_group: bool,
}

impl Actor for Restarter {
    type Msg = ();
    type State = Restarting;
    type Arguments = (usize, mpsc::Sender<(Instant, ActorRef<Instant>)>, bool);

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        (count, started, whole_group): Self::Arguments,
    ) -> Result<Restarting, ActorProcessingErr> {
        let mut state = Restarting { started, children: HashMap::new(), whole_group };
        for _ in 0..count {
            state.start(&myself).await?;
        }
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<()>, (): (), _: &mut Restarting) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        state: &mut Restarting,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, _) = event
            && state.children.remove(&cell.get_id()).is_some()
        {
            if state.whole_group {
                let others: Vec<_> = state.children.drain().collect();
                let count = others.len();
                for (_, other) in others {
                    other.stop(None);
                    other.wait(None).await?;
                }
                for _ in 0..count {
                    state.start(&myself).await?;
                }
            }
            state.start(&myself).await?;
        }
        Ok(())
    }
}

impl Restarting {
    async fn start(&mut self, myself: &ActorRef<()>) -> Result<(), ActorProcessingErr> {
        let worker = Worker { started: self.started.clone() };
        let (actor, _) = Actor::spawn_linked(None, worker, (), myself.get_cell()).await?;
        self.children.insert(actor.get_id(), actor);
        Ok(())
    }
}

pub(crate) async fn ractor(figure: Figure) -> f64 {
    let count = match figure {
        Figure::Crash => 1,
        Figure::Storm => STORM,
        Figure::Start | Figure::Memory => MANY,
        Figure::Group => GROUP,
    };
    let (sender, starts) = mpsc::channel(2 * MANY);
    let before = (Instant::now(), resident());
    let arguments = (count, sender, figure == Figure::Group);
    let (supervisor, _) = Actor::spawn(None, Restarter, arguments).await.expect("starts");
    let result = crate::xy::drive(figure, count, before, starts).await;
    supervisor.kill();
    result
}

/// A plain task's messages: crash now.
type Order = mpsc::Sender<()>;

fn spawn_task(tasks: &mut JoinSet<usize>, index: usize, started: &mpsc::Sender<(Instant, usize, Order)>) {
    let (order, mut orders) = mpsc::channel(1);
    let started = started.clone();
    tasks.spawn(async move {
        started.try_send((Instant::now(), index, order)).expect("room");
        orders.recv().await;
        index
    });
}

pub(crate) async fn tokio(figure: Figure) -> f64 {
    let count = match figure {
        Figure::Crash => 1,
        Figure::Storm => STORM,
        Figure::Start | Figure::Memory => MANY,
        Figure::Group => GROUP,
    };
    let (sender, starts) = mpsc::channel(2 * MANY);
    let before = (Instant::now(), resident());
    let whole_group = figure == Figure::Group;
    let supervisor = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        for index in 0..count {
            spawn_task(&mut tasks, index, &sender);
        }
        while let Some(Ok(index)) = tasks.join_next().await {
            if whole_group {
                tasks.shutdown().await;
                for index in 0..count {
                    spawn_task(&mut tasks, index, &sender);
                }
            } else {
                spawn_task(&mut tasks, index, &sender);
            }
        }
    });
    let result = drive_tasks(figure, count, before, starts).await;
    supervisor.abort();
    result
}

async fn drive_tasks(
    figure: Figure,
    count: usize,
    (begun, memory): (Instant, f64),
    mut starts: mpsc::Receiver<(Instant, usize, Order)>,
) -> f64 {
    let mut orders = Vec::with_capacity(count);
    for _ in 0..count {
        orders.push(starts.recv().await.expect("starts").2);
    }
    match figure {
        Figure::Start => begun.elapsed().as_secs_f64() * 1e3,
        Figure::Memory => (resident() - memory) / count as f64,
        Figure::Crash => {
            let mut times = Vec::with_capacity(CRASHES);
            for _ in 0..CRASHES {
                let crash = Instant::now();
                orders.pop().expect("one").try_send(()).expect("lives");
                let (start, _, order) = starts.recv().await.expect("starts");
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
                    orders.push(starts.recv().await.expect("starts").2);
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
                    orders.push(starts.recv().await.expect("starts").2);
                }
                drop((last, old));
            }
            begin.elapsed().as_secs_f64() * 1e3 / GROUPS as f64
        }
    }
}
