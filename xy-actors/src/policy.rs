//! The pure half: every decision to start, stop, restart, delay or give up.
//!
//! Its law: nothing here reads a clock, does I/O, draws a random number or waits. Time is an argument, random numbers
//! come from a seed that is an argument, and what is to be done comes out as a list of [`Action`]s. The same function
//! therefore runs under the supervisor actor, in table tests and in simulations.
//!
//! | module | decides |
//! |---|---|
//! | [`restart`] | restart type and exit: restart or not |
//! | [`strategy`] | strategy and failed child: whom the restart takes along |
//! | [`intensity`] | restarts within a period: go on, or limit reached |
//! | [`backoff`] | attempt and a number in [0, 1): how long to wait |
//! | [`shutdown`] | the rungs from asking to killing to giving a child up as leaked |
//! | [`lifecycle`] | the states of one child |
//! | [`decision`] | all of it together: [`Policy::step`] |

pub mod backoff;
pub mod decision;
pub mod intensity;
pub mod lifecycle;
pub mod restart;
pub mod shutdown;
pub mod strategy;
pub(crate) mod table;

pub use decision::{
    Action, ChildView, Input, Operation, OperationId, Outcome, Policy, Refusal, StartFailure, TimerToken,
};
pub use lifecycle::{ChildKey, Incarnation, State, Wanted};
