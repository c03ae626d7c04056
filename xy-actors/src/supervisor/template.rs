//! One spec and one recipe for many children of a simple_one_for_one supervisor.

use std::fmt;
use std::sync::Arc;

use crate::child::Child;
use crate::spec::ChildSpec;
use crate::supervisor::{OperationError, StartOutcome, Supervisor};

/// What all children of a simple_one_for_one supervisor have in common: their spec, and how one is made from an argument.
///
/// A template is a value of its own, so that its argument keeps its type however the supervisor was come by. Each child
/// keeps what was made from its own argument, and is restarted with it; both go when the child does. What all children
/// share (Elixir's extra_arguments) is captured by the function that makes them.
///
/// ```
/// use xy_actors::child::task;
/// use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
/// use xy_actors::supervisor::{StartOutcome, Supervisor, Template};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Supervisor::builder(SupervisorSpec::new(Strategy::SimpleOneForOne)).start().await?;
/// let session = Template::new(ChildSpec::worker("session"), |port: u16| {
///     task(move |context| async move {
///         println!("session on port {port}");
///         context.stopped().await;
///         Ok(())
///     })
/// });
/// let StartOutcome::Started { child, .. } = session.start_child(&pool, 8421).await? else {
///     return Err("did not start".into());
/// };
/// pool.terminate_child(child).await?;
/// # Ok(())
/// # }
/// ```
pub struct Template<A> {
    spec: Arc<ChildSpec>,
    make: Make<A>,
}

type Make<A> = Arc<dyn Fn(A) -> Arc<dyn Child> + Send + Sync>;

impl<A> Template<A> {
    /// Creates a template. `make` is called once for each child, with the argument it is started with.
    pub fn new<C: Child>(spec: ChildSpec, make: impl Fn(A) -> C + Send + Sync + 'static) -> Self {
        Self { spec: Arc::new(spec), make: Arc::new(move |argument| Arc::new(make(argument))) }
    }

    /// Returns the spec of the children.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// Starts one more child and waits until it is ready (OTP's start_child with extra arguments).
    ///
    /// # Errors
    /// As [`Supervisor::start_child`]; with a supervisor of another strategy a second child of the same id is refused.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child starts all the same.
    pub async fn start_child(
        &self,
        supervisor: &Supervisor,
        argument: A,
    ) -> Result<StartOutcome, OperationError> {
        supervisor.start_recipe(self.spec.clone(), (self.make)(argument)).await
    }
}

impl<A> Clone for Template<A> {
    fn clone(&self) -> Self {
        Self { spec: self.spec.clone(), make: self.make.clone() }
    }
}

impl<A> fmt::Debug for Template<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("spec", &self.spec).finish_non_exhaustive()
    }
}
