//! Addresses of actor children that survive restarts: sends and calls with a policy for while the child is down.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ractor::{ActorCell, ActorId, ActorRef, ActorStatus, Message, MessagingErr, RpcReplyPort};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::policy::Refusal;
use crate::supervisor::line::Line;
use crate::supervisor::message::SupervisorMessage;
use crate::supervisor::{ChildRef, OperationError, Supervisor};

/// What becomes of a message for a child that is down, that is: has no incarnation that takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileDown {
    /// It is given back at once.
    #[default]
    Reject,
    /// The next incarnation is waited for, and the message given back when this time is over.
    Wait {
        /// The longest wait.
        limit: Duration,
    },
}

/// Where to reach an actor child, whichever incarnation of it lives now. Made by [`Supervisor::addr`].
///
/// Cheap to clone; clones share what they know of the way. While the child lives a send costs two uncontended locks more
/// than one through an [`ActorRef`], and asks no supervisor.
///
/// # What is not promised
///
/// A message is sent to at most one incarnation, and accepted means queued, not handled: a message that the incarnation
/// has not handled when it ends is lost, and nobody is told. So is one sent to an incarnation that is about to end. Where
/// that matters, [`call`](Self::call) and try again, with messages that may be handled twice. Messages of one sender to
/// one incarnation arrive in order.
pub struct Address<M> {
    route: Arc<Route>,
    while_down: WhileDown,
    message: PhantomData<fn(M)>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { route: self.route.clone(), while_down: self.while_down, message: PhantomData }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("child", &self.route.child)
            .field("while_down", &self.while_down)
            .finish_non_exhaustive()
    }
}

/// Why nobody was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// The child, or a supervisor on the way to it, is down, or was so until the limit of [`WhileDown::Wait`] was over.
    #[error("child `{0}` is not running")]
    Down(ChildRef),
    /// There is no such child, or it has been removed.
    #[error("no child is called `{0}`")]
    NotFound(ChildRef),
    /// Children of a simple_one_for_one supervisor are named by their keys.
    #[error("child `{0}` of a simple_one_for_one supervisor has no id of its own")]
    SimpleOneForOne(ChildRef),
    /// The child is no actor.
    #[error("child `{0}` is no actor")]
    NoActor(ChildRef),
    /// The child is an actor with messages of another type.
    #[error("child `{child}` takes no messages of type `{message}`")]
    MessageType {
        /// The child.
        child: ChildRef,
        /// The address's type of messages.
        message: &'static str,
    },
    /// The supervisor that the address was taken from has ended.
    #[error("the supervisor has ended")]
    SupervisorGone,
}

/// Why a message was not sent, with the message.
///
/// An error like any other where the message is `Sync`, as most are. For one that is not, `?` needs the reason alone:
/// `.map_err(|error| error.reason)?`.
pub struct SendError<M> {
    /// The message.
    pub message: M,
    /// Why.
    pub reason: Unreachable,
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<M> std::error::Error for SendError<M> {}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody was asked.
    #[error(transparent)]
    NotSent(Unreachable),
    /// The child was asked, and ended or dropped the question without an answer.
    #[error("child `{0}` did not answer")]
    NoReply(ChildRef),
    /// The time is over. The child may have been asked, and may still do what it was asked for.
    #[error("child `{child}` did not answer within {timeout:?}")]
    TimedOut {
        /// The child.
        child: ChildRef,
        /// The time.
        timeout: Duration,
    },
}

impl Supervisor {
    /// Returns the address of an actor child, by its id, its key or a path of ids such as `group/cache`.
    ///
    /// A child gets the addresses of other children from what its start is told, not from here: see
    /// [`actor_with`](crate::child::actor_with) and [`TaskContext::addr`](crate::child::TaskContext::addr).
    ///
    /// Nothing is asked or checked before the address is first used, so it may be taken of a child that is added later. By
    /// id it leads to whichever child has that id, and a path through nested supervisors that restart is walked again from
    /// this supervisor; by key it leads to this one child. With this supervisor's end its addresses end, so take them from
    /// the root where a supervisor between may restart.
    ///
    /// ```
    /// use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
    /// use xy_actors::child::actor;
    /// use xy_actors::spec::{ChildSpec, SupervisorSpec};
    /// use xy_actors::supervisor::{Supervisor, WhileDown};
    /// # use std::time::Duration;
    ///
    /// struct Adder;
    ///
    /// struct Add(u32, u32, RpcReplyPort<u32>);
    /// # #[cfg(feature = "cluster")]
    /// # impl ractor::Message for Add {}
    ///
    /// # #[cfg_attr(feature = "async-trait", ractor::async_trait)]
    /// impl Actor for Adder {
    ///     type Msg = Add;
    ///     type State = ();
    ///     type Arguments = ();
    ///
    ///     async fn pre_start(&self, _: ActorRef<Add>, (): ()) -> Result<(), ActorProcessingErr> {
    ///         Ok(())
    ///     }
    ///
    ///     async fn handle(&self, _: ActorRef<Add>, add: Add, (): &mut ()) -> Result<(), ActorProcessingErr> {
    ///         let Add(a, b, reply) = add;
    ///         reply.send(a + b)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tree = Supervisor::builder(SupervisorSpec::default())
    ///     .child(ChildSpec::worker("adder"), actor(|| (Adder, ())))
    ///     .start()
    ///     .await?;
    /// let adder = tree.addr::<Add>("adder").while_down(WhileDown::Wait { limit: Duration::from_secs(1) });
    /// let sum = adder.call(Duration::from_secs(5), |reply| Add(2, 3, reply)).await?;
    /// assert_eq!(sum, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn addr<M: Message>(&self, child: impl Into<ChildRef>) -> Address<M> {
        let child = child.into();
        let parts = match &child {
            ChildRef::Id(path) => path.as_str().split('/').map(ChildRef::from).collect(),
            key @ ChildRef::Key(_) => vec![key.clone()],
        };
        let route = Route { top: self.clone(), child, parts, line: RwLock::new(None) };
        Address { route: Arc::new(route), while_down: WhileDown::default(), message: PhantomData }
    }

    /// Returns the line to a child.
    async fn line(&self, child: ChildRef) -> Result<watch::Receiver<Line>, OperationError> {
        self.ask_about(child, |child, reply| SupervisorMessage::Line { child, reply }).await
    }
}

impl<M: Message> Address<M> {
    /// Sets what becomes of messages while the child is down.
    #[must_use]
    pub fn while_down(mut self, while_down: WhileDown) -> Self {
        self.while_down = while_down;
        self
    }

    /// Returns the name by which the address was taken.
    pub fn child(&self) -> &ChildRef {
        &self.route.child
    }

    /// Sends a message to the living incarnation, which has it in its queue then; see what is
    /// [not promised](Self#what-is-not-promised).
    ///
    /// # Errors
    /// Gives the message back if nobody was reached, and says why. [`WhileDown::Wait`] waits only for a child that is
    /// down: that there is no such child, or none that takes such messages, is said at once.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is done, the message was not sent, and is dropped.
    pub async fn send(&self, mut message: M) -> Result<(), SendError<M>> {
        let deadline = self.deadline();
        let mut ended = None;
        loop {
            let actor = match self.reach(ended, deadline).await {
                Ok(actor) => actor,
                Err(reason) => return Err(SendError { message, reason }),
            };
            match actor.send_message(message) {
                Ok(()) => return Ok(()),
                // It ended between the look and the send.
                Err(MessagingErr::SendErr(back)) => {
                    message = back;
                    ended = Some(actor.get_id());
                }
                // `reach` returns only local actors that take this type, and those refuse for no other reason.
                Err(error) => unreachable!("a message of the right type was refused: {error}"),
            }
        }
    }

    /// Sends a message with a port for the answer, and waits for that. The timeout covers both, and a wait of
    /// [`WhileDown::Wait`] too. The question is put to one incarnation at most and never again.
    ///
    /// # Errors
    /// If nobody was reached, nobody answered, or the time is over.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child may have been asked, and may still do what it was asked for.
    pub async fn call<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(RpcReplyPort<T>) -> M,
    ) -> Result<T, CallError> {
        let (reply, answer) = ractor::concurrency::oneshot();
        let message = question(RpcReplyPort::from((reply, timeout)));
        let call = async {
            self.send(message).await.map_err(|error| CallError::NotSent(error.reason))?;
            answer.await.map_err(|_| CallError::NoReply(self.child().clone()))
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TimedOut { child: self.child().clone(), timeout }),
        }
    }

    /// Returns the living incarnation, to be linked to or monitored, for instance. It is no longer looked after: keep the
    /// address.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn actor(&self) -> Result<ActorRef<M>, Unreachable> {
        self.reach(None, self.deadline()).await
    }

    /// Returns the living incarnation if this address or a clone of it has learned of it, without asking anybody: for
    /// places that cannot wait. After the restart of a supervisor on the way it knows nothing until it is used otherwise.
    pub fn known(&self) -> Option<ActorRef<M>> {
        match self.route.known(None) {
            Look::Here(cell) => self.typed(cell).ok(),
            _ => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.while_down {
            WhileDown::Reject => None,
            WhileDown::Wait { limit } => Some(deadline_after(limit)),
        }
    }

    /// Returns the living incarnation, other than one that is known to have ended, and waits for it until the deadline.
    async fn reach(
        &self,
        ended: Option<ActorId>,
        deadline: Option<Instant>,
    ) -> Result<ActorRef<M>, Unreachable> {
        loop {
            let look = match self.route.known(ended) {
                Look::Unknown => self.route.resolve(ended).await,
                look => look,
            };
            match look {
                Look::Here(cell) => return self.typed(cell),
                Look::Never(reason) => return Err(reason),
                Look::Down(mut line) => {
                    let down = || Unreachable::Down(self.child().clone());
                    let deadline = deadline.ok_or_else(down)?;
                    // Whether it changed or closed is seen at the next look.
                    drop(tokio::time::timeout_at(deadline, line.changed()).await.map_err(|_| down())?);
                }
                Look::Unknown => {}
            }
        }
    }

    fn typed(&self, cell: ActorCell) -> Result<ActorRef<M>, Unreachable> {
        if cell.is_message_type_of::<M>() == Some(true) {
            return Ok(cell.into());
        }
        Err(Unreachable::MessageType { child: self.child().clone(), message: std::any::type_name::<M>() })
    }
}

/// Returns the instant after this time, or one that nobody lives to see.
fn deadline_after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(60 * 60 * 24 * 365 * 30))
}

/// The way from a supervisor to a child, as far as it is known.
struct Route {
    top: Supervisor,
    /// As the caller named it.
    child: ChildRef,
    /// The same, one name for each supervisor on the way; at least one.
    parts: Vec<ChildRef>,
    /// The line to the child, from its supervisor.
    line: RwLock<Option<watch::Receiver<Line>>>,
}

/// What a look at a route came to.
enum Look {
    Here(ActorCell),
    /// Nobody is there until this line changes or closes.
    Down(watch::Receiver<Line>),
    Never(Unreachable),
    /// The supervisors are to be asked.
    Unknown,
}

impl Route {
    /// Looks at the line that is known.
    fn known(&self, ended: Option<ActorId>) -> Look {
        let line = {
            // A panic while the lock is held is out of the question: it is held over assignments only.
            let known = self.line.read().unwrap_or_else(PoisonError::into_inner);
            let Some(line) = &*known else { return Look::Unknown };
            if let Line::Actor(cell) = &*line.borrow()
                && is_alive(cell, ended)
            {
                return Look::Here(cell.clone());
            }
            line.clone()
        };
        self.judge(line, ended)
    }

    /// Looks at a line, and notes what was seen of it.
    fn judge(&self, mut line: watch::Receiver<Line>, ended: Option<ActorId>) -> Look {
        let seen = match &*line.borrow_and_update() {
            Line::Actor(cell) if is_alive(cell, ended) => Some(Look::Here(cell.clone())),
            Line::Actor(_) | Line::Down => None,
            Line::Supervisor(_) | Line::NoActor => {
                Some(Look::Never(Unreachable::NoActor(self.child.clone())))
            }
        };
        // A closed line is the past: the child was removed, or its supervisor has ended.
        if line.has_changed().is_err() {
            return Look::Unknown;
        }
        seen.unwrap_or(Look::Down(line))
    }

    /// Asks the supervisors on the way, from the top.
    async fn resolve(&self, ended: Option<ActorId>) -> Look {
        let mut owner = self.top.clone();
        let mut above: Option<watch::Receiver<Line>> = None;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let mut line = match owner.line(part.clone()).await {
                Ok(line) => line,
                Err(error) => return self.broken_off(&error, above),
            };
            if parts.peek().is_none() {
                *self.line.write().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
                return self.judge(line, ended);
            }
            let next = match &*line.borrow_and_update() {
                Line::Supervisor(supervisor) => Some(supervisor.clone()),
                Line::Down => None,
                Line::Actor(_) | Line::NoActor => {
                    return Look::Never(Unreachable::NotFound(self.child.clone()));
                }
            };
            match next {
                Some(supervisor) => (owner, above) = (supervisor, Some(line)),
                None => return Look::Down(line),
            }
        }
        Look::Never(Unreachable::NotFound(self.child.clone()))
    }

    /// Says what it means that a supervisor named no line; `above` is the line to that supervisor.
    fn broken_off(&self, error: &OperationError, above: Option<watch::Receiver<Line>>) -> Look {
        Look::Never(match (error, above) {
            (OperationError::SupervisorGone, Some(above)) => return Look::Down(above),
            (OperationError::SupervisorGone, None) => Unreachable::SupervisorGone,
            (OperationError::Refused { refusal: Refusal::SimpleOneForOne, .. }, _) => {
                Unreachable::SimpleOneForOne(self.child.clone())
            }
            _ => Unreachable::NotFound(self.child.clone()),
        })
    }
}

fn is_alive(cell: &ActorCell, ended: Option<ActorId>) -> bool {
    cell.get_status() < ActorStatus::Draining && Some(cell.get_id()) != ended
}
