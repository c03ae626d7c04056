//! The supervisors that are compared: how each is told what to run, started, and stopped.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::{self, MARKER};

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The C program beside this harness.
    Limit,
    /// The daemon of this project, with its guard.
    Xyd,
    S6,
    Runit,
    Daemontools,
    Supervisord,
    Pm2,
    Horust,
    /// Measured only in how it answers its command.
    Circus,
}

/// What is to be run, the same for each subject.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The first word of the children's argument, and what follows their name.
    pub(crate) kind: &'static str,
    pub(crate) tail: String,
    pub(crate) count: usize,
    /// Whether every restart is to come at once, however many came before.
    pub(crate) always_at_once: bool,
    /// Whether the output goes to files, which are rotated at this size and of which that many are kept.
    pub(crate) log: Option<(u64, usize)>,
    /// Whether its command is to reach it, where that has to be configured.
    pub(crate) is_asked: bool,
}

impl Work {
    /// Silent children that stay.
    pub(crate) fn silent(count: usize) -> Self {
        Self { kind: "run", tail: String::new(), count, always_at_once: true, log: None, is_asked: false }
    }

    /// Returns the names of the children.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.count).map(|child| format!("c{child:04}"))
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The programs that were compiled from C.
    pub(crate) built: PathBuf,
    /// This project's own programs.
    pub(crate) own: PathBuf,
    /// What `setup` has fetched.
    pub(crate) peers: PathBuf,
}

impl Places {
    /// Returns the program that is run under each supervisor.
    pub(crate) fn child(&self) -> PathBuf {
        self.built.join("child")
    }
}

impl Subject {
    /// All of them, in the order of the columns.
    pub(crate) const ALL: [Self; 8] = [
        Self::Limit,
        Self::Xyd,
        Self::S6,
        Self::Runit,
        Self::Daemontools,
        Self::Supervisord,
        Self::Pm2,
        Self::Horust,
    ];

    /// Those that have a command which lists everything.
    pub(crate) const LISTING: [Self; 5] =
        [Self::Xyd, Self::Runit, Self::Supervisord, Self::Pm2, Self::Circus];

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Xyd => "xyd",
            Self::S6 => "s6",
            Self::Runit => "runit",
            Self::Daemontools => "daemontools",
            Self::Supervisord => "supervisord",
            Self::Pm2 => "pm2",
            Self::Horust => "horust",
            Self::Circus => "circus",
        }
    }

    /// Returns the program that is started.
    pub(crate) fn program(self, places: &Places) -> PathBuf {
        let fetched = |name: &str| places.peers.join(name);
        match self {
            Self::Limit => places.built.join("limit"),
            Self::Xyd => places.own.join("xyd"),
            // It starts its other half by the full name.
            Self::S6 => PathBuf::from("/usr/bin/s6-svscan"),
            Self::Runit => fetched("usr/bin/runsvdir"),
            Self::Daemontools => fetched("usr/bin/svscan"),
            Self::Supervisord => fetched("usr/bin/supervisord"),
            Self::Pm2 => fetched("pm2/node_modules/.bin/pm2"),
            Self::Horust => fetched("horust/bin/horust"),
            Self::Circus => fetched("circus/bin/circusd"),
        }
    }

    /// Returns its version as its package says.
    pub(crate) fn version(self, places: &Places) -> String {
        let package = match self {
            Self::Limit => return "C, posix_spawn".to_owned(),
            Self::Xyd => return env!("CARGO_PKG_VERSION").to_owned(),
            Self::Pm2 => {
                let manifest = fs::read_to_string(places.peers.join("pm2/node_modules/pm2/package.json"));
                let manifest = manifest.unwrap_or_default();
                let version = manifest.split_once("\"version\": \"").and_then(|rest| rest.1.split_once('"'));
                return version.map_or("?", |version| version.0).to_owned();
            }
            Self::Horust => {
                let installed =
                    fs::read_to_string(places.peers.join("horust/.crates.toml")).unwrap_or_default();
                let version = installed.split_once("\"horust ").and_then(|rest| rest.1.split_once(' '));
                return version.map_or("?", |version| version.0).to_owned();
            }
            Self::Circus => {
                let libraries = fs::read_dir(places.peers.join("circus/lib")).into_iter().flatten().flatten();
                let mut packages = libraries
                    .flat_map(|library| fs::read_dir(library.path().join("site-packages")))
                    .flatten()
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok());
                let version = packages.find_map(|name| {
                    Some(name.strip_prefix("circus-")?.strip_suffix(".dist-info")?.to_owned())
                });
                return version.unwrap_or_else(|| "?".to_owned());
            }
            Self::S6 => "s6_",
            Self::Runit => "runit_",
            Self::Daemontools => "daemontools_",
            Self::Supervisord => "supervisor_",
        };
        let packages = fs::read_dir(places.peers.join("debs")).into_iter().flatten().flatten();
        let names = packages.filter_map(|entry| entry.file_name().into_string().ok());
        let mut versions = names.filter_map(|name| {
            let version = name.strip_prefix(package)?.split('_').next()?;
            // A colon after the epoch is written as its code in file names.
            Some(version.rsplit("%3a").next().unwrap_or(version).to_owned())
        });
        versions.next().unwrap_or_else(|| "?".to_owned())
    }

    /// Returns whether a size of 1000 takes it many seconds.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Supervisord | Self::Pm2 | Self::Horust | Self::Circus)
    }

    /// Returns how long a child must have lived for a restart at once.
    pub(crate) fn shortest_life(self) -> Duration {
        match self {
            Self::S6 | Self::Runit | Self::Daemontools => Duration::from_millis(1200),
            _ => Duration::from_millis(20),
        }
    }

    /// Returns how the output of a child is captured, or nothing if it is not.
    pub(crate) fn logger(self) -> Option<&'static str> {
        match self {
            Self::Limit => None,
            Self::S6 => Some("s6-log T"),
            Self::Runit => Some("svlogd -tt"),
            Self::Daemontools => Some("multilog t"),
            Self::Pm2 => Some("no rotation"),
            Self::Xyd | Self::Supervisord | Self::Horust | Self::Circus => Some("itself"),
        }
    }

    /// Writes what it is to run into its directory.
    pub(crate) fn configure(self, places: &Places, directory: &Path, work: &Work) {
        let write = |path: &str, text: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("it is below the directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        let child = places.child();
        let child = child.display();
        let notes = directory.join("notes");
        let logs = directory.join("logs");
        fs::create_dir_all(&logs).expect("a directory");
        let argument = |name: &str| format!("{}:{}:{name}{}", work.kind, notes.display(), work.tail);
        match self {
            Self::Limit => {}
            Self::Xyd => {
                // Without `backoff_max` only the first restart comes at once.
                let at_once = if work.always_at_once { r#", backoff_max: "0s""# } else { "" };
                let (size, keep) = work.log.unwrap_or((10 << 20, 5));
                for name in work.names() {
                    let text = format!(
                        "Process(\n    command: \"{child}\",\n    args: [\"{}\"],\n    restart: (policy: Always, \
                         backoff_initial: \"0s\"{at_once}, max_retries_per_minute: 1000),\n    log: (max_size: \
                         \"{size}B\", keep: {keep}),\n)\n",
                        argument(&name),
                    );
                    write(&format!("config/xy/servers/{name}.ron"), &text);
                }
            }
            Self::S6 | Self::Runit | Self::Daemontools => {
                let executable = |path: &str, text: &str| {
                    write(path, text);
                    fs::set_permissions(directory.join(path), Permissions::from_mode(0o755)).expect("ours");
                };
                let tells = if self == Self::S6 { "+" } else { "" };
                for name in work.names() {
                    // Without a shell between, which is the fastest that they can be.
                    executable(
                        &format!("scan/{name}/run"),
                        &format!("#!{child} {tells}{}\n", argument(&name)),
                    );
                    if self == Self::S6 {
                        write(&format!("scan/{name}/notification-fd"), "3\n");
                    }
                    let Some((size, keep)) = work.log else { continue };
                    let into = logs.join(&name);
                    fs::create_dir_all(&into).expect("a directory");
                    write(&format!("logs/{name}/config"), &format!("s{size}\nn{keep}\n"));
                    let into = into.display();
                    let logger = match self {
                        Self::S6 => format!("s6-log n{keep} s{size} T {into}"),
                        Self::Runit => format!("svlogd -tt {into}"),
                        _ => format!("multilog t n{keep} s{size} {into}"),
                    };
                    executable(&format!("scan/{name}/log/run"), &format!("#!/bin/sh\nexec {logger}\n"));
                }
            }
            Self::Supervisord => {
                let mut text = format!(
                    "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={0}/pid\n\
                     minfds=10000\nchildlogdir={0}\n",
                    directory.display(),
                );
                if work.is_asked {
                    let socket = directory.join("socket");
                    let socket = socket.display();
                    text.push_str(&format!(
                        "[unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n\
                         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = \
                         supervisor.rpcinterface:make_main_rpcinterface\n",
                    ));
                }
                for name in work.names() {
                    let file = match work.log {
                        None => String::new(),
                        Some((size, keep)) => format!(
                            "stdout_logfile={}/{name}\nstdout_logfile_maxbytes={size}\nstdout_logfile_backups={keep}\n",
                            logs.display(),
                        ),
                    };
                    writeln!(
                        text,
                        "[program:{name}]\ncommand={child} {}\nautorestart=true\nstartsecs=0\n{file}",
                        argument(&name),
                    )
                    .expect("memory takes it");
                }
                write("supervisord.conf", &text);
            }
            Self::Pm2 => {
                let servers: Vec<String> = work
                    .names()
                    .map(|name| {
                        format!(
                            r#"{{"name":"{name}","script":"{child}","args":"{}","interpreter":"none","exec_mode":"fork",
"autorestart":true,"restart_delay":0,"max_restarts":1000000,"vizion":false,"pmx":false,
"out_file":"{logs}/{name}.out","error_file":"{logs}/{name}.err","pid_file":"{logs}/{name}.pid"}}"#,
                            argument(&name),
                            logs = logs.display(),
                        )
                    })
                    .collect();
                write("servers.json", &format!("{{\"apps\":[{}]}}", servers.join(",\n")));
            }
            Self::Horust => {
                for name in work.names() {
                    let output = match work.log {
                        None => "stdout = \"/dev/null\"\n".to_owned(),
                        Some((size, _)) => {
                            format!(
                                "stdout = \"{}/{name}\"\nstdout-rotate-size = \"{size}\"\n",
                                logs.display()
                            )
                        }
                    };
                    let text = format!(
                        "command = \"{child} {}\"\n{output}stderr = \"/dev/null\"\n[restart]\nstrategy = \"always\"\n\
                         backoff = \"0s\"\nattempts = 1000000\n[environment]\nkeep-env = true\n",
                        argument(&name),
                    );
                    write(&format!("services/{name}.toml"), &text);
                }
                fs::create_dir_all(directory.join("sockets")).expect("a directory");
            }
            Self::Circus => {
                let socket = |name: &str| format!("ipc://{}", directory.join(name).display());
                let mut text = format!(
                    "[circus]\nendpoint = {}\npubsub_endpoint = {}\n",
                    socket("asked"),
                    socket("told")
                );
                for name in work.names() {
                    let watcher =
                        format!("[watcher:{name}]\ncmd = {child} {}\ncopy_env = True\n", argument(&name));
                    text.push_str(&watcher);
                }
                write("circus.ini", &text);
            }
        }
    }

    /// Starts it and returns the process that was started; a daemon may have another.
    pub(crate) fn start(self, places: &Places, directory: &Path, work: &Work) -> i32 {
        let mut command = self.command(places, directory, self.program(places));
        match self {
            Self::Limit => {
                let notes = format!("{}:{}", work.kind, directory.join("notes").display());
                command.arg(places.child()).arg(notes).arg(work.count.to_string());
            }
            Self::Xyd => {}
            Self::S6 => {
                command.args(["-c", "1100"]).arg(directory.join("scan"));
            }
            Self::Runit | Self::Daemontools => {
                command.arg(directory.join("scan"));
            }
            Self::Supervisord => {
                command = self.command(places, directory, "/usr/bin/python3".into());
                command.arg(self.program(places)).arg("-c").arg(directory.join("supervisord.conf"));
            }
            Self::Pm2 => {
                command.args(["start", "--silent"]).arg(directory.join("servers.json"));
            }
            Self::Horust => {
                command.arg("--services-path").arg(directory.join("services"));
                command.arg("--uds-folder-path").arg(directory.join("sockets"));
            }
            Self::Circus => {
                command.arg(directory.join("circus.ini"));
            }
        }
        spawn(command)
    }

    /// Returns its command that lists all children and their states, for those in [`LISTING`](Self::LISTING).
    pub(crate) fn list(self, places: &Places, directory: &Path, work: &Work) -> Command {
        let mut command;
        match self {
            Self::Xyd => {
                command = self.command(places, directory, places.own.join("xyctl"));
                command.arg("list");
            }
            Self::Runit => {
                command = self.command(places, directory, places.peers.join("usr/bin/sv"));
                command.arg("status").args(work.names().map(|name| directory.join("scan").join(name)));
            }
            Self::Supervisord => {
                command = self.command(places, directory, "/usr/bin/python3".into());
                command.arg(places.peers.join("usr/bin/supervisorctl"));
                command.arg("-c").arg(directory.join("supervisord.conf")).arg("status");
            }
            Self::Pm2 => {
                command = self.command(places, directory, self.program(places));
                command.arg("list");
            }
            Self::Circus => {
                command = self.command(places, directory, places.peers.join("circus/bin/circusctl"));
                command.arg("--endpoint").arg(format!("ipc://{}", directory.join("asked").display()));
                command.arg("status");
            }
            Self::Limit | Self::S6 | Self::Daemontools | Self::Horust => {
                unreachable!("it has no such command")
            }
        }
        command
    }

    /// Returns `xyctl` with these arguments, in the environment of a run.
    pub(crate) fn xyctl(places: &Places, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Self::Xyd.command(places, directory, places.own.join("xyctl"));
        command.args(arguments);
        command
    }

    /// Asks for an ordered end of everything, and does not wait for it. `first` is what was started.
    pub(crate) fn stop(self, places: &Places, directory: &Path, work: &Work, first: i32) {
        match self {
            Self::Limit | Self::Xyd | Self::S6 | Self::Supervisord | Self::Horust | Self::Circus => {
                processes::signal(first, Signal::SIGTERM);
            }
            Self::Runit => processes::signal(first, Signal::SIGHUP),
            Self::Daemontools => {
                // Else it would start again what is told to exit.
                processes::signal(first, Signal::SIGTERM);
                let mut command = self.command(places, directory, places.peers.join("usr/bin/svc"));
                command.arg("-dx").args(work.names().map(|name| directory.join("scan").join(name)));
                if work.log.is_some() {
                    command.args(work.names().map(|name| directory.join("scan").join(name).join("log")));
                }
                spawn(command);
            }
            Self::Pm2 => {
                let mut command = self.command(places, directory, self.program(places));
                command.args(["kill", "--silent"]);
                spawn(command);
            }
        }
    }

    /// Returns the files that hold what a child has written, in no order.
    pub(crate) fn log_files(self, directory: &Path, name: &str) -> Vec<PathBuf> {
        let (place, prefix) = match self {
            Self::Xyd => (directory.join("state/xy/logs"), format!("{name}.log")),
            Self::S6 | Self::Runit | Self::Daemontools => (directory.join("logs").join(name), String::new()),
            Self::Pm2 => (directory.join("logs"), format!("{name}.out")),
            _ => (directory.join("logs"), name.to_owned()),
        };
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let others = ["config", "state", "lock"];
        files
            .filter(|entry| others.iter().all(|other| entry.file_name() != *other))
            .map(|entry| entry.path())
            .collect()
    }

    /// Makes a command with the same small environment for each, in which alone the processes of a run are known.
    fn command(self, places: &Places, directory: &Path, program: PathBuf) -> Command {
        let bin = places.peers.join("usr/bin");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(MARKER, directory)
            .env("HOME", directory)
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
            .env("LD_LIBRARY_PATH", places.peers.join("usr/lib/x86_64-linux-gnu"))
            .env("PYTHONPATH", places.peers.join("usr/lib/python3/dist-packages"))
            .env("PM2_HOME", directory.join("pm2"))
            .env("XDG_CONFIG_HOME", directory.join("config"))
            .env("XDG_STATE_HOME", directory.join("state"))
            .env("XDG_RUNTIME_DIR", directory.join("run"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("errors")).expect("a file"));
        command
    }
}

/// Starts a process that is reaped with all others.
#[expect(clippy::zombie_processes, reason = "the harness reaps all that end below it, adopted ones included")]
fn spawn(mut command: Command) -> i32 {
    let process = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    i32::try_from(process.id()).expect("a process id")
}
