//! What to run and how to keep it running: child and supervisor specs, their defaults and their validation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name of a child among its siblings.
///
/// Cheap to clone. Any non-empty text without `/` is allowed in the library; configuration files are stricter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// Creates an id.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(Arc::from(id.as_ref()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(feature = "runtime")]
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ChildId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl From<String> for ChildId {
    fn from(id: String) -> Self {
        Self(Arc::from(id))
    }
}

impl Borrow<str> for ChildId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ChildId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ChildId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// When an ended child is started again (OTP's restart type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RestartType {
    /// Always.
    #[default]
    #[cfg_attr(feature = "serde", serde(alias = "Always"))]
    Permanent,
    /// Only after an abnormal exit.
    #[cfg_attr(feature = "serde", serde(alias = "OnFailure"))]
    Transient,
    /// Never; the spec is dropped when the child ends, unless [`ChildSpec::retain`] is set.
    #[cfg_attr(feature = "serde", serde(alias = "Never"))]
    Temporary,
}

/// Which children are restarted together (OTP's restart strategy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Strategy {
    /// Only the child that ended.
    #[default]
    OneForOne,
    /// All children.
    OneForAll,
    /// The child that ended and those started after it.
    RestForOne,
    /// Children are added at run time from one template and are known by their key, not by an id.
    SimpleOneForOne,
}

/// Whether children start and stop one by one or together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// OTP's order: child k+1 begins when k is ready; stop in reverse, one by one.
    #[default]
    Ordered,
    /// All together; only [`ChildSpec::depends_on`] draws edges.
    Concurrent,
}

/// How many automatic restarts are allowed within a period (OTP's intensity and period).
///
/// With intensity `n`, the `n+1`th restart within the period reaches the limit. The window is exact and inclusive: two
/// restarts exactly one period apart count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RestartIntensity {
    /// Restarts allowed within the period. 0 makes the first crash reach the limit.
    pub intensity: u32,
    /// The sliding window's length. Must not be zero.
    pub period: Duration,
}

impl RestartIntensity {
    /// Creates an intensity.
    pub fn new(intensity: u32, period: Duration) -> Self {
        Self { intensity, period }
    }
}

impl Default for RestartIntensity {
    /// Returns OTP's default: 1 restart in 5 seconds.
    fn default() -> Self {
        Self { intensity: 1, period: Duration::from_secs(5) }
    }
}

/// What happens when a restart limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnLimit {
    /// The supervisor stops its children and ends `Escalated` (OTP).
    #[default]
    Escalate,
    /// The child becomes `failed`; its siblings live on.
    GiveUp,
}

/// What a failed start means that is no restart: a first one, or one that somebody asked for.
///
/// A child whose own limit gives up always has its failed starts counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FailedStart {
    /// OTP's rules: a failed first start ends the supervisor, one that was asked for is answered and forgotten.
    #[default]
    Unwinds,
    /// It is a crash: it counts, and is tried again until the limit is reached.
    Counts,
}

/// A restart limit of one child, which replaces its supervisor's for that child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RestartLimit {
    /// How many restarts within which period.
    pub intensity: RestartIntensity,
    /// What happens at the limit.
    pub on_limit: OnLimit,
}

/// Delays between automatic restarts, growing while a child keeps failing. OTP has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The delay before the first restart; `None` means `base`. Zero makes the first restart instant.
    pub first: Option<Duration>,
    /// The delay before the next restart, from which it grows.
    pub base: Duration,
    /// The growth per restart, at least 1.
    pub factor: f64,
    /// The longest delay, before jitter.
    pub max: Duration,
    /// The part of each delay, from 0 to 1, by which it is varied in both directions.
    pub jitter: f64,
    /// A child that stayed ready this long starts over at the first delay.
    pub reset_after: Duration,
}

impl Default for Backoff {
    /// Returns 1 s doubling to 30 s with 10 % jitter, reset after 30 s ready.
    fn default() -> Self {
        Self {
            first: None,
            base: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(30),
            jitter: 0.1,
            reset_after: Duration::from_secs(30),
        }
    }
}

/// How a child is ended (OTP's shutdown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// Killed at once, without being asked.
    BrutalKill,
    /// Asked, and killed if it has not ended within this time. Zero is legal.
    Timeout(Duration),
    /// Asked, and waited for without limit. The right choice for supervisors.
    Infinity,
}

/// Whether a child does work or supervises (OTP's child type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ChildType {
    /// A worker.
    #[default]
    Worker,
    /// A supervisor.
    Supervisor,
}

/// When a supervisor ends because of its significant children (OTP 24, EEP 56).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AutoShutdown {
    /// Never.
    #[default]
    Never,
    /// When any significant child ended by itself and is not to be restarted.
    AnySignificant,
    /// When the last significant child did.
    AllSignificant,
}

/// What a dependency must have come to before its dependents start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Condition {
    /// Its current incarnation has been started; whether it can serve does not matter.
    Started,
    /// Its current incarnation has become ready, whatever its health check says since.
    #[default]
    Ready,
    /// Its current incarnation is ready and, if it has a health check, has passed it and does so still.
    Healthy,
    /// Its latest incarnation ended by itself, normally: a job that is done. A new start of the job takes that back.
    Completed,
}

impl Condition {
    /// Returns the stable name used in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A sibling that a child needs before it starts. Made of a name alone, it is one that must be ready.
///
/// ```
/// use xy_actors::spec::{ChildSpec, Condition, Dependency};
///
/// let migrate = Dependency { condition: Condition::Completed, ..Dependency::ready("migrate") };
/// let web = ChildSpec { depends_on: vec!["db".into(), migrate], ..ChildSpec::worker("web") };
/// # assert_eq!(web.depends_on[0], Dependency::ready("db"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dependency {
    /// The sibling.
    pub on: ChildId,
    /// What it must have come to.
    pub condition: Condition,
    /// Whether the dependent is restarted with it: each further start of the sibling stops the dependent, which starts
    /// again once the condition holds. Such restarts do not count. A temporary or paused dependent goes on.
    pub restart: bool,
}

impl Dependency {
    /// Creates a dependency on a sibling that must be ready, and whose later restarts do not matter.
    pub fn ready(on: impl Into<ChildId>) -> Self {
        Self { on: on.into(), condition: Condition::Ready, restart: false }
    }
}

impl<T: Into<ChildId>> From<T> for Dependency {
    fn from(on: T) -> Self {
        Self::ready(on)
    }
}

/// The policy half of a child's definition: everything but what to run.
///
/// Begin with the defaults and name what differs:
///
/// ```
/// use std::time::Duration;
/// use xy_actors::spec::{Backoff, ChildSpec, RestartType, Shutdown};
///
/// let spec = ChildSpec {
///     restart: RestartType::Transient,
///     shutdown: Shutdown::Timeout(Duration::from_secs(30)),
///     backoff: Some(Backoff::default()),
///     ..ChildSpec::worker("mailer")
/// };
/// # assert!(spec.limit.is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChildSpec {
    /// The child's name among its siblings.
    pub id: ChildId,
    /// When it is restarted.
    pub restart: RestartType,
    /// How it is ended.
    pub shutdown: Shutdown,
    /// Worker or supervisor.
    pub child_type: ChildType,
    /// Whether its end can end its supervisor.
    pub significant: bool,
    /// Delays between restarts; `None` restarts at once, as OTP does.
    pub backoff: Option<Backoff>,
    /// A limit of its own; `None` counts against the supervisor's.
    pub limit: Option<RestartLimit>,
    /// The longest time from start to ready; `None` waits for ever.
    pub start_timeout: Option<Duration>,
    /// Whether an ended temporary child stays listed as stopped.
    pub retain: bool,
    /// Whether it starts with its supervisor.
    pub autostart: bool,
    /// Siblings it waits for before each start (concurrent supervisors only). They are stopped after it.
    pub depends_on: Vec<Dependency>,
    /// Whether each incarnation has a health check and tells when it first passes it: until then, whoever waits for
    /// [`Condition::Healthy`] goes on waiting. Without one, ready is healthy. A change counts from the next start on.
    pub health_checked: bool,
}

impl ChildSpec {
    /// The shutdown of a worker that names none (OTP).
    pub const DEFAULT_SHUTDOWN: Shutdown = Shutdown::Timeout(Duration::from_secs(5));

    /// Creates a worker's spec with OTP's defaults: permanent, shutdown 5 s, no backoff, no limit of its own.
    pub fn worker(id: impl Into<ChildId>) -> Self {
        Self {
            id: id.into(),
            restart: RestartType::Permanent,
            shutdown: Self::DEFAULT_SHUTDOWN,
            child_type: ChildType::Worker,
            significant: false,
            backoff: None,
            limit: None,
            start_timeout: None,
            retain: false,
            autostart: true,
            depends_on: Vec::new(),
            health_checked: false,
        }
    }

    /// Creates a supervisor's spec with OTP's defaults: permanent, shutdown infinity.
    pub fn supervisor(id: impl Into<ChildId>) -> Self {
        Self { child_type: ChildType::Supervisor, shutdown: Shutdown::Infinity, ..Self::worker(id) }
    }

    /// Returns whether it can end for good and be seen to have done so.
    pub(crate) fn can_complete(&self) -> bool {
        match self.restart {
            RestartType::Permanent => false,
            RestartType::Transient => true,
            RestartType::Temporary => self.retain,
        }
    }

    /// Checks the spec against the flags of the supervisor that would own it (as in OTP).
    ///
    /// # Errors
    /// Names the rule and the offending child.
    pub fn validate(&self, supervisor: &SupervisorSpec) -> Result<(), SpecError> {
        let id = || self.id.clone();
        if self.id.as_str().is_empty() || self.id.as_str().contains('/') {
            return Err(SpecError::InvalidId(id()));
        }
        if self.significant {
            if supervisor.auto_shutdown == AutoShutdown::Never {
                return Err(SpecError::SignificantWithoutAutoShutdown(id()));
            }
            if self.restart == RestartType::Permanent {
                return Err(SpecError::SignificantPermanent(id()));
            }
        }
        if let Some(limit) = &self.limit
            && limit.intensity.period.is_zero()
        {
            return Err(SpecError::ZeroPeriod);
        }
        if let Some(backoff) = &self.backoff {
            let sound =
                backoff.factor >= 1.0 && backoff.factor.is_finite() && (0.0..=1.0).contains(&backoff.jitter);
            if !sound {
                return Err(SpecError::InvalidBackoff(id()));
            }
        }
        if supervisor.order == Order::Ordered && !self.depends_on.is_empty() {
            return Err(SpecError::DependsOnInOrdered(id()));
        }
        Ok(())
    }
}

/// The flags of a supervisor (OTP's supervisor flags).
///
/// The default is OTP's: one_for_one, and the second restart within five seconds makes it give up.
///
/// ```
/// use std::time::Duration;
/// use xy_actors::spec::{RestartIntensity, Strategy, SupervisorSpec};
///
/// let spec = SupervisorSpec {
///     intensity: Some(RestartIntensity::new(3, Duration::from_secs(60))),
///     ..SupervisorSpec::new(Strategy::RestForOne)
/// };
/// # assert_eq!(spec.max_children, None);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisorSpec {
    /// Which children are restarted together.
    pub strategy: Strategy,
    /// The supervisor's restart limit; `None` sets none.
    pub intensity: Option<RestartIntensity>,
    /// When it ends because of significant children.
    pub auto_shutdown: AutoShutdown,
    /// One by one, or together.
    pub order: Order,
    /// What a failed start means that is no restart.
    pub failed_start: FailedStart,
    /// How long a killed in-process child is waited for before it is reported as leaked.
    pub kill_timeout: Duration,
    /// The most children a dynamic supervisor takes; `None` sets no bound.
    pub max_children: Option<usize>,
}

impl Default for SupervisorSpec {
    /// Returns OTP's defaults: one_for_one, 1 restart in 5 s, never shutting down by itself, ordered.
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: Some(RestartIntensity::default()),
            auto_shutdown: AutoShutdown::Never,
            order: Order::Ordered,
            failed_start: FailedStart::Unwinds,
            kill_timeout: Duration::from_secs(5),
            max_children: None,
        }
    }
}

impl SupervisorSpec {
    /// Creates flags with this strategy and OTP's other defaults.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, ..Self::default() }
    }

    /// Creates the flags of a dynamic supervisor with Elixir's defaults: simple_one_for_one, so that it begins empty and
    /// takes children with a spec each, and 3 restarts in 5 seconds.
    pub fn dynamic() -> Self {
        let intensity = Some(RestartIntensity::new(3, Duration::from_secs(5)));
        Self { intensity, ..Self::new(Strategy::SimpleOneForOne) }
    }

    /// Checks the flags (as in OTP).
    ///
    /// # Errors
    /// Names the rule.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.intensity.is_some_and(|intensity| intensity.period.is_zero()) {
            return Err(SpecError::ZeroPeriod);
        }
        if self.strategy == Strategy::SimpleOneForOne && self.auto_shutdown != AutoShutdown::Never {
            return Err(SpecError::AutoShutdownOfSimpleOneForOne);
        }
        Ok(())
    }
}

/// Why a spec is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// An id is empty or contains `/`.
    #[error("child id {0:?} is empty or contains `/`")]
    InvalidId(ChildId),
    /// Two children have the same id.
    #[error("two children are called `{0}`")]
    DuplicateId(ChildId),
    /// A period is zero.
    #[error("a restart period must be longer than zero")]
    ZeroPeriod,
    /// A backoff's factor is below 1 or not finite, or its jitter outside 0 to 1.
    #[error("backoff of `{0}` needs a factor of at least 1 and a jitter from 0 to 1")]
    InvalidBackoff(ChildId),
    /// A significant child under a supervisor that never shuts down by itself.
    #[error("child `{0}` is significant but its supervisor's auto_shutdown is never")]
    SignificantWithoutAutoShutdown(ChildId),
    /// A significant child that is permanent.
    #[error("child `{0}` is significant and permanent: a permanent child never ends by itself")]
    SignificantPermanent(ChildId),
    /// Auto-shutdown with simple_one_for_one.
    #[error("a simple_one_for_one supervisor cannot have auto_shutdown")]
    AutoShutdownOfSimpleOneForOne,
    /// Auto-shutdown with a partitioned supervisor.
    #[error("a partitioned supervisor cannot have auto_shutdown")]
    AutoShutdownOfPartitions,
    /// A partitioned supervisor that is simple_one_for_one.
    #[error("a partitioned supervisor cannot be simple_one_for_one: its partitions are named by number")]
    SimpleOneForOneOfPartitions,
    /// `depends_on` in an ordered supervisor.
    #[error("child `{0}` names dependencies, but its supervisor is ordered: order the list instead")]
    DependsOnInOrdered(ChildId),
    /// A dependency that is no sibling.
    #[error("child `{child}` depends on `{dependency}`, which is not a sibling")]
    UnknownDependency {
        /// The child that names it.
        child: ChildId,
        /// The name that is no sibling's.
        dependency: ChildId,
    },
    /// Dependencies in a circle, in their order; each depends on the next, and the last on the first.
    #[error("children depend on each other in a circle: {}", circle(.0))]
    DependencyCycle(Vec<ChildId>),
    /// A child waits for the completion of one that is always restarted, or is gone once it has ended.
    #[error(
        "child `{child}` waits for `{dependency}` to be completed, which is permanent, or temporary and not retained"
    )]
    NeverCompletes {
        /// The child that waits.
        child: ChildId,
        /// The sibling it waits for.
        dependency: ChildId,
    },
}

fn circle(ids: &[ChildId]) -> String {
    let closed = ids.iter().chain(ids.first());
    closed.map(|id| format!("`{id}`")).collect::<Vec<_>>().join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(auto_shutdown: AutoShutdown) -> SupervisorSpec {
        SupervisorSpec { auto_shutdown, ..SupervisorSpec::default() }
    }

    #[test]
    fn significant_needs_auto_shutdown_and_a_child_that_can_end() {
        for auto_shutdown in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]
        {
            for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
                for significant in [false, true] {
                    let spec = ChildSpec { restart, significant, ..ChildSpec::worker("a") };
                    let expected = !significant
                        || (auto_shutdown != AutoShutdown::Never && restart != RestartType::Permanent);
                    assert_eq!(
                        spec.validate(&flags(auto_shutdown)).is_ok(),
                        expected,
                        "{auto_shutdown:?} {restart:?} {significant}"
                    );
                }
            }
        }
    }

    #[test]
    fn intensity_may_be_zero_but_a_period_may_not() {
        let spec = |intensity, period| SupervisorSpec {
            intensity: Some(RestartIntensity::new(intensity, Duration::from_secs(period))),
            ..SupervisorSpec::default()
        };
        assert_eq!(spec(0, 1).validate(), Ok(()));
        assert_eq!(spec(1, 0).validate(), Err(SpecError::ZeroPeriod));
    }

    #[test]
    fn defaults_are_those_of_otp() {
        let spec = SupervisorSpec::default();
        assert_eq!(spec.intensity, Some(RestartIntensity::new(1, Duration::from_secs(5))));
        assert_eq!(spec.strategy, Strategy::OneForOne);
        assert_eq!(ChildSpec::worker("a").shutdown, Shutdown::Timeout(Duration::from_secs(5)));
        assert_eq!(ChildSpec::supervisor("a").shutdown, Shutdown::Infinity);
        assert_eq!(ChildSpec::worker("a").restart, RestartType::Permanent);
    }

    #[test]
    fn auto_shutdown_and_simple_one_for_one_exclude_each_other() {
        let spec =
            SupervisorSpec { strategy: Strategy::SimpleOneForOne, ..flags(AutoShutdown::AnySignificant) };
        assert_eq!(spec.validate(), Err(SpecError::AutoShutdownOfSimpleOneForOne));
    }
}
