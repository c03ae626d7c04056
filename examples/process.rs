//! An OS process in a tree of one's own: spawned, proven ready, killed from outside, back again, and stopped as a whole.
//!
//! `cargo run -p examples --example process`

use std::time::Duration;

use xy_actors::event::stream::{EventCursor, EventItem};
use xy_actors::log::LogHub;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, process};
use xy_actors::spec::{ChildSpec, Shutdown, SupervisorSpec};
use xy_actors::supervisor::{StopOutcome, Supervisor};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The one place that spawns, signals and reaps; a program has one and hands it to its trees.
    let (host, _swept) = ProcessHost::start(HostOptions::default())?;
    let logs = LogHub::new(None); // In memory; give it a directory to keep files.

    let mut spec = ProcessSpec::new("sh");
    spec.args = vec!["-c".into(), "echo hello from $$; sleep 1000; true".into()];
    let child =
        ChildSpec { shutdown: Shutdown::Timeout(Duration::from_secs(2)), ..ChildSpec::worker("shell") };
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(child, process(spec, &host, &logs))
        .start()
        .await?;

    let first = tree.which_child("shell").await?;
    println!("running as pid {:?}", first.pid);
    tree.signal("shell", 9).await?;
    let mut events = tree.events(EventCursor::Seq(1));
    let mut ready = 0;
    while ready < 2 {
        if let Some(EventItem::Event(event)) = events.next().await {
            ready += usize::from(event.kind.name() == "child_ready");
        }
    }
    let second = tree.which_child("shell").await?;
    println!("killed, and back as pid {:?}; restarts: {}", second.pid, second.restarts);

    if let StopOutcome::Stopped(report) = tree.stop("shell", None).await? {
        println!("stopped with its whole tree: {report}");
    }
    for line in logs.open("shell", xy_actors::log::LogSettings::default())?.tail(10) {
        println!("log: {}", String::from_utf8_lossy(&line.bytes));
    }
    tree.shutdown().await;
    Ok(())
}
