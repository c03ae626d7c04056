//! A partitioned supervisor: one child in many copies, and keys that are spread over them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ractor::Message;

use crate::child::{Child, StartContext, StartFuture, Started};
use crate::policy::Refusal;
use crate::spec::{AutoShutdown, ChildId, ChildSpec, SpecError, Strategy, SupervisorSpec};
use crate::supervisor::{
    Address, ChildRef, OperationError, Supervisor, SupervisorChild, WhileDown, supervisor,
};

/// How many partitions there are, and which of them a key belongs to (Elixir's PartitionSupervisor).
///
/// A value of its own that makes the supervisor, like a [`Template`](crate::supervisor::Template) makes children; clones
/// share the count. The supervisor is an ordinary one, whose children are called `0`, `1` and so on. Usually each of them
/// is a simple_one_for_one supervisor, so that no single one has all the load:
///
/// ```
/// use xy_actors::child::task;
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::{Partitions, Supervisor, supervisor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let partitions = Partitions::new(4);
/// let pools = partitions.supervisor(ChildSpec::supervisor("pool"), |_| supervisor(SupervisorSpec::dynamic()));
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::supervisor("sessions"), pools)
///     .start()
///     .await?;
/// let sessions = partitions.at(&tree, "sessions");
/// let session = task(|context| async move { Ok(context.stopped().await) });
/// sessions.supervisor_of("user 17").await?.start_child(ChildSpec::worker("session"), session).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Partitions(Arc<Shared>);

struct Shared {
    /// How many the supervisor has specs for.
    most: usize,
    /// How many of them, the first, are in use.
    used: AtomicUsize,
    /// Held while their number changes.
    resizing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions").field("most", &self.0.most).field("used", &self.len()).finish()
    }
}

impl Default for Partitions {
    /// Returns one partition for each thread that can run at the same time.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Partitions {
    /// Creates a number of partitions, which is also the most there can ever be.
    pub fn new(partitions: usize) -> Self {
        let used = AtomicUsize::new(partitions);
        Self(Arc::new(Shared { most: partitions, used, resizing: tokio::sync::Mutex::new(()) }))
    }

    /// Makes the supervisor, one_for_one with 3 restarts in 5 seconds. `make` is called once for each partition, with its
    /// number; `spec` is that of all of them, and its id is replaced by the number.
    pub fn supervisor<C: Child>(&self, spec: ChildSpec, make: impl Fn(usize) -> C) -> SupervisorChild {
        self.children_of(
            supervisor(SupervisorSpec { strategy: Strategy::OneForOne, ..SupervisorSpec::dynamic() }),
            &spec,
            make,
        )
    }

    /// Makes the supervisor with flags of one's own.
    ///
    /// # Errors
    /// If the flags are simple_one_for_one, whose children have no ids, or have an auto_shutdown: partitions do not end.
    pub fn supervisor_with<C: Child>(
        &self,
        flags: SupervisorSpec,
        spec: ChildSpec,
        make: impl Fn(usize) -> C,
    ) -> Result<SupervisorChild, SpecError> {
        if flags.auto_shutdown != AutoShutdown::Never {
            return Err(SpecError::AutoShutdownOfPartitions);
        }
        if flags.strategy == Strategy::SimpleOneForOne {
            return Err(SpecError::SimpleOneForOneOfPartitions);
        }
        Ok(self.children_of(supervisor(flags), &spec, make))
    }

    fn children_of<C: Child>(
        &self,
        empty: SupervisorChild,
        spec: &ChildSpec,
        make: impl Fn(usize) -> C,
    ) -> SupervisorChild {
        (0..self.0.most).fold(empty, |supervisor, number| {
            // A partition that is not in use stays listed, whatever its restart type.
            let spec = ChildSpec { id: id_of(number), retain: true, ..spec.clone() };
            supervisor.child(spec, Partition { partitions: self.clone(), number, child: make(number) })
        })
    }

    /// Returns how many partitions are in use.
    pub fn len(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    /// Returns whether no partition is in use, so that every key leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the partition of a key, by its hash; `None` if none is in use. Do not store it: it changes with the number of
    /// partitions, and may with the version of Rust.
    pub fn partition_of<K: Hash + ?Sized>(&self, key: &K) -> Option<usize> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.remainder(hasher.finish())
    }

    /// Returns the partition of a number: its distance from zero, modulo the number of partitions, so that neighbors are
    /// spread evenly; `None` if none is in use.
    pub fn partition_of_number(&self, key: i64) -> Option<usize> {
        self.remainder(key.unsigned_abs())
    }

    fn remainder(&self, number: u64) -> Option<usize> {
        let remainder = number.checked_rem(self.len() as u64)?;
        // Less than the number of partitions, which is one.
        usize::try_from(remainder).ok()
    }

    /// Returns where the partitions are found: at a path below a supervisor.
    pub fn at(&self, top: &Supervisor, path: &str) -> Partitioned {
        Partitioned { partitions: self.clone(), top: top.clone(), path: Arc::from(path) }
    }
}

/// Where the partitions of a running tree are found, also after restarts. Cheap to clone. Made by [`Partitions::at`].
#[derive(Debug, Clone)]
pub struct Partitioned {
    partitions: Partitions,
    top: Supervisor,
    path: Arc<str>,
}

/// Why the number of partitions was not changed, or not as far as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// There never were as many.
    #[error("{asked} partitions are more than the {most} there were at first")]
    TooMany {
        /// The number asked for.
        asked: usize,
        /// The number it was made with.
        most: usize,
    },
    /// A partition did not start, or the supervisor is not there. Those before it are in use.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl Partitioned {
    /// Returns the count and the rule by which keys are spread.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Returns the partitioned supervisor, as of now.
    ///
    /// # Errors
    /// If the path leads nowhere, or a supervisor on it is down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn supervisor(&self) -> Result<Supervisor, OperationError> {
        self.top.supervisor_at(&self.path).await
    }

    /// Returns the supervisor that is the partition of a key, as of now: partitions that are supervisors. Ask anew rather
    /// than keep it, since a restart ends it.
    ///
    /// # Errors
    /// If no partition is in use, or the partition is no supervisor or is down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn supervisor_of<K: Hash + ?Sized>(&self, key: &K) -> Result<Supervisor, OperationError> {
        let path = ChildId::new(&self.path);
        let number = self.partitions.partition_of(key).ok_or(OperationError::NotFound(path.into()))?;
        self.supervisor().await?.child_supervisor(id_of(number)).await
    }

    /// Returns the addresses of the partitions: partitions that are actors.
    pub fn addresses<M: Message>(&self, while_down: WhileDown) -> PartitionAddresses<M> {
        let address = |number| self.top.addr(self.path_of(number)).while_down(while_down);
        let addresses = (0..self.partitions.0.most).map(address).collect();
        PartitionAddresses { partitions: self.partitions.clone(), addresses }
    }

    fn path_of(&self, number: usize) -> ChildRef {
        match &*self.path {
            "" => id_of(number).into(),
            path => format!("{path}/{number}").into(),
        }
    }

    /// Changes how many partitions are in use, between none and as many as there were at first: ends those of the highest
    /// numbers, whose specs are kept, or starts them again. Keys are spread over the new number from the beginning of a
    /// reduction on, and partition by partition while the number grows; what the partitions held of their keys is not
    /// moved. A restart of the supervisor keeps the number.
    ///
    /// # Errors
    /// If it is more than there were at first, the supervisor is not there, or a partition does not start: those before it
    /// are in use then.
    ///
    /// # Cancel safety
    /// If the future is dropped, some partitions may have been ended or started. Ask again for any number.
    pub async fn resize(&self, partitions: usize) -> Result<(), ResizeError> {
        let shared = &self.partitions.0;
        if partitions > shared.most {
            return Err(ResizeError::TooMany { asked: partitions, most: shared.most });
        }
        let _one_at_a_time = shared.resizing.lock().await;
        let supervisor = self.supervisor().await?;
        // No key leads to what is about to end.
        shared.used.fetch_min(partitions, Ordering::AcqRel);
        // Also those that a resize which was cut short has left.
        for number in (partitions..shared.most).rev() {
            supervisor.terminate_child(id_of(number)).await?;
        }
        for number in 0..partitions {
            let used = shared.used.fetch_max(number + 1, Ordering::AcqRel);
            match supervisor.restart_child(id_of(number)).await {
                Err(OperationError::Refused { refusal: Refusal::Running | Refusal::Restarting, .. }) => {}
                Err(error) => {
                    shared.used.store(used, Ordering::Release);
                    return Err(error.into());
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

/// The addresses of partitions that are actors; they survive restarts and follow a change of number. Cheap to clone.
pub struct PartitionAddresses<M> {
    partitions: Partitions,
    addresses: Arc<[Address<M>]>,
}

impl<M> fmt::Debug for PartitionAddresses<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionAddresses").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl<M> Clone for PartitionAddresses<M> {
    fn clone(&self) -> Self {
        Self { partitions: self.partitions.clone(), addresses: self.addresses.clone() }
    }
}

impl<M: Message> PartitionAddresses<M> {
    /// Returns the address of a key's partition; `None` if none is in use.
    pub fn of<K: Hash + ?Sized>(&self, key: &K) -> Option<&Address<M>> {
        self.addresses.get(self.partitions.partition_of(key)?)
    }

    /// Returns the address of a number's partition; `None` if none is in use.
    pub fn of_number(&self, key: i64) -> Option<&Address<M>> {
        self.addresses.get(self.partitions.partition_of_number(key)?)
    }

    /// Returns the addresses of all partitions in use, to tell all of them something.
    pub fn all(&self) -> &[Address<M>] {
        &self.addresses[..self.partitions.len()]
    }
}

/// One partition: there is nothing to run in it while it is not in use.
struct Partition<C> {
    partitions: Partitions,
    number: usize,
    child: C,
}

impl<C: Child> Child for Partition<C> {
    fn start(&self, context: StartContext) -> StartFuture {
        if self.number < self.partitions.len() {
            self.child.start(context)
        } else {
            Box::pin(std::future::ready(Ok(Started::Ignore)))
        }
    }
}

fn id_of(number: usize) -> ChildId {
    ChildId::from(number.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_number_goes_to_the_remainder_of_its_distance_from_zero() {
        let partitions = Partitions::new(4);
        for (key, partition) in [(0, 0), (1, 1), (7, 3), (-7, 3), (-1, 1), (i64::MIN, 0), (i64::MAX, 3)] {
            assert_eq!(partitions.partition_of_number(key), Some(partition), "{key}");
        }
        assert_eq!(Partitions::new(0).partition_of_number(1), None);
    }

    #[test]
    fn a_key_always_goes_to_the_same_partition_and_keys_go_to_all() {
        let partitions = Partitions::new(8);
        let keys: Vec<String> = (0..200).map(|number| format!("user {number}")).collect();
        let of = |key: &String| partitions.clone().partition_of(key);
        assert!(keys.iter().all(|key| of(key) == partitions.partition_of(key.as_str())));
        let used: HashSet<Option<usize>> = keys.iter().map(of).collect();
        assert_eq!(used, (0..8).map(Some).collect());
        assert_eq!(Partitions::new(0).partition_of("key"), None);
    }

    #[test]
    fn there_is_one_partition_for_each_thread_unless_told_otherwise() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(Partitions::default().len(), threads);
    }
}
