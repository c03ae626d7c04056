//! A supervisor as the child of another.

use std::fmt;
use std::sync::Arc;

use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use crate::child::{Child, Running, StartContext, StartError, StartFuture, Started};
use crate::exit::Exit;
use crate::spec::{ChildSpec, SpecError, SupervisorSpec};
use crate::supervisor::actor::{SupervisorActor, SupervisorArguments};
#[cfg(feature = "process")]
use crate::supervisor::handover::{HandOverFuture, LiveState};
use crate::supervisor::message::SupervisorMessage;
use crate::supervisor::{Life, Recipes, Supervisor, policy_of};

/// A child that is a supervisor; see [`supervisor`].
pub struct SupervisorChild {
    spec: SupervisorSpec,
    children: Recipes,
}

impl fmt::Debug for SupervisorChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorChild").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Makes a child of a supervisor. It is ready when its initial children have been started.
///
/// Give it a spec made with [`ChildSpec::supervisor`], whose shutdown is infinite: a supervisor that is killed cannot
/// stop its children in order.
///
/// ```
/// use std::time::Duration;
///
/// use xy_actors::child::task;
/// use xy_actors::spec::{ChildSpec, RestartIntensity, Strategy, SupervisorSpec};
/// use xy_actors::supervisor::{Supervisor, supervisor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let idle = task(|context| async move { Ok(context.stopped().await) });
/// // If the database ends, the web server is restarted after it; the fourth crash within a minute is the root's problem.
/// let flags = SupervisorSpec {
///     intensity: Some(RestartIntensity::new(3, Duration::from_secs(60))),
///     ..SupervisorSpec::new(Strategy::RestForOne)
/// };
/// let shop = supervisor(flags)
///     .child(ChildSpec::worker("database"), idle.clone())
///     .child(ChildSpec::worker("web"), idle.clone());
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::worker("clock"), idle)
///     .child(ChildSpec::supervisor("shop"), shop)
///     .start()
///     .await?;
/// // Children of children are found by path; their supervisor has all operations of the root.
/// let (shop, web) = tree.lookup("shop/web").await?;
/// assert_eq!((web.path.as_str(), shop.path().as_str()), ("shop/web", "shop"));
/// shop.restart("web", None).await?;
/// tree.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// A handle such as `shop` leads to this incarnation of the supervisor. When that is restarted, ask the root again.
pub fn supervisor(spec: SupervisorSpec) -> SupervisorChild {
    SupervisorChild { spec, children: Vec::new() }
}

impl SupervisorChild {
    /// Adds a child; children start in the order in which they are added.
    #[must_use]
    pub fn child(mut self, spec: impl Into<Arc<ChildSpec>>, child: impl Child) -> Self {
        self.children.push((spec.into(), Arc::new(child)));
        self
    }

    /// Checks the specs of the supervisor and its children.
    ///
    /// # Errors
    /// Names the first rule that one breaks; a start fails for the same reason.
    pub fn validate(&self) -> Result<(), SpecError> {
        policy_of(self.spec.clone(), &self.children, 0).map(drop)
    }
}

impl Child for SupervisorChild {
    fn start(&self, context: StartContext) -> StartFuture {
        let seed = context.incarnation.get();
        let arguments = SupervisorArguments::new(
            self.spec.clone(),
            self.children.clone(),
            seed,
            context.path.clone(),
            context.parent().tree.clone(),
            Some(context.reporter.clone()),
        );
        Box::pin(spawn(arguments, context))
    }

    #[cfg(feature = "process")]
    fn take_up(&self, context: StartContext, state: LiveState) -> StartFuture {
        let LiveState::Supervisor(state) = state else { return self.start(context) };
        let arguments = SupervisorArguments::taken_up(
            self.spec.clone(),
            self.children.clone(),
            *state,
            context.parent().tree.origin(),
            context.path.clone(),
            context.parent().tree.clone(),
            Some(context.reporter.clone()),
        );
        Box::pin(spawn(arguments, context))
    }
}

/// Spawns the supervisor's actor; its children begin, or are taken up, by a message of its own and not here, where a deep
/// tree would nest as many polls.
async fn spawn(
    arguments: Result<(SupervisorArguments, watch::Receiver<Life>), impl fmt::Display>,
    context: StartContext,
) -> Result<Started, StartError> {
    let (arguments, life) = arguments.map_err(StartError::failed)?;
    let spawned = Actor::spawn_linked(None, SupervisorActor, arguments, context.supervisor()).await;
    let (actor, _join) = spawned.map_err(StartError::failed)?;
    let tree = context.parent().tree.clone();
    let supervisor = Supervisor { actor: actor.clone(), path: context.path, tree, life };
    Ok(Started::Running(Box::new(RunningSupervisor { actor, supervisor, ended: false })))
}

struct RunningSupervisor {
    actor: ActorRef<SupervisorMessage>,
    supervisor: Supervisor,
    ended: bool,
}

impl Running for RunningSupervisor {
    fn stop(&mut self) {
        let _gone =
            self.actor.send_message(SupervisorMessage::Shutdown { exit: Exit::Shutdown, reason: None });
    }

    fn kill(&mut self) {
        let _gone = self.actor.send_message(SupervisorMessage::Kill);
    }

    fn supervisor(&self) -> Option<Supervisor> {
        Some(self.supervisor.clone())
    }

    #[cfg(feature = "process")]
    fn hand_over(&mut self, now: std::time::Instant) -> Option<HandOverFuture> {
        let supervisor = self.supervisor.clone();
        Some(Box::pin(async move {
            let (state, descriptors) = supervisor.hand_over_at(now).await?;
            Ok(Some((LiveState::Supervisor(Box::new(state)), descriptors)))
        }))
    }

    #[cfg(feature = "process")]
    fn go_on(&mut self) {
        let _gone = self.actor.send_message(SupervisorMessage::GoOn);
    }

    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for RunningSupervisor {
    fn drop(&mut self) {
        // One that leaked is told once more.
        if !self.ended {
            let _gone = self.actor.send_message(SupervisorMessage::Kill);
        }
    }
}
