//! Erlang-style supervision trees for Rust: actors, async tasks and OS processes under one restart policy.
//!
//! A supervisor starts its children in order, restarts those that crash, gives up when they crash too often, and stops
//! them in reverse. Supervisors nest, so that a failure travels up only as far as it has to. The semantics are those of
//! Erlang/OTP's `supervisor`, on the actor crate [`ractor`](https://docs.rs/ractor); nothing here is global, so two trees
//! in one program never meet.
//!
//! ```toml
//! [dependencies]
//! xy-actors = "0.1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! # For children that are actors, the same ractor as here:
//! ractor = { version = "0.16.5", default-features = false, features = ["tokio_runtime"] }
//! ```
//!
#![cfg_attr(feature = "runtime", doc = "```")]
#![cfg_attr(not(feature = "runtime"), doc = "```ignore")]
//! use xy_actors::child::task;
//! use xy_actors::spec::{ChildSpec, SupervisorSpec};
//! use xy_actors::supervisor::Supervisor;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let worker = task(|context| async move {
//!         if context.incarnation().get() == 1 {
//!             return Err("the first try fails".into()); // A crash: the supervisor starts it again.
//!         }
//!         context.stopped().await; // Runs until it is asked to stop.
//!         Ok(())
//!     });
//!     let builder = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("worker"), worker);
//!     let tree = builder.start().await?;
//!     let worker = tree.wait_for("worker", |worker| worker.restarts == 1 && worker.ready).await?;
//!     if let Some(last) = worker.last_exit {
//!         println!("it is back; the first one ended: {}", last.report); // error: the first try fails
//!     }
//!     tree.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! A second crash within five seconds would end this tree: one restart in five seconds is what a supervisor allows by
//! default, as in OTP, and giving up is how a failure reaches somebody who can deal with it. Set
//! [`SupervisorSpec::intensity`](spec::SupervisorSpec::intensity) to what your children need.
//!
//! A program that is a tree ends its `main` with `tree.run_until(shutdown_signal()?).await?`, which waits for SIGINT,
//! SIGTERM or the tree's own end, and stops the children in order.
//!
//! Any tokio runtime will do, on one thread or many, with time enabled, and with I/O enabled for processes and signals:
//! `#[tokio::main]` and `Builder::enable_all` do both. What xy needs of tokio it brings; what your own code uses, ask for
//! in your own manifest: `macros` and `rt-multi-thread` for a plain `#[tokio::main]`, only `rt` with
//! `flavor = "current_thread"`, `time` for your own sleeps and timeouts.
//!
//! # Vocabulary
//!
//! | word | is |
//! |---|---|
//! | child spec | how a child is named, restarted and ended: [`ChildSpec`](spec::ChildSpec); with a recipe for what to run |
//! | restart type | when it is restarted: [permanent, transient, temporary](spec::RestartType) |
//! | strategy | who is restarted with it: [one_for_one, one_for_all, rest_for_one, simple_one_for_one](spec::Strategy) |
//! | restart intensity | how many restarts within which period before the supervisor gives up: [`RestartIntensity`](spec::RestartIntensity) |
//! | backoff | delays that grow while a child keeps failing: [`Backoff`](spec::Backoff) (OTP has none) |
//! | shutdown | how it is ended: [brutal kill, timeout, infinity](spec::Shutdown) |
//! | exit | how it ended: [`Exit`](exit::Exit), with its [`Cause`](exit::Cause) |
//! | incarnation | one start of a child; whatever comes from an earlier one is dropped |
//! | ready | able to serve, as opposed to merely running |
#![cfg_attr(
    feature = "runtime",
    doc = "| address | where to reach an actor child, whichever incarnation lives: [`Address`](supervisor::Address) |"
)]
#![cfg_attr(
    feature = "runtime",
    doc = "| partition | one of many copies of a child, which keys are spread over: [`Partitions`](supervisor::Partitions) |"
)]
//! | escalate | give up to the parent supervisor |
//!
//! # How a crash travels
//!
//! 1. The child ends. An actor's failure comes as a ractor event, a task's from its wrapper, a process's when its main
//!    process has ended and its whole tree is gone.
//! 2. The supervisor notes exit and cause, and asks the pure [`policy`] what follows.
//! 3. The policy answers with actions: start again now, or after a delay; stop and start siblings first; or give up.
//! 4. Giving up means `failed`, if the child has a limit of its own that says so. Otherwise the supervisor stops its
//!    children in reverse and ends [`Escalated`](exit::Exit::Escalated), which is a crash to its parent, and so on up to
//!    the root.
//!
//! A supervisor never waits for a child. While one hangs in its start, one ignores its stop and one backs off, every
//! question and every operation on the others is answered at once.
//!
//! # Differences from OTP
//!
//! - The restart window takes exact times, not whole seconds.
//! - A supervisor that gave up ends `Escalated`, which restarts even a transient one; in OTP it is silently not restarted.
//! - Starts do not block the supervisor; a child of an ordered supervisor still begins only when the one before is ready.
//! - Backoff, limits per child, addresses, `pause` and the operator's `stop` that group restarts respect are additions;
//!   [`SupervisorSpec::dynamic`](spec::SupervisorSpec::dynamic) and partitions are Elixir's.
//! - A task or actor is killed at its next await point; one that has none is reported as leaked and not waited for.
//!
//! # What it does not do
//!
//! It does not supervise across machines, keep messages of a crashed actor, limit memory or CPU, or run on Windows.
//! macOS is in the code and has not been run.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `runtime` | yes | supervisors, actors, tasks, events; without it only the pure policy is built, with neither ractor nor tokio |
//! | `process` | yes | OS processes: spawning, whole-tree stop, identity ledger, logs |
//! | `signal` | yes | `shutdown_signal`; part of `process` |
//! | `probe-http` | | readiness by HTTP and MCP |
//! | `serde` | | `Serialize` and `Deserialize` for the vocabulary |
//! | `testkit` | | mock children for your own tests; brings tokio's `test-util` |
//! | `cluster`, `async-trait` | | ractor's features of these names, which change its traits for the whole dependency graph |
//!
//! # Where to go next
//!
#![cfg_attr(
    feature = "runtime",
    doc = "
| to | see |
|---|---|
| run an actor | [`child::actor`] |
| run an async function | [`child::task`] |
| run a kind of child of your own | the trait [`child::Child`] |
| nest a supervisor | [`supervisor::supervisor`] |
| add children later, many of one kind | [`Supervisor::start_child`](supervisor::Supervisor::start_child), [`supervisor::Template`] |
| say how a child is restarted and ended | [`spec::ChildSpec`] |
| ask what runs and why it ended | [`Supervisor::which_children`](supervisor::Supervisor::which_children) |
| follow what happens | [`Supervisor::events`](supervisor::Supervisor::events), and a loop over them in [`event::stream`] |
| reach an actor whichever incarnation it is | [`Supervisor::addr`](supervisor::Supervisor::addr) |
| let children reach each other | [`child::actor_with`], [`StartContext::addr`](child::StartContext::addr), [`TaskContext::addr`](child::TaskContext::addr) |
| spread load over several supervisors | [`supervisor::Partitions`] |
| end in order, on Ctrl-C for instance | [`Supervisor::run_until`](supervisor::Supervisor::run_until), [`Supervisor::shutdown`](supervisor::Supervisor::shutdown) |"
)]
#![cfg_attr(feature = "process", doc = "| run an OS process | [`process::process`] |")]
#![cfg_attr(feature = "testkit", doc = "| test a tree of one's own | [`testkit`] |")]
#![cfg_attr(
    all(feature = "runtime", not(feature = "testkit")),
    doc = "| test a tree of one's own | the feature `testkit` |"
)]
#![cfg_attr(feature = "runtime", doc = "")]
#![cfg_attr(
    feature = "runtime",
    doc = "[`supervisor`] for the handle and its operations, [`child`] for what can be supervised and kinds of your own, [`policy`] for the decisions."
)]
#![cfg_attr(
    not(feature = "runtime"),
    doc = "[`policy`] for the decisions; nothing else is built without `runtime`."
)]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod event;
pub mod exit;
pub mod policy;
pub mod snapshot;
pub mod spec;

#[cfg(feature = "runtime")]
pub mod child;
#[cfg(feature = "runtime")]
pub mod path;
#[cfg(feature = "runtime")]
pub mod supervisor;

#[cfg(feature = "process")]
pub mod log;
#[cfg(feature = "process")]
pub mod process;

#[cfg(feature = "testkit")]
pub mod testkit;
