//! A tree of one's own, tested with mock children on a paused clock: an hour of backoff passes in no time.
//!
//! `cargo run -p examples --example testing`

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::child::Child;
use xy_actors::spec::{Backoff, ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{SpawnTreeError, Supervisor};
use xy_actors::testkit::{Journal, MockChild};

/// The tree under test: production passes real children, the test passes mocks.
async fn my_tree(database: impl Child, web: impl Child) -> Result<Supervisor, SpawnTreeError> {
    let hour = Duration::from_secs(3600);
    let backoff = Backoff { base: hour, max: hour, jitter: 0.0, ..Backoff::default() };
    let patient = ChildSpec { backoff: Some(backoff), ..ChildSpec::worker("database") };
    Supervisor::builder(SupervisorSpec::new(Strategy::RestForOne))
        .child(patient, database)
        .child(ChildSpec::worker("web"), web)
        .start()
        .await
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let journal = Journal::default();
    let database = MockChild::new("database", &journal);
    let web = MockChild::new("web", &journal);
    let tree = my_tree(database.clone(), web.clone()).await?;
    assert_eq!(journal.take(), ["start database", "start web"]);

    let before = Instant::now();
    database.crash("disk full");
    web.wait_for_start(2).await;
    assert_eq!(before.elapsed(), Duration::from_secs(3600));
    assert_eq!(journal.take(), ["stop web", "start database", "start web"]);

    tree.shutdown().await;
    assert_eq!(journal.take(), ["stop web", "stop database"]);
    println!("an hour of backoff, tested in no time");
    Ok(())
}
