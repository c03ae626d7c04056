//! Trees of mock children on a paused clock, for testing what your own program does with supervision.
//!
//! It is a feature of its own, for tests only; a paused clock is tokio's, so that an hour of backoff passes in no time:
//!
//! ```toml
//! [dev-dependencies]
//! xy-actors = { version = "0.1", features = ["testkit"] }
//! ```
//!
//! Build your tree in a function that takes each child that a test replaces as `impl Child`, and give it a mock there. The
//! body of a `#[tokio::test(start_paused = true)]`:
//!
//! ```
//! use xy_actors::spec::{ChildSpec, SupervisorSpec};
//! use xy_actors::testkit::{Journal, MockChild};
//! use xy_actors::supervisor::Supervisor;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let journal = Journal::default();
//! let db = MockChild::new("db", &journal);
//! let tree = Supervisor::builder(SupervisorSpec::default())
//!     .child(ChildSpec::worker("db"), db.clone())
//!     .start()
//!     .await?;
//! db.crash_and_restart("lost its disk").await;
//! assert_eq!(journal.take(), ["start db", "start db"]);
//! tree.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod child;
mod tree;

pub use child::{Journal, MockChild, MockStart, MockStop};
pub use tree::TestTree;
