//! Addresses of actors that survive restarts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use xy_actors::child::{Child, actor, task};
use xy_actors::policy::State;
use xy_actors::spec::{Backoff, ChildSpec, RestartType, Strategy, SupervisorSpec};
use xy_actors::supervisor::{
    Address, CallError, StartOutcome, Supervisor, Unreachable, WhileDown, supervisor,
};
use xy_actors::testkit::{Journal, MockChild};

use crate::support::flags;

const HOUR: Duration = Duration::from_secs(3600);

/// An actor that knows which start of its child it is.
struct Clerk(u64);

pub(crate) enum Order {
    /// Which start are you?
    Which(RpcReplyPort<u64>),
    /// Fail with the question unanswered.
    FailAsked(RpcReplyPort<u64>),
    /// Keep the question for good.
    Keep(RpcReplyPort<u64>),
    Fail(&'static str),
    /// Note this number of this sender, then fail if it is told to.
    Note {
        sender: u64,
        number: u64,
        fail: bool,
        notes: Arc<Mutex<Vec<(u64, u64, u64)>>>,
    },
}

#[cfg(feature = "cluster")]
impl ractor::Message for Order {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Clerk {
    type Msg = Order;
    type State = Vec<RpcReplyPort<u64>>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Order>,
        order: Order,
        kept: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Which(reply) => reply.send(self.0)?,
            Order::FailAsked(reply) => {
                drop(reply);
                return Err("asked to fail".into());
            }
            Order::Keep(reply) => kept.push(reply),
            Order::Fail(why) => return Err(why.into()),
            Order::Note { sender, number, fail, notes } => {
                notes.lock().expect("no panic").push((self.0, sender, number));
                if fail {
                    return Err("told to fail".into());
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn clerk() -> impl Child {
    let starts = AtomicU64::new(0);
    actor(move || (Clerk(starts.fetch_add(1, Ordering::Relaxed) + 1), ()))
}

/// A clerk's spec, restarted only after this delay.
fn patient(id: &str, delay: Duration) -> ChildSpec {
    let backoff = Backoff { base: delay, max: delay, jitter: 0.0, ..Backoff::default() };
    ChildSpec { backoff: Some(backoff), ..ChildSpec::worker(id) }
}

async fn tree_of(spec: ChildSpec) -> Supervisor {
    Supervisor::builder(flags(Strategy::OneForOne, 100)).child(spec, clerk()).start().await.expect("starts")
}

pub(crate) async fn which(address: &Address<Order>) -> Result<u64, CallError> {
    address.call(HOUR, Order::Which).await
}

/// Makes the child fail and waits until its supervisor has dealt with that.
async fn fail(tree: &Supervisor, path: &str) {
    let (owner, before) = tree.lookup(path).await.expect("is there");
    tree.addr(path).send(Order::Fail("told to")).await.expect("lives");
    let ended = |child: &xy_actors::supervisor::ChildInfo| {
        child.last_exit.as_ref().is_some_and(|exit| exit.incarnation == before.incarnation)
    };
    owner.wait_for(before.key, ended).await.expect("ends");
}

fn waiting(address: Address<Order>, limit: Duration) -> Address<Order> {
    address.while_down(WhileDown::Wait { limit })
}

#[tokio::test(start_paused = true)]
async fn an_address_leads_to_the_incarnation_that_lives_now() {
    let tree = tree_of(ChildSpec::worker("clerk")).await;
    let by_id = tree.addr("clerk");
    let by_key = tree.addr(tree.which_child("clerk").await.expect("child").key);
    for incarnation in 1..=3 {
        for address in [&by_id, &by_key, &by_id.clone()] {
            assert_eq!(which(address).await, Ok(incarnation));
        }
        fail(&tree, "clerk").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_for_a_child_that_is_down_is_given_back_at_once() {
    let tree = tree_of(patient("clerk", HOUR)).await;
    let (used, unused) = (tree.addr("clerk"), tree.addr("clerk"));
    assert_eq!(which(&used).await, Ok(1));
    fail(&tree, "clerk").await;
    let before = Instant::now();
    for address in [used, unused] {
        let error = address.send(Order::Fail("mine")).await.expect_err("nobody is there");
        assert_eq!(error.reason, Unreachable::Down("clerk".into()));
        assert!(matches!(error.message, Order::Fail("mine")));
        assert_eq!(which(&address).await, Err(CallError::NotSent(Unreachable::Down("clerk".into()))));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_reaches_the_next_incarnation() {
    let tree = tree_of(patient("clerk", HOUR)).await;
    let (used, unused) = (waiting(tree.addr("clerk"), 2 * HOUR), waiting(tree.addr("clerk"), 2 * HOUR));
    used.actor().await.expect("lives");
    fail(&tree, "clerk").await;
    let before = Instant::now();
    let notes = Arc::default();
    let note = |number| Order::Note { sender: 0, number, fail: false, notes: Arc::clone(&notes) };
    let (first, second) = tokio::join!(used.send(note(1)), unused.send(note(2)));
    first.and(second).expect("it came back");
    assert_eq!(before.elapsed(), HOUR);
    assert_eq!(which(&used).await, Ok(2));
    assert_eq!(*notes.lock().expect("no panic"), [(2, 0, 1), (2, 0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_back_after_exactly_the_limit_of_its_wait() {
    let tree = tree_of(patient("clerk", HOUR)).await;
    let address = waiting(tree.addr("clerk"), Duration::from_secs(7));
    fail(&tree, "clerk").await;
    let before = Instant::now();
    let error = address.send(Order::Fail("mine")).await.expect_err("nobody came");
    assert_eq!(before.elapsed(), Duration::from_secs(7));
    assert_eq!(error.reason, Unreachable::Down("clerk".into()));
    assert!(matches!(error.message, Order::Fail("mine")));
    let called = address.call(Duration::from_secs(3), Order::Which).await;
    let timeout = Duration::from_secs(3);
    assert_eq!(called, Err(CallError::TimedOut { child: "clerk".into(), timeout }));
    assert_eq!(before.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_end_has_no_deadline_that_overflows() {
    let tree = tree_of(patient("clerk", HOUR)).await;
    fail(&tree, "clerk").await;
    assert_eq!(
        which(&waiting(tree.addr("clerk"), Duration::MAX)).await,
        Err(CallError::TimedOut { child: "clerk".into(), timeout: HOUR })
    );
    tree.start("clerk", None).await.expect("starts");
    assert_eq!(which(&waiting(tree.addr("clerk"), Duration::MAX)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_address_by_id_ends_with_the_child_and_leads_to_the_next_of_that_id() {
    let tree = tree_of(ChildSpec::worker("other")).await;
    let by_id = waiting(tree.addr("clerk"), HOUR);
    let gone = |child| Err(CallError::NotSent(Unreachable::NotFound(child)));
    assert_eq!(which(&by_id).await, gone("clerk".into()), "there never was one");
    let started = tree.start_child(ChildSpec::worker("clerk"), clerk()).await.expect("starts");
    let StartOutcome::Started { child, .. } = started else { panic!("{started:?}") };
    let by_key = waiting(tree.addr(child), HOUR);
    assert_eq!((which(&by_id).await, which(&by_key).await), (Ok(1), Ok(1)));
    let before = Instant::now();
    tree.remove("clerk", None).await.expect("is removed");
    assert_eq!((which(&by_id).await, which(&by_key).await), (gone("clerk".into()), gone(child.into())));
    assert_eq!(before.elapsed(), Duration::ZERO, "what is gone is not waited for");
    tree.start_child(ChildSpec::worker("clerk"), clerk()).await.expect("starts");
    assert_eq!((which(&by_id).await, which(&by_key).await), (Ok(1), gone(child.into())));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_child_is_removed_or_its_supervisor_ends() {
    let tree = tree_of(patient("clerk", HOUR)).await;
    let address = waiting(tree.addr("clerk"), HOUR / 2);
    fail(&tree, "clerk").await;
    let before = Instant::now();
    let (reached, _removed) = tokio::join!(address.actor(), tree.remove("clerk", None));
    assert_eq!(reached.map(drop), Err(Unreachable::NotFound("clerk".into())));
    tree.start_child(patient("clerk", HOUR), clerk()).await.expect("starts");
    fail(&tree, "clerk").await;
    let (reached, _report) = tokio::join!(address.actor(), tree.shutdown());
    assert_eq!(reached.map(drop), Err(Unreachable::SupervisorGone));
    assert_eq!(which(&tree.addr("clerk")).await, Err(CallError::NotSent(Unreachable::SupervisorGone)));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_takes_no_such_messages_is_refused_by_type() {
    struct Other;
    #[cfg(feature = "cluster")]
    impl ractor::Message for Other {}

    let pool = supervisor(SupervisorSpec::new(Strategy::SimpleOneForOne));
    let idle = task(|context| async move {
        context.stopped().await;
        Ok(())
    });
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::worker("clerk"), clerk())
        .child(ChildSpec::worker("task"), idle)
        .child(ChildSpec::worker("mock"), MockChild::new("mock", &Journal::default()))
        .child(ChildSpec::supervisor("pool"), pool)
        .start()
        .await
        .expect("starts");
    let error = tree.addr("clerk").send(Other).await.expect_err("another type");
    assert!(error.to_string().starts_with("child `clerk` takes no messages of type `"), "{error}");
    assert!(matches!(error.reason, Unreachable::MessageType { message, .. } if message.ends_with("Other")));
    for child in ["task", "mock", "pool"] {
        let error = waiting(tree.addr(child), HOUR).actor().await.map(drop);
        assert_eq!(error, Err(Unreachable::NoActor(child.into())));
    }
    let reached = |path: &'static str| {
        let address = waiting(tree.addr(path), HOUR);
        async move { address.actor().await.map(drop) }
    };
    assert_eq!(reached("pool/clerk").await, Err(Unreachable::SimpleOneForOne("pool/clerk".into())));
    for path in ["clerk/leaf", "none/leaf", "none", "", "/"] {
        assert_eq!(reached(path).await, Err(Unreachable::NotFound(path.into())), "{path}");
    }
}

/// A clerk under two supervisors, the lower of which gives up at its first crash and comes back after `delay`.
async fn nested(delay: Duration) -> Supervisor {
    let group = supervisor(flags(Strategy::OneForOne, 0)).child(ChildSpec::worker("clerk"), clerk());
    let floor = supervisor(flags(Strategy::OneForOne, 100))
        .child(ChildSpec { backoff: patient("", delay).backoff, ..ChildSpec::supervisor("group") }, group);
    Supervisor::builder(flags(Strategy::OneForOne, 100))
        .child(ChildSpec::supervisor("floor"), floor)
        .start()
        .await
        .expect("starts")
}

#[tokio::test(start_paused = true)]
async fn an_address_by_path_survives_restarts_of_the_supervisors_on_the_way() {
    let tree = nested(HOUR).await;
    let path = "floor/group/clerk";
    let (rejects, waits) = (tree.addr(path), waiting(tree.addr(path), 2 * HOUR));
    assert_eq!((which(&rejects).await, which(&waits).await), (Ok(1), Ok(1)));
    let group = tree.lookup("floor/group").await.expect("is there");
    tree.addr(path).send(Order::Fail("told to")).await.expect("lives");
    group.0.wait_for("group", |group| group.state == State::Restarting).await.expect("gives up");
    let down = Err(CallError::NotSent(Unreachable::Down(path.into())));
    assert_eq!(which(&rejects).await, down);
    assert_eq!(which(&tree.addr(path)).await, down);
    assert!(rejects.known().is_none());
    let before = Instant::now();
    waits.actor().await.expect("comes back");
    assert_eq!(before.elapsed(), HOUR);
    assert_eq!((which(&rejects).await, which(&waits).await), (Ok(2), Ok(2)));
    // The whole floor, twice: nothing of it is the same.
    for start in [3, 4] {
        tree.restart("floor", None).await.expect("is restarted");
        assert_eq!((which(&rejects).await, which(&waits).await), (Ok(start), Ok(start)));
        assert!(rejects.known().is_some());
    }
    tree.remove("floor", None).await.expect("is removed");
    let gone = Err(CallError::NotSent(Unreachable::NotFound(path.into())));
    assert_eq!((which(&rejects).await, which(&waits).await), (gone.clone(), gone));
}

#[tokio::test(start_paused = true)]
async fn an_address_ends_with_the_supervisor_it_was_taken_from() {
    let tree = nested(Duration::ZERO).await;
    let floor = tree.child_supervisor("floor").await.expect("a supervisor");
    let address = waiting(floor.addr("group/clerk"), HOUR);
    assert_eq!(which(&address).await, Ok(1));
    tree.restart("floor", None).await.expect("is restarted");
    assert_eq!(which(&address).await, Err(CallError::NotSent(Unreachable::SupervisorGone)));
    assert_eq!(which(&tree.addr("floor/group/clerk")).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_says_so_and_is_not_put_again() {
    let tree = tree_of(ChildSpec::worker("clerk")).await;
    let address = waiting(tree.addr("clerk"), HOUR);
    let failed = address.call(HOUR, Order::FailAsked).await;
    assert_eq!(failed, Err(CallError::NoReply("clerk".into())));
    assert_eq!(which(&address).await, Ok(2), "it crashed once");
    let before = Instant::now();
    let timeout = Duration::from_secs(5);
    let kept = address.call(timeout, Order::Keep).await;
    assert_eq!(kept, Err(CallError::TimedOut { child: "clerk".into(), timeout }));
    assert_eq!(before.elapsed(), timeout);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_child_is_down_until_somebody_starts_it() {
    let spec = ChildSpec { restart: RestartType::Transient, ..ChildSpec::worker("clerk") };
    let tree = tree_of(spec).await;
    let (rejects, waits) = (tree.addr("clerk"), waiting(tree.addr("clerk"), HOUR));
    assert!(rejects.known().is_none(), "nobody has asked yet");
    assert_eq!(which(&rejects).await, Ok(1));
    assert_eq!(rejects.clone().known(), Some(rejects.actor().await.expect("lives")));
    tree.stop("clerk", None).await.expect("stops");
    assert_eq!(which(&rejects).await, Err(CallError::NotSent(Unreachable::Down("clerk".into()))));
    assert!(rejects.known().is_none());
    let (answer, _started) = tokio::join!(which(&waits), tree.start("clerk", None));
    assert_eq!(answer, Ok(2));
}

/// On real threads, so that sends meet crashes at any point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_a_crash_loop_each_message_is_given_back_or_handled_once_at_most_and_in_order() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 500;
    let tree = Supervisor::builder(SupervisorSpec { intensity: None, ..SupervisorSpec::default() })
        .child(ChildSpec::worker("clerk"), clerk())
        .start()
        .await
        .expect("starts");
    let notes = Arc::new(Mutex::new(Vec::new()));
    let address = tree.addr::<Order>("clerk");
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let patient = address.clone().while_down(WhileDown::Wait { limit: Duration::from_secs(60) });
            let (rejects, notes) = (address.clone(), notes.clone());
            tokio::spawn(async move {
                let mut rejected = Vec::new();
                for number in 0..MESSAGES {
                    let fail = number % 7 == 3;
                    let note = Order::Note { sender, number, fail, notes: notes.clone() };
                    if number % 2 == 0 {
                        patient.send(note).await.expect("it comes back");
                    } else if let Err(error) = rejects.send(note).await {
                        assert_eq!(error.reason, Unreachable::Down("clerk".into()));
                        rejected.push((sender, number));
                    }
                    if fail {
                        // Met by the crash, or answered: either way the queue is empty for a moment.
                        drop(which(&patient).await);
                    }
                }
                rejected
            })
        })
        .collect();
    let mut rejected = Vec::new();
    for sender in senders {
        rejected.extend(sender.await.expect("no panic"));
    }
    let mut handled = HashMap::new();
    // One that is answered comes after all others; one that is not met the crash of an earlier one.
    let last = waiting(address, HOUR);
    while which(&last).await.is_err() {}
    let notes = notes.lock().expect("no panic");
    let mut latest = HashMap::new();
    for &(start, sender, number) in &*notes {
        *handled.entry((sender, number)).or_insert(0) += 1;
        let before = latest.insert((start, sender), number);
        assert!(before.is_none_or(|before| before < number), "out of order: {before:?}, {number}");
    }
    assert!(handled.values().all(|&times| times == 1), "handled twice");
    assert!(rejected.iter().all(|message| !handled.contains_key(message)), "given back and handled");
    assert!(notes.iter().any(|&(start, ..)| start > 10), "it crashed all the while");
}

#[tokio::test]
async fn an_address_can_be_shared_between_threads_whatever_its_messages_are() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let tree = Supervisor::builder(SupervisorSpec::default()).start().await.expect("starts");
    // A reply port can be sent to another thread, but not shared between threads.
    shared(&tree.addr::<Order>("clerk"));
}
