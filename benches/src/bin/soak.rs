//! Soak: many children that crash at random for a long time; memory must stay flat and nothing may be left at the end.
//!
//! `cargo run --release -p benches --bin soak -- [--seconds 600] [--children 100000] [--actors 50] [--rate 20000]
//! [--threads 2] [--seed 1]`: half of the children are actors and half tasks, crashes are per second. Exits 1 if
//! memory grew after the warm-up (the first half), a restart is missing, or something outlived its tree.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use xy_actors::child::{Child, actor, task};
use xy_actors::spec::{ChildSpec, RestartIntensity, RestartType, Strategy, SupervisorSpec};
use xy_actors::supervisor::{ShutdownReport, Supervisor, SupervisorChild, supervisor};

/// How much memory may grow in the second half, by a straight line through all samples.
const FLAT: f64 = 0.01;
/// How long what has been asked for may take to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Temporary children that come and go in each second, to see that those that are removed leave nothing.
const PASSING: u64 = 100;

fn main() -> ExitCode {
    let options = Options::parse();
    // A thousand deliberate panics in a second need no words.
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::try_from(options.threads).expect("a few"))
        .enable_all()
        .build()
        .expect("a runtime");
    let faults = runtime.block_on(async { tokio::spawn(soak(options)).await.expect("runs to its end") });
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    println!("{}", if faults.is_empty() { "passed" } else { "failed" });
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Options {
    seconds: u64,
    children: u64,
    /// In percent; the rest are tasks.
    actors: u64,
    rate: u64,
    threads: u64,
    seed: u64,
}

impl Options {
    fn parse() -> Self {
        let mut given: BTreeMap<String, u64> = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().and_then(|value| value.parse().ok());
            given.insert(name, value.expect("each option is followed by a number"));
        }
        let mut option = |name, default| given.remove(name).unwrap_or(default);
        let options = Self {
            seconds: option("--seconds", 600),
            children: option("--children", 100_000),
            actors: option("--actors", 50),
            rate: option("--rate", 20_000),
            threads: option("--threads", 2),
            seed: option("--seed", 1),
        };
        assert!(given.is_empty(), "unknown options: {:?}", given.keys());
        options
    }
}

/// What all children count.
#[derive(Default)]
struct Counters {
    starts: AtomicU64,
    ends: AtomicU64,
    alive: AtomicU64,
}

/// One incarnation, counted as long as it exists.
struct Counted(Arc<Counters>);

impl Counted {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.starts.fetch_add(1, Ordering::Relaxed);
        counters.alive.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }

    /// Ends it, in a way that the number chooses.
    fn end(self, number: u64) -> Result<(), &'static str> {
        self.0.ends.fetch_add(1, Ordering::Relaxed);
        match number % 16 {
            0 => panic!("a deliberate panic"),
            1..4 => Ok(()),
            _ => Err("a deliberate crash"),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a child is told to crash, whatever its incarnation.
enum Slot {
    Actor(Mutex<Option<ActorRef<u64>>>),
    Task { order: Notify, number: AtomicU64 },
}

impl Slot {
    fn crash(&self, number: u64) {
        match self {
            Self::Actor(current) => {
                // One that is not back yet is left alone.
                if let Some(actor) = &*current.lock().expect("nobody panics while holding it") {
                    let _gone = actor.send_message(number);
                }
            }
            Self::Task { order, number: next } => {
                next.store(number, Ordering::Relaxed);
                order.notify_one();
            }
        }
    }
}

struct Worker;

impl Actor for Worker {
    type Msg = u64;
    type State = Option<Counted>;
    type Arguments = (Arc<Slot>, Arc<Counters>);

    async fn pre_start(
        &self,
        myself: ActorRef<u64>,
        (slot, counters): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        if let Slot::Actor(current) = &*slot {
            *current.lock().expect("nobody panics while holding it") = Some(myself);
        }
        Ok(Some(Counted::new(&counters)))
    }

    async fn handle(
        &self,
        myself: ActorRef<u64>,
        number: u64,
        counted: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(counted) = counted.take() {
            counted.end(number)?;
            myself.stop(None);
        }
        Ok(())
    }
}

fn actor_child(slot: Arc<Slot>, counters: Arc<Counters>) -> impl Child {
    actor(move || (Worker, (slot.clone(), counters.clone())))
}

fn task_child(slot: Arc<Slot>, counters: Arc<Counters>) -> impl Child {
    task(move |context| {
        let (slot, counted) = (slot.clone(), Counted::new(&counters));
        async move {
            let Slot::Task { order, number } = &*slot else { return Ok(()) };
            tokio::select! {
                () = order.notified() => Ok(counted.end(number.load(Ordering::Relaxed))?),
                () = context.stopped() => Ok(()),
            }
        }
    })
}

/// A group that restarts its children as often as they crash, but with a window as for one that would give up.
fn group() -> SupervisorChild {
    let intensity = RestartIntensity::new(10_000_000, Duration::from_secs(10));
    supervisor(SupervisorSpec { intensity: Some(intensity), ..SupervisorSpec::new(Strategy::OneForOne) })
}

async fn tree(slots: &[Arc<Slot>], counters: &Arc<Counters>) -> Supervisor {
    let (mut actors, mut tasks) = (group(), group());
    for (index, slot) in slots.iter().enumerate() {
        let spec = ChildSpec::worker(index.to_string());
        match **slot {
            Slot::Actor(_) => actors = actors.child(spec, actor_child(slot.clone(), counters.clone())),
            Slot::Task { .. } => tasks = tasks.child(spec, task_child(slot.clone(), counters.clone())),
        }
    }
    let passing = supervisor(SupervisorSpec::new(Strategy::SimpleOneForOne));
    Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("actors"), actors)
        .child(ChildSpec::supervisor("tasks"), tasks)
        .child(ChildSpec::supervisor("passing"), passing)
        .start()
        .await
        .expect("starts")
}

async fn soak(options: Options) -> Vec<String> {
    let counters = Arc::new(Counters::default());
    let slot = |index| {
        Arc::new(if index * 100 < options.actors * options.children {
            Slot::Actor(Mutex::default())
        } else {
            Slot::Task { order: Notify::new(), number: AtomicU64::new(0) }
        })
    };
    let slots: Vec<Arc<Slot>> = (0..options.children).map(slot).collect();
    let tasks_before = alive_tasks();
    let tree = tree(&slots, &counters).await;
    let mut faults = crash_for_long(&options, &tree, &slots, &counters).await;

    let settled = until(|| {
        let (starts, ends) = (counters.starts.load(Ordering::Relaxed), counters.ends.load(Ordering::Relaxed));
        starts == ends + options.children && counters.alive.load(Ordering::Relaxed) == options.children
    });
    if !settled.await {
        faults.push("a child that crashed did not come back".to_owned());
    }
    let passing = tree.child_supervisor("passing").await.expect("runs");
    while !passing.which_children().await.expect("answers").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    let report = tree.shutdown().await;
    println!("shutdown: {:.1} s", begun.elapsed().as_secs_f64());
    faults.extend(check_shutdown(&report, options.children));
    drop((tree, passing, slots));
    if !until(|| counters.alive.load(Ordering::Relaxed) == 0).await {
        faults.push(format!("{} children outlived their tree", counters.alive.load(Ordering::Relaxed)));
    }
    if !until(|| alive_tasks() == tasks_before).await {
        faults.push(format!("{} tasks outlived their tree", alive_tasks() - tasks_before));
    }
    println!(
        "left: {} children, {} tasks",
        counters.alive.load(Ordering::Relaxed),
        alive_tasks() - tasks_before
    );
    faults
}

/// Crashes children at random and prints a line a second.
async fn crash_for_long(
    options: &Options,
    tree: &Supervisor,
    slots: &[Arc<Slot>],
    counters: &Arc<Counters>,
) -> Vec<String> {
    println!("second  crashes/s  restarts  alive  tasks  resident MiB");
    let passing = tree.child_supervisor("passing").await.expect("runs");
    let mut random = Random(options.seed);
    let mut samples: Vec<(f64, f64)> = Vec::new();
    let begun = Instant::now();
    let (mut ordered, mut ends_before) = (0, 0);
    for second in 1..=options.seconds {
        let end = begun + Duration::from_secs(second);
        while Instant::now() < end {
            let due = (begun.elapsed().as_secs_f64() * options.rate as f64) as u64;
            // What a slow machine could not do in time is left out: a backlog would be memory too.
            ordered = ordered.max(due.saturating_sub(options.rate / 50));
            let missing = options.children.saturating_sub(counters.alive.load(Ordering::Relaxed));
            if missing > options.rate / 50 {
                ordered = due;
            }
            while ordered < due {
                slots[random.below(slots.len())].crash(random.next());
                ordered += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..PASSING {
            let ends = task(|_| async { Ok(()) });
            let spec = ChildSpec { restart: RestartType::Temporary, ..ChildSpec::worker("passing") };
            passing.start_child(spec, ends).await.expect("starts");
        }
        let ends = counters.ends.load(Ordering::Relaxed);
        let resident = resident();
        println!(
            "{second:6}  {:9}  {:8}  {:5}  {:5}  {:12.1}",
            ends - ends_before,
            counters.starts.load(Ordering::Relaxed) - options.children,
            counters.alive.load(Ordering::Relaxed),
            alive_tasks(),
            resident / f64::from(1 << 20),
        );
        ends_before = ends;
        if second > options.seconds / 2 {
            samples.push((begun.elapsed().as_secs_f64(), resident));
        }
    }
    let mut faults = Vec::new();
    let (slope, mean) = slope(&samples);
    let span = samples.len() as f64;
    println!(
        "memory after the warm-up: {:.1} MiB, slope {:+.1} KiB/s ({:+.2} % in these {span} s); crashes per child: {:.0}",
        mean / f64::from(1 << 20),
        slope / 1024.0,
        100.0 * slope * span / mean,
        ends_before as f64 / options.children as f64,
    );
    if slope * span > FLAT * mean {
        faults.push("memory is not flat".to_owned());
    }
    if ends_before == 0 {
        faults.push("nothing crashed".to_owned());
    }
    faults
}

fn check_shutdown(report: &ShutdownReport, children: u64) -> Vec<String> {
    let mut faults = Vec::new();
    if !report.is_clean() {
        let lists = [&report.failed, &report.killed, &report.leaked].map(Vec::len);
        faults.push(format!("shutdown was not clean: failed, killed, leaked: {lists:?}"));
    }
    // And three groups.
    if report.stopped.len() as u64 != children + 3 {
        faults.push(format!("{} stopped instead of {}", report.stopped.len(), children + 3));
    }
    faults
}

/// Returns the slope of a straight line through the samples, per second, and their mean.
fn slope(samples: &[(f64, f64)]) -> (f64, f64) {
    let count = samples.len().max(1) as f64;
    let mean_time = samples.iter().map(|(time, _)| time).sum::<f64>() / count;
    let mean = samples.iter().map(|(_, value)| value).sum::<f64>() / count;
    let spread: f64 = samples.iter().map(|(time, _)| (time - mean_time).powi(2)).sum();
    let common: f64 = samples.iter().map(|(time, value)| (time - mean_time) * (value - mean)).sum();
    (if spread > 0.0 { common / spread } else { 0.0 }, mean)
}

/// Waits until a condition holds, with a deadline; returns whether it does.
async fn until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Returns this process's resident memory in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096.0
}

/// SplitMix64, so that a run is its seed as far as the scheduler allows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
