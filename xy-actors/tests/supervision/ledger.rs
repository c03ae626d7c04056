//! Why a child ended and what happened next, as events, history and the report of the end tell it.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use xy_actors::child::{Child, actor, task};
use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::{Cause, Exit};
use xy_actors::path::TreePath;
use xy_actors::policy::State;
use xy_actors::spec::{
    AutoShutdown, Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, RestartType, Strategy,
    SupervisorSpec,
};
use xy_actors::supervisor::{ChildHistory, Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart};

use crate::support::flags;

fn restart(delay_secs: u64, nth: u32, of: u32) -> Option<Next> {
    Some(Next::Restart { delay: Duration::from_secs(delay_secs), nth, of: Some(of) })
}

/// An actor that fails in its first incarnations, as soon as it is told to begin.
struct Failing(bool);

#[derive(Debug)]
struct Begin;

#[cfg(feature = "cluster")]
impl ractor::Message for Begin {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Failing {
    type Msg = Begin;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Begin>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.send_message(Begin)?;
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Begin>, Begin: Begin, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if self.0 { Err("no disk".into()) } else { Ok(()) }
    }
}

fn failing_actor() -> impl Child {
    let starts = std::sync::atomic::AtomicU64::new(0);
    actor(move || (Failing(starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2), ()))
}

fn failing_task() -> impl Child {
    task(|context| async move {
        if context.incarnation().get() < 3 {
            return Err("no disk".into());
        }
        context.stopped().await;
        Ok(())
    })
}

fn nexts(history: &ChildHistory) -> Vec<Option<Next>> {
    history.exits.iter().map(|exit| exit.next).collect()
}

/// Returns what the events about exits and failed starts of this child say.
fn told(tree: &Supervisor, path: &str) -> Vec<(Cause, Option<Next>)> {
    let mut events = tree.events(EventCursor::Seq(1));
    let mut told = Vec::new();
    while let Ok(EventItem::Event(event)) = events.try_next() {
        if event.path.as_str() == path
            && let EventKind::Child { report, exit: Some(exit), .. } = event.kind
        {
            let next = match report {
                ChildReport::Exited { next, .. } | ChildReport::StartFailed { next } => Some(next),
                _ => None,
            };
            told.push((exit.cause.clone(), next));
        }
    }
    told
}

fn paths(paths: &[TreePath]) -> Vec<&str> {
    paths.iter().map(TreePath::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn each_exit_of_an_actor_and_a_task_is_kept_with_its_cause_and_what_followed() {
    for (kind, child) in
        [("actor", Box::new(failing_actor()) as Box<dyn Child>), ("task", Box::new(failing_task()))]
    {
        let tree = Supervisor::builder(flags(Strategy::OneForOne, 5)).start().await.expect("starts");
        tree.start_child(ChildSpec { autostart: false, ..ChildSpec::worker("a") }, Never)
            .await
            .expect("is added");
        tree.update(ChildSpec::worker("a"), Some(child)).await.expect("is updated");
        tree.start("a", None).await.expect("starts");
        tree.wait_for("a", |a| a.ready && a.incarnation.get() == 3).await.expect("comes back");
        tree.stop("a", Some("done with it".to_owned())).await.expect("stops");
        let (info, history) = tree.which_child_with_history("a").await.expect("a child");
        let causes: Vec<Cause> = history.exits.iter().map(|exit| exit.report.cause.clone()).collect();
        let no_disk = Cause::Error { message: "no disk".to_owned() };
        assert_eq!(causes[..2], [no_disk.clone(), no_disk], "{kind}");
        assert_eq!(nexts(&history), [restart(0, 1, 5), restart(0, 2, 5), None], "{kind}");
        let of_events: Vec<_> = told(&tree, "a").into_iter().collect();
        let of_history: Vec<_> = causes.into_iter().zip(nexts(&history)).collect();
        assert_eq!(of_events, of_history, "{kind}: events and history agree");
        assert_eq!(info.last_exit.as_ref(), history.exits.last(), "{kind}");
        assert_eq!(history.exits[2].report.exit, Exit::Shutdown, "{kind}");
        let reasons: Vec<String> = history.transitions.iter().map(|step| step.reason()).collect();
        let restarts = reasons.iter().filter(|reason| *reason == "error: no disk").count();
        assert_eq!(restarts, 2, "{kind}: a restart at once says why, too: {reasons:?}");
        assert!(
            reasons.last().is_some_and(|reason| reason.ends_with("(done with it)")),
            "{kind}: {reasons:?}"
        );
    }
}

/// Is replaced before it is started.
struct Never;

impl Child for Never {
    fn start(&self, _: xy_actors::child::StartContext) -> xy_actors::child::StartFuture {
        unreachable!("it was replaced")
    }
}

#[tokio::test(start_paused = true)]
async fn delays_failed_starts_and_a_limit_of_ones_own_are_counted_in_the_ledger() {
    let mock = MockChild::new("a", &Journal::default()).starting([
        MockStart::Ready,
        MockStart::Fail("no disk".to_owned()),
        MockStart::Shortage,
        MockStart::Ready,
    ]);
    let spec = ChildSpec {
        backoff: Some(Backoff { jitter: 0.0, ..Backoff::default() }),
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(2, Duration::from_secs(3600)),
            on_limit: OnLimit::GiveUp,
        }),
        ..ChildSpec::worker("a")
    };
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(spec, mock.clone())
        .start()
        .await
        .expect("starts");
    mock.crash("boom");
    tree.wait_for("a", |a| a.ready && a.incarnation.get() == 4).await.expect("comes back");
    mock.crash("boom");
    tree.wait_for("a", |a| a.state == State::Failed).await.expect("gives up");
    let (_, history) = tree.which_child_with_history("a").await.expect("a child");
    assert_eq!(nexts(&history), [restart(1, 1, 2), restart(2, 2, 2), restart(4, 0, 2), Some(Next::Failed)]);
}

#[tokio::test(start_paused = true)]
async fn an_escalation_names_the_limit_and_the_child_below_that_exceeded_it() {
    let leaf = MockChild::new("leaf", &Journal::default());
    let group = supervisor(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::worker("other"), MockChild::new("other", &Journal::default()))
        .child(ChildSpec::worker("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::worker("calm"), MockChild::new("calm", &Journal::default()))
        .child(ChildSpec::supervisor("group"), group)
        .start()
        .await
        .expect("starts");
    let group_fails = "restart intensity of 1 in 3600s exceeded by child `leaf`: error: no disk";
    // The group restarts it once and gives up at its second crash.
    leaf.crash_and_restart("no disk").await;
    leaf.crash_and_restart("no disk").await;
    tree.wait_for("group", |group| group.ready && group.incarnation.get() == 2).await.expect("comes back");
    let (_, history) = tree.which_child_with_history("group").await.expect("a child");
    assert_eq!(history.exits[0].report.cause, Cause::LimitReached { message: group_fails.to_owned() });
    assert_eq!(nexts(&history), [restart(0, 1, 1)]);
    leaf.crash_and_restart("no disk").await;
    leaf.crash("no disk");
    tree.ended().await;
    let report = tree.shutdown().await;
    assert_eq!(report.exit, Exit::Escalated);
    let message =
        format!("restart intensity of 1 in 3600s exceeded by child `group`: limit reached: {group_fails}");
    assert_eq!(report.cause, Cause::LimitReached { message });
    assert_eq!(
        paths(&report.failed),
        ["group/leaf", "group"],
        "the child that it began with is in the report"
    );
    assert_eq!(paths(&report.stopped), ["group/other", "calm"]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_failure_of_a_nested_supervisor_is_no_part_of_a_later_end() {
    let (leaf, bad) =
        (MockChild::new("leaf", &Journal::default()), MockChild::new("bad", &Journal::default()));
    let group = supervisor(flags(Strategy::OneForOne, 0)).child(ChildSpec::worker("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("group"), group)
        .child(ChildSpec::worker("bad"), bad.clone())
        .start()
        .await
        .expect("starts");
    leaf.crash_and_restart("once").await;
    tree.wait_for("group", |group| group.ready && group.incarnation.get() == 2).await.expect("comes back");
    bad.crash("and once more");
    let report = tree.shutdown().await;
    assert_eq!(paths(&report.failed), ["bad"]);
    assert_eq!(paths(&report.stopped), ["group/leaf", "group"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_by_significant_children_says_so() {
    let spec = SupervisorSpec { auto_shutdown: AutoShutdown::AnySignificant, ..SupervisorSpec::default() };
    let job = MockChild::new("job", &Journal::default());
    let child = ChildSpec { significant: true, restart: RestartType::Transient, ..ChildSpec::worker("job") };
    let tree = Supervisor::builder(spec).child(child, job.clone()).start().await.expect("starts");
    job.end(Exit::Normal);
    assert_eq!(tree.ended().await.to_string(), "stopped: auto_shutdown: its significant children ended");
    assert_eq!(told(&tree, "job"), [(Cause::Finished { reason: None }, Some(Next::Rest))]);
}

#[tokio::test(start_paused = true)]
async fn what_a_deep_tree_says_of_its_end_is_bounded() {
    let leaf = MockChild::new("leaf", &Journal::default());
    let innermost = supervisor(flags(Strategy::OneForOne, 0)).child(ChildSpec::worker("leaf"), leaf.clone());
    let nested = (0..50).fold(innermost, |below, level| {
        supervisor(flags(Strategy::OneForOne, 0)).child(ChildSpec::supervisor(format!("ö{level}")), below)
    });
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 0))
        .child(ChildSpec::supervisor("top"), nested)
        .start()
        .await
        .expect("starts");
    leaf.crash("no disk");
    let why = tree.ended().await.to_string();
    assert!(
        why.len() < 700 && why.contains("child `top`: [..] ") && why.ends_with("error: no disk"),
        "{why}"
    );
}
