//! The floors: what a programmer would write by hand, without any policy.

use std::collections::HashMap;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Figure;
use crate::drive::{Measurement, Starts};

/// A worker that says when it starts and fails when told.
pub(crate) struct Worker {
    pub(crate) starts: Starts<ActorRef<()>>,
}

impl Actor for Worker {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        self.starts.try_send((Instant::now(), myself))?;
        Ok(())
    }

    async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err("crash".into())
    }
}

/// A hand-written supervisor: restarts whoever fails.
struct Restarter;

struct Restarting {
    starts: Starts<ActorRef<()>>,
    children: HashMap<ActorId, ActorRef<()>>,
    whole_group: bool,
}

impl Actor for Restarter {
    type Msg = ();
    type State = Restarting;
    type Arguments = (usize, Starts<ActorRef<()>>, bool);

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        (count, starts, whole_group): Self::Arguments,
    ) -> Result<Restarting, ActorProcessingErr> {
        let mut state = Restarting { starts, children: HashMap::new(), whole_group };
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
        let worker = Worker { starts: self.starts.clone() };
        let (actor, _) = Actor::spawn_linked(None, worker, (), myself.get_cell()).await?;
        self.children.insert(actor.get_id(), actor);
        Ok(())
    }
}

pub(crate) async fn ractor(figure: Figure) -> f64 {
    let (measurement, starts) = Measurement::begin(figure);
    let arguments = (figure.children(), starts, figure == Figure::Group);
    let (_supervisor, _) = Actor::spawn(None, Restarter, arguments).await.expect("starts");
    measurement.finish().await
}

fn spawn_task(tasks: &mut JoinSet<()>, starts: &Starts<mpsc::Sender<()>>) {
    let (order, mut orders) = mpsc::channel(1);
    let starts = starts.clone();
    tasks.spawn(async move {
        starts.try_send((Instant::now(), order)).expect("room");
        orders.recv().await;
    });
}

pub(crate) async fn tokio(figure: Figure) -> f64 {
    let (measurement, starts) = Measurement::begin(figure);
    let supervisor = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        let count = figure.children();
        for _ in 0..count {
            spawn_task(&mut tasks, &starts);
        }
        while tasks.join_next().await.is_some() {
            let restarted = if figure == Figure::Group { count } else { 1 };
            if figure == Figure::Group {
                tasks.shutdown().await;
            }
            for _ in 0..restarted {
                spawn_task(&mut tasks, &starts);
            }
        }
    });
    let result = measurement.finish().await;
    supervisor.abort();
    result
}
