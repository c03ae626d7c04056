//! Any ractor actor as a child.

use std::fmt;

use ractor::{Actor, ActorCell, SpawnErr};

use super::{Child, StartContext, StartError, StartFuture, Started};

/// A child that is a ractor actor; made by [`actor`] and [`actor_with`].
pub struct ActorChild<F> {
    make: F,
}

impl<F> fmt::Debug for ActorChild<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorChild").finish_non_exhaustive()
    }
}

/// Makes a child of any ractor actor. `make` is called for each incarnation and gives the actor and its arguments.
///
/// The actor is linked to its supervisor. It is ready when `pre_start` has returned; an error there is a failed start.
/// A stop goes through `post_stop`; returning an error or panicking is an abnormal exit, `stop(None)` by anybody else a
/// normal one.
///
/// ```
/// use ractor::{Actor, ActorProcessingErr, ActorRef};
/// use xy_actors::child::actor;
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::Supervisor;
///
/// struct Greeter;
///
/// impl Actor for Greeter {
///     type Msg = String;
///     type State = usize;
///     type Arguments = usize;
///
///     async fn pre_start(&self, _: ActorRef<String>, first: usize) -> Result<usize, ActorProcessingErr> {
///         Ok(first)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::worker("greeter"), actor(|| (Greeter, 1)))
///     .start()
///     .await?;
/// # tree.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// An actor that is to know another one's address is made by [`actor_with`].
pub fn actor<A, F>(make: F) -> ActorChild<impl Fn(&StartContext) -> (A, A::Arguments) + Send + Sync + 'static>
where
    A: Actor,
    F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
{
    actor_with(move |_| make())
}

/// Makes a child of any ractor actor, as [`actor`] does, from what each start of it is told: its path, which start it is,
/// and where to reach other actors.
///
/// Two actors that know each other. Either may be restarted, alone or together with the supervisor of both, and each
/// reaches whichever incarnation of the other there is:
///
/// ```
/// use std::time::Duration;
///
/// use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
/// use xy_actors::child::actor_with;
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::{Address, Supervisor};
///
/// /// Says its name, or asks the other one for his.
/// struct Twin {
///     name: &'static str,
///     other: Address<Question>,
/// }
///
/// enum Question {
///     Name(RpcReplyPort<&'static str>),
///     OtherName(RpcReplyPort<&'static str>),
/// }
/// # #[cfg(feature = "cluster")]
/// # impl ractor::Message for Question {}
///
/// # #[cfg_attr(feature = "async-trait", ractor::async_trait)]
/// impl Actor for Twin {
///     type Msg = Question;
///     type State = ();
///     type Arguments = ();
///
///     async fn pre_start(&self, _: ActorRef<Question>, (): ()) -> Result<(), ActorProcessingErr> {
///         Ok(())
///     }
///
///     async fn handle(&self, _: ActorRef<Question>, asked: Question, (): &mut ()) -> Result<(), ActorProcessingErr> {
///         match asked {
///             Question::Name(reply) => reply.send(self.name)?,
///             Question::OtherName(reply) => {
///                 reply.send(self.other.call(Duration::from_secs(1), Question::Name).await?)?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let castor = actor_with(|context| (Twin { name: "Castor", other: context.addr("pollux") }, ()));
/// let pollux = actor_with(|context| (Twin { name: "Pollux", other: context.addr("castor") }, ()));
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::worker("castor"), castor)
///     .child(ChildSpec::worker("pollux"), pollux)
///     .start()
///     .await?;
/// let castor = tree.addr("castor");
/// assert_eq!(castor.call(Duration::from_secs(1), Question::OtherName).await?, "Pollux");
/// # tree.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// Taking an address asks nobody and never waits. Using it in `pre_start` is another matter: by then a child of an
/// [ordered](crate::spec::Order::Ordered) supervisor can reach those before it, and those after it are down until it is
/// ready itself, so that [waiting](crate::supervisor::WhileDown::Wait) for one of them there takes the whole limit.
pub fn actor_with<A, F>(make: F) -> ActorChild<F>
where
    A: Actor,
    F: Fn(&StartContext) -> (A, A::Arguments) + Send + Sync + 'static,
{
    ActorChild { make }
}

impl<A, F> Child for ActorChild<F>
where
    A: Actor,
    F: Fn(&StartContext) -> (A, A::Arguments) + Send + Sync + 'static,
{
    fn start(&self, context: StartContext) -> StartFuture {
        let (handler, arguments) = (self.make)(&context);
        Box::pin(async move {
            let spawned = A::spawn_linked(None, handler, arguments, context.supervisor()).await;
            match spawned {
                Ok((actor, _join)) => Ok(Started::Actor(LinkedActor::from(actor.get_cell()))),
                Err(error) => Err(start_error(&error)),
            }
        })
    }
}

/// Takes the actor's own words out of ractor's wrapping, which calls every failed start a panic.
fn start_error(error: &SpawnErr) -> StartError {
    match error {
        SpawnErr::StartupFailed(inner) => StartError::failed(inner),
        other => StartError::failed(other),
    }
}

/// A living actor that is linked to its supervisor, so that it never outlives it. Dropped before it ended, it is killed.
#[derive(Debug)]
pub struct LinkedActor(Option<ActorCell>);

/// The reason given to an actor that its supervisor stops.
pub(crate) const STOP_REASON: &str = "shutdown";

impl From<ActorCell> for LinkedActor {
    /// Takes over an actor that was spawned linked to [`StartContext::supervisor`].
    fn from(cell: ActorCell) -> Self {
        Self(Some(cell))
    }
}

impl LinkedActor {
    pub(crate) fn cell(&self) -> Option<&ActorCell> {
        self.0.as_ref()
    }

    pub(crate) fn stop(&self) {
        if let Some(cell) = &self.0 {
            cell.stop(Some(STOP_REASON.to_owned()));
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(cell) = &self.0 {
            cell.kill();
        }
    }

    /// Notes that nothing is left to kill.
    pub(crate) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for LinkedActor {
    fn drop(&mut self) {
        // One that leaked is told once more.
        self.kill();
    }
}
