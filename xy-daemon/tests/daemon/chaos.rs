//! Random SIGKILLs at servers, their helpers, the daemon and its guard, and stops of servers that are checked, under load:
//! nobody is left over, nobody runs twice, everybody comes back, and the end of each start is told once: by what outlives
//! the daemons, their journal.
//!
//! `XY_CHAOS_KILLS` sets how many kills (25), `XY_CHAOS_SEED` which ones, and `XY_CHAOS_CGROUPS=1` lets the daemon use
//! control groups; `tests/chaos/run` is the long form.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    Event, Events, EventsParams, List, ListParams, Notification, State, Version, VersionParams,
};

use super::support::{World, free_port, pid_of, script};

const SERVERS: usize = 20;
/// Main process, a helper in its session, and one in a session of its own.
const ROLES: [&str; 3] = ["main", "helper", "session"];

/// The guard of a daemon that dies again and again waits up to 30 s.
const BACK: Duration = Duration::from_secs(90);

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    /// Returns a number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64, which is good enough to choose victims.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let length = u64::try_from(from.len()).expect("few");
        (length > 0).then(|| from[usize::try_from(self.below(length)).expect("an index")])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Server,
    Helper,
    /// A server that answers its liveness check no more, because it is stopped.
    Suspended,
    /// A server that is stopped and goes on before anybody minds.
    Paused,
    Daemon,
    /// A daemon that had died so often in a row that its guard waited before it started it again.
    DaemonHeldBack,
    Guard,
}

impl Victim {
    fn roll(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..35 => Self::Server,
            35..70 => Self::Helper,
            70..75 => Self::Suspended,
            75..80 => Self::Paused,
            80..92 => Self::Daemon,
            _ => Self::Guard,
        }
    }
}

/// What one life of the daemon tells, by child.
#[derive(Debug, Default)]
struct Told {
    /// Each incarnation with how often it ended.
    ends: BTreeMap<String, BTreeMap<u64, u32>>,
    /// The incarnations of the life before whose end nobody saw.
    lost: BTreeMap<String, Vec<u64>>,
}

type Ends = Arc<Mutex<Told>>;

struct Chaos {
    world: World,
    dice: Dice,
    client: Client,
    ends: Vec<Ends>,
    /// The ports of the servers that are checked, by number.
    ports: BTreeMap<usize, u16>,
    /// Nothing has happened since everybody was ready.
    is_quiet: bool,
    /// How long it took until everybody was ready after a kill, by victim.
    times: BTreeMap<Victim, Vec<Duration>>,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn random_kills_leave_no_orphan_and_no_double_and_everybody_comes_back() {
    let kills = setting("XY_CHAOS_KILLS").unwrap_or(25);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = setting("XY_CHAOS_SEED").unwrap_or(u64::try_from(now % 1_000_000_007).expect("small") + 1);
    println!("{kills} kills with XY_CHAOS_SEED={seed}");
    let mut chaos = Chaos::begin(seed).await;
    for number in 1..=kills {
        chaos.kill_one(number).await;
    }
    chaos.until_all_ready().await;
    chaos.end().await;
}

impl Chaos {
    async fn begin(seed: u64) -> Self {
        // It ends in order, so that no group is left behind, unless a check fails.
        let mut world = World::new();
        if setting("XY_CHAOS_CGROUPS") == Some(1) {
            world = world.with_cgroups();
        }
        let mut ports = BTreeMap::new();
        for number in 0..SERVERS {
            let file = |role: &str| world.path(&format!("{number}.{role}")).display().to_string();
            // Some write all the time, and the load on the log is theirs.
            let main =
                if number % 4 == 0 { "spawn 2 chatter 1 until-child-ends" } else { "until-child-ends" };
            // Some are asked how they are, and answer by a process that may be stopped.
            let (serve, check) = if is_checked(number) {
                let port = free_port();
                ports.insert(number, port);
                let check = format!(
                    "port: {port}, ready: Http(path: \"/\"), \
                     start_timeout: \"10s\", \
                     liveness: (probe: Http(path: \"/\"), interval: \"100ms\", timeout: \"1s\", failures: 2), "
                );
                (format!("spawn 2 serve {port}"), check)
            } else {
                (String::new(), String::new())
            };
            let steps = format!(
                "alone {} {serve} spawn 3 alone {} sleep-forever spawn 4 setsid alone {} sleep-forever {main}",
                file("main"),
                file("helper"),
                file("session"),
            );
            let restart =
                r#"restart: (backoff_initial: "1ms", backoff_max: "50ms", max_retries_per_minute: 1000)"#;
            world.write(&format!("s{number}"), &script(&steps, &format!("{check}{restart}")));
        }
        // Everything is kept, so that every start is accounted for.
        std::fs::write(world.path("config/xy/xyd.ron"), "(events: (keep: 1000000))").expect("written");
        world.start();
        let client = connect(&world, None).await;
        let mut chaos = Self {
            world,
            dice: Dice(seed),
            client,
            ends: Vec::new(),
            ports,
            is_quiet: false,
            times: BTreeMap::new(),
        };
        chaos.follow().await;
        chaos.until_all_ready().await;
        chaos
    }

    /// Collects the events of the daemon's present life.
    async fn follow(&mut self) {
        let ends = Ends::default();
        self.ends.push(ends.clone());
        // A daemon that is gone again has told nothing.
        let params = EventsParams::following(0);
        let Ok(mut events) = self.client.subscribe::<Events>(params).await else { return };
        tokio::spawn(async move {
            while let Ok(Some(next)) = events.next().await.map(Some) {
                let Some(Notification::Event(event)) = next else { return };
                let Some(incarnation) = event.incarnation else { continue };
                let mut told = ends.lock().expect("nobody panics with it");
                let cause = event.payload.get("cause").and_then(|cause| cause.as_str()).unwrap_or_default();
                if cause.starts_with("the daemon died") {
                    told.lost.entry(event.path).or_default().push(incarnation);
                    continue;
                }
                let count = told.ends.entry(event.path).or_default().entry(incarnation).or_default();
                if matches!(
                    event.event_type.as_str(),
                    "child_exited" | "child_stopped" | "child_start_failed"
                ) {
                    *count += 1;
                }
            }
        });
    }

    async fn kill_one(&mut self, number: u64) {
        let victim = Victim::roll(&mut self.dice);
        let daemon = self.world.daemon_pid();
        let pid = match victim {
            Victim::Guard => Some(self.world.pid()),
            Victim::Daemon | Victim::DaemonHeldBack => daemon,
            Victim::Server => {
                let mains = self.mains().await;
                self.dice.pick(&mains)
            }
            Victim::Suspended => {
                let ports: Vec<u16> = self.ports.values().copied().collect();
                self.dice.pick(&ports).and_then(|port| self.serving(port))
            }
            Victim::Helper | Victim::Paused => {
                let (mains, all) = (self.mains().await, self.world.processes());
                let helpers: Vec<u32> = all.into_iter().filter(|pid| !mains.contains(pid)).collect();
                self.dice.pick(&helpers)
            }
        };
        let start = Instant::now();
        let signal = match victim {
            Victim::Suspended | Victim::Paused => Signal::SIGSTOP,
            _ => Signal::SIGKILL,
        };
        // It may have ended on its own account, which makes this one harmless.
        let Some(pid) = pid.filter(|pid| nix::sys::signal::kill(pid_of(*pid), signal).is_ok()) else {
            return;
        };
        let was_quiet = std::mem::take(&mut self.is_quiet);
        let mut victim = victim;
        let held_back = self.held_back();
        match victim {
            Victim::Guard => {
                self.world.ended().await;
                if let Some(daemon) = daemon {
                    until_gone(daemon).await;
                }
                let left = self.world.processes();
                assert_eq!(
                    left,
                    Vec::<u32>::new(),
                    "the daemon left these when its guard was killed ({number})"
                );
                self.world.start();
                self.client = connect(&self.world, daemon).await;
                self.follow().await;
            }
            Victim::Daemon | Victim::DaemonHeldBack => {
                self.client = connect(&self.world, Some(pid)).await;
                self.follow().await;
                self.tells_of_the_dead(was_quiet).await;
                if self.held_back() > held_back {
                    victim = Victim::DaemonHeldBack;
                }
            }
            // It is replaced because it does not answer, before it is ready or after; nobody helps it.
            Victim::Suspended => until_gone(pid).await,
            Victim::Paused => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _gone = nix::sys::signal::kill(pid_of(pid), Signal::SIGCONT);
            }
            Victim::Server | Victim::Helper => {}
        }
        // Every third kill hits a daemon and servers that are still busy with the one before.
        if self.dice.below(3) > 0 {
            self.until_all_ready().await;
            self.times.entry(victim).or_default().push(start.elapsed());
        } else {
            tokio::time::sleep(Duration::from_millis(self.dice.below(30))).await;
        }
    }

    /// Returns the process that answers on a port.
    fn serving(&self, port: u16) -> Option<u32> {
        let wanted = format!("serve\0{port}\0");
        let is_it = |pid: &u32| {
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split_once('\0').is_some_and(|(_, arguments)| arguments == wanted)
        };
        self.world.processes().into_iter().find(is_it)
    }

    /// With everybody ready when the daemon was killed, the next one tells of each server that its start ended, once.
    async fn tells_of_the_dead(&mut self, was_quiet: bool) {
        let [.., before, now] = self.ends.as_slice() else { return };
        if !was_quiet {
            return;
        }
        let deadline = Instant::now() + BACK;
        while now.lock().expect("nobody panics with it").lost.len() < SERVERS {
            assert!(Instant::now() < deadline, "not every end was told: {:?}", now.lock());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (before, now) = (before.lock().expect("fine"), now.lock().expect("fine"));
        for (child, lost) in &now.lost {
            let last = before.ends.get(child).and_then(|ends| ends.last_key_value());
            assert_eq!(
                Some(lost.as_slice()),
                last.map(|(last, _)| std::slice::from_ref(last)),
                "{child}: the start that was running is told of, once"
            );
        }
    }

    /// Returns how often a guard has waited so far.
    fn held_back(&self) -> usize {
        self.world.said().matches("it is started again in").count()
    }

    async fn mains(&self) -> Vec<u32> {
        let listed =
            self.client.call::<List>(ListParams {}).await.map(|list| list.servers).unwrap_or_default();
        listed.iter().filter_map(|server| server.pid).collect()
    }

    /// Waits until every server is ready, with each of its processes there once and no other process.
    async fn until_all_ready(&mut self) {
        let deadline = Instant::now() + BACK;
        loop {
            let now = self.state().await;
            if now == Ok(()) {
                self.is_quiet = true;
                return;
            }
            assert!(Instant::now() < deadline, "not everybody came back: {now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn state(&self) -> Result<(), String> {
        let listed =
            self.client.call::<List>(ListParams {}).await.map_err(|error| error.to_string())?.servers;
        let ready = listed.iter().filter(|server| server.state == State::Running && server.ready).count();
        if ready != SERVERS {
            return Err(format!("{ready} of {SERVERS} ready"));
        }
        let running = self.world.processes();
        // A fourth of the servers have one that writes, and those that are checked one that answers.
        let expected = SERVERS * ROLES.len() + SERVERS.div_ceil(4) + self.ports.len();
        if running.len() != expected {
            return Err(format!("{} processes instead of {expected}", running.len()));
        }
        for number in 0..SERVERS {
            for role in ROLES {
                let holder = last_line(&self.world.path(&format!("{number}.{role}")));
                if !holder.is_some_and(|pid| running.contains(&pid)) {
                    return Err(format!("{role} of {number} is not there"));
                }
            }
        }
        Ok(())
    }

    async fn end(mut self) {
        for number in 0..SERVERS {
            for role in ROLES {
                let doubled = self.world.path(&format!("{number}.{role}.doubled"));
                assert!(!doubled.exists(), "{role} of {number} ran twice at once");
            }
        }
        self.world.signal(Signal::SIGTERM);
        assert_eq!(self.world.ended().await.code(), Some(0), "{}", self.world.said());
        assert_eq!(self.world.processes(), Vec::<u32>::new());
        let Record { starts, lives, by_the_next } = Record::read(&self.world);
        println!(
            "{starts} starts in {lives} lives of the daemon, 0 orphans, 0 doubles, one terminal event each; {by_the_next} by \
             the daemon after the dead one",
        );
        for (victim, times) in &mut self.times {
            times.sort_unstable();
            let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
            println!(
                "{victim:?}: {} measured, until all are ready p50 {} ms, max {} ms",
                times.len(),
                median.as_millis(),
                last.as_millis()
            );
        }
    }
}

/// What the journal says in the end.
#[derive(Debug, Default)]
struct Record {
    starts: usize,
    lives: usize,
    /// How many ends were told by the daemon after the dead one.
    by_the_next: usize,
}

impl Record {
    /// Reads it, and checks that each start has exactly one end.
    fn read(world: &World) -> Self {
        let mut record = Self::default();
        // By child and number of the start, which each life counts anew: whether it has ended, and in which life it was told.
        let mut starts: BTreeMap<(String, u64), (bool, String)> = BTreeMap::new();
        let (mut era, mut last) = (String::new(), 0);
        for name in ["events.jsonl.1", "events.jsonl"] {
            // The first is there only if there are very many.
            let text = std::fs::read_to_string(world.path("state/xy").join(name)).unwrap_or_default();
            for line in text.lines() {
                let event: Event = serde_json::from_str(line).expect("each line is an event");
                assert!(last == 0 || event.seq == last + 1, "event {} follows {last}", event.seq);
                last = event.seq;
                let now = event.id.split_once('-').expect("an era and a number").0;
                if now != era {
                    (era, record.lives) = (now.to_owned(), record.lives + 1);
                }
                let Some(incarnation) = event.incarnation else { continue };
                let key = (event.path.clone(), incarnation);
                match event.event_type.as_str() {
                    "child_starting" => {
                        let before = starts.insert(key, (false, era.clone()));
                        assert!(before.is_none_or(|(has_ended, _)| has_ended), "begun twice: {line}");
                        record.starts += 1;
                    }
                    "child_exited" | "child_stopped" | "child_start_failed" => {
                        let cause = event.payload.get("cause").and_then(|cause| cause.as_str());
                        let is_of_the_dead = cause.is_some_and(|cause| cause.starts_with("the daemon died"));
                        record.by_the_next += usize::from(is_of_the_dead);
                        match starts.get_mut(&key) {
                            Some((has_ended, told_in)) if !*has_ended => {
                                (*has_ended, *told_in) = (true, era.clone());
                            }
                            // The dead one had not written that this one began, and its number had been another's.
                            before => {
                                assert!(is_of_the_dead, "ended without a start: {line}");
                                assert!(before.is_none_or(|before| before.1 != era), "ended twice: {line}");
                                starts.insert(key, (true, era.clone()));
                                record.starts += 1;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let open: Vec<_> = starts.iter().filter(|(_, (has_ended, _))| !has_ended).collect();
        assert!(open.is_empty(), "nobody was told of the end of these: {open:?}");
        record
    }
}

/// Returns whether a server is asked how it is.
fn is_checked(number: usize) -> bool {
    number % 5 == 1
}

/// Connects to a daemon that is not this one.
async fn connect(world: &World, old: Option<u32>) -> Client {
    let socket = world.socket();
    let deadline = Instant::now() + BACK;
    loop {
        if let Ok(client) = Client::connect(&socket).await
            && let Ok(version) = client.call::<Version>(VersionParams::default()).await
            && Some(version.pid) != old
        {
            return client;
        }
        assert!(Instant::now() < deadline, "no daemon came back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_gone(pid: u32) {
    let deadline = Instant::now() + BACK;
    // A zombie of ours is nobody's; it has no environment.
    while std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| !text.is_empty()) {
        assert!(Instant::now() < deadline, "{pid} does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn last_line(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.lines().last()?.parse().ok()
}
