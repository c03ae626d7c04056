//! Any ractor actor as a child.

use std::fmt;

use ractor::{Actor, ActorCell, SpawnErr};

use super::{Child, StartContext, StartError, StartFuture, Started};

/// A child that is a ractor actor; see [`actor`].
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
pub fn actor<A, F>(make: F) -> ActorChild<F>
where
    A: Actor,
    F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
{
    ActorChild { make }
}

impl<A, F> Child for ActorChild<F>
where
    A: Actor,
    F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
{
    fn start(&self, context: StartContext) -> StartFuture {
        let (handler, arguments) = (self.make)();
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
