//! What is measured, whoever supervises: children say when they start, and crash when told.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::{CRASHES, Figure, GROUP, GROUPS, MANY, STORM, STORMS, median_us, resident};

/// Where children say when they started and hand over what crashes them.
pub(crate) type Starts<C> = mpsc::Sender<(Instant, C)>;

/// Something that makes its child crash.
pub(crate) trait Crash {
    fn crash(&self);
}

impl Crash for mpsc::Sender<()> {
    fn crash(&self) {
        self.try_send(()).expect("lives");
    }
}

impl Crash for ractor::ActorRef<()> {
    fn crash(&self) {
        self.send_message(()).expect("lives");
    }
}

/// A measurement that has begun; what is made from here on is measured.
pub(crate) struct Measurement<C> {
    figure: Figure,
    begun: Instant,
    memory: f64,
    starts: mpsc::Receiver<(Instant, C)>,
}

impl Figure {
    /// Returns how many children the figure takes.
    pub(crate) fn children(self) -> usize {
        match self {
            Self::Crash => 1,
            Self::Storm => STORM,
            Self::Start | Self::Memory | Self::Among | Self::Window => MANY,
            Self::Group => GROUP,
        }
    }
}

impl<C: Crash> Measurement<C> {
    pub(crate) fn begin(figure: Figure) -> (Self, Starts<C>) {
        let (sender, starts) = mpsc::channel(2 * MANY);
        (Self { figure, begun: Instant::now(), memory: resident(), starts }, sender)
    }

    async fn start(&mut self) -> (Instant, C) {
        self.starts.recv().await.expect("starts")
    }

    async fn all(&mut self) -> Vec<C> {
        let mut children = Vec::with_capacity(self.figure.children());
        for _ in 0..self.figure.children() {
            children.push(self.start().await.1);
        }
        children
    }

    /// Crashes one child after the other, spread over all of them.
    async fn one_by_one(mut self, mut children: Vec<C>) -> f64 {
        let mut times = Vec::with_capacity(CRASHES);
        let mut index = 0;
        for _ in 0..CRASHES {
            let crash = Instant::now();
            children[index].crash();
            let (start, child) = self.start().await;
            times.push(start - crash);
            children[index] = child;
            // A prime, so that neighbors in time are none in memory.
            index = (index + 7919) % children.len();
        }
        median_us(times)
    }

    /// Waits for all children and measures.
    pub(crate) async fn finish(mut self) -> f64 {
        let count = self.figure.children() as f64;
        let mut children = self.all().await;
        let begin = Instant::now();
        match self.figure {
            Figure::Start => self.begun.elapsed().as_secs_f64() * 1e3,
            Figure::Memory => (resident() - self.memory) / count,
            Figure::Crash | Figure::Among => self.one_by_one(children).await,
            Figure::Window => {
                for child in &children {
                    child.crash();
                }
                children = self.all().await;
                self.one_by_one(children).await
            }
            Figure::Storm => {
                for _ in 0..STORMS {
                    for child in &children {
                        child.crash();
                    }
                    children = self.all().await;
                }
                STORMS as f64 * count / begin.elapsed().as_secs_f64()
            }
            Figure::Group => {
                for _ in 0..GROUPS {
                    children[0].crash();
                    children = self.all().await;
                }
                begin.elapsed().as_secs_f64() * 1e3 / GROUPS as f64
            }
        }
    }
}
