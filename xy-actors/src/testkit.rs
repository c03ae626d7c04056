//! Trees of mock children on a paused clock, for testing what your own program does with supervision.
//!
//! It is a feature of its own, for tests only; a paused clock is tokio's, so that an hour of backoff passes in no time.
//! The feature brings tokio's `test-util`; `#[tokio::test]` itself is in tokio's `macros` and needs `rt`:
//!
//! ```toml
//! [dev-dependencies]
//! xy-actors = { version = "0.1", features = ["testkit"] }
//! tokio = { version = "1", features = ["macros", "rt"] }
//! ```
//!
//! Build your tree in a function that takes each child that a test replaces as `impl Child` and returns the
//! [`SupervisorBuilder`](crate::supervisor::SupervisorBuilder): the program calls `run_until` on it, a test `start`.
//!
//! ```
//! use xy_actors::child::Child;
//! use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
//! use xy_actors::supervisor::{Supervisor, SupervisorBuilder};
//! use xy_actors::testkit::{Journal, MockChild, TestTree};
//!
//! fn shop(database: impl Child, web: impl Child) -> SupervisorBuilder {
//!     Supervisor::builder(SupervisorSpec::new(Strategy::RestForOne))
//!         .child(ChildSpec::worker("database"), database)
//!         .child(ChildSpec::worker("web"), web)
//! }
//!
//! # const _: &str = stringify!(
//! #[tokio::test(start_paused = true)]
//! # );
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn the_web_server_is_restarted_after_its_database() -> Result<(), Box<dyn std::error::Error>> {
//!     let journal = Journal::default();
//!     let [database, web] = ["database", "web"].map(|name| MockChild::new(name, &journal));
//!     let mut tree = TestTree::new(shop(database.clone(), web.clone()).start().await?);
//!     assert_eq!(journal.take(), ["start database", "start web"]);
//!
//!     database.crash("disk full");
//!     tree.expect("child_exited", "database").await;
//!     web.wait_for_start(2).await;
//!     assert_eq!(journal.take(), ["stop web", "start database", "start web"]);
//!
//!     assert!(tree.shutdown().await.is_clean());
//!     assert_eq!(journal.take(), ["stop web", "stop database"]);
//!     Ok(())
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     the_web_server_is_restarted_after_its_database()
//! # }
//! ```
//!
//! Three things to know:
//!
//! - Default flags allow one restart in five seconds, and on a paused clock two crashes in a row are no time apart: the
//!   second ends the tree. A test of more crashes gives its tree the intensity that the program has, or advances the clock
//!   between them (`tokio::time::advance`).
//! - A paused clock jumps to the next timer whenever all tasks wait. So nothing real, such as a process, a socket or a
//!   thread, can be in such a tree: its answer would come too late for every timeout. That is what mocks stand in for.
//! - A mock is no actor: an address of it says [`NoActor`](crate::supervisor::Unreachable::NoActor). Where children talk to
//!   each other, put a small actor of your own in its place.

mod child;
#[cfg(feature = "process")]
mod plant;
mod tree;

#[cfg(feature = "process")]
pub use crate::process::Helper;
pub use child::{Journal, MockChild, MockStart, MockStop};
#[cfg(feature = "process")]
pub(crate) use plant::has_planted_panic;
#[cfg(feature = "process")]
pub use plant::plant_panic;
pub use tree::TestTree;
