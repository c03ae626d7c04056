//! The command line of `xyd`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::http::Listen;

/// Keeps servers running and restarts those that crash.
///
/// Reads one file per server and exposes them over a local socket; `xyctl` is the other end. Runs in the foreground,
/// logs to stderr, reloads on SIGHUP, gives way to the program on disk on SIGUSR1 while servers run on, and ends everything on SIGTERM and SIGINT.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "xyd",
    version,
    after_help = "Exit codes: 0 success, 3 configuration invalid, 64 usage, 70 internal error, 75 another instance runs."
)]
pub struct Arguments {
    /// The configuration directory, with `xyd.ron` and `servers/NAME.ron`
    ///
    /// The default is `$XDG_CONFIG_HOME/xy`, else `~/.config/xy`.
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,

    /// The local socket to listen on
    ///
    /// The default is `$XY_SOCKET`, else `xyd.sock` in the runtime directory.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Check the configuration, print every mistake, and exit
    #[arg(long)]
    pub check: bool,

    /// Run without the guard, for a service manager that restarts xyd itself
    ///
    /// The guard is a small parent process: it starts xyd again when that is killed or crashes, after ending every process
    /// that was left. There is none, either, if `NOTIFY_SOCKET` is set.
    #[arg(long)]
    pub no_guard: bool,

    /// Own servers without control groups, even where one is delegated
    ///
    /// Orphans are then attributed by what they inherited, as on systems without control groups (version 2).
    #[arg(long)]
    pub no_cgroup: bool,

    /// Answer over HTTP on a loopback address, too
    ///
    /// Without ADDR at the one of `xyd.ron`, else at 127.0.0.1:9847; port 0 lets the system choose. `xyd.json` in the
    /// state directory tells clients the address and the token.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, value_parser = crate::http::address::parse)]
    pub http: Option<Option<SocketAddr>>,

    /// Keep the token of HTTP in this file
    ///
    /// If it exists, the token in it is used; it must belong to you and have mode 600. Without it, the token is that of
    /// `$XY_TOKEN`, else a new one, and is kept in `http.token` in the state directory.
    #[arg(long, value_name = "PATH")]
    pub http_token_file: Option<PathBuf>,

    /// End after this time without running servers and clients, such as "10m"
    ///
    /// The default is `idle_shutdown` of `xyd.ron`, else never.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub idle_shutdown: Option<Duration>,

    /// Leave the terminal: become the leader of a new session; given by `xyctl daemon start`.
    #[arg(long, hide = true)]
    pub detach: bool,
    /// Check whether this program could go on with the state that a running xyd has written, and exit; `-` is stdin
    ///
    /// A xyd that is to be upgraded asks the program on disk so before that takes over.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub check_handoff: Option<PathBuf>,

    /// The descriptor with the state of the program that ran in this process before; given by that.
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub handoff: Option<i32>,

    /// The program that was to take over from this one did not come up; given by that.
    #[arg(long, hide = true, requires = "handoff")]
    pub handed_back: bool,

    /// The guard of this process, which is its parent; given by the guard to a xyd that it starts again.
    #[arg(long, value_name = "PID", hide = true)]
    pub guard_pid: Option<u32>,
}

impl Arguments {
    /// Returns where HTTP is to listen.
    pub fn listen(&self) -> Listen {
        match self.http {
            None => Listen::Configured,
            Some(None) => Listen::On,
            Some(Some(address)) => Listen::At(address),
        }
    }

    /// Returns whether this start is to put a guard above itself.
    ///
    /// A service manager does a guard's work, and says that it is one by `NOTIFY_SOCKET`.
    pub fn wants_guard(&self, env: impl Fn(&str) -> Option<OsString>) -> bool {
        let is_managed = env("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty());
        !self.no_guard && self.guard_pid.is_none() && !is_managed
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_is_optional_and_read() {
        let bare = Arguments::try_parse_from(["xyd"]).expect("no option is required");
        let expected = Arguments {
            config: None,
            socket: None,
            check: false,
            no_guard: false,
            no_cgroup: false,
            http: None,
            http_token_file: None,
            idle_shutdown: None,
            detach: false,
            check_handoff: None,
            handoff: None,
            handed_back: false,
            guard_pid: None,
        };
        assert_eq!(bare, expected);
        let line = [
            "xyd",
            "--config",
            "/c",
            "--socket",
            "/s",
            "--check",
            "--no-guard",
            "--no-cgroup",
            "--http",
            "[::1]:0",
            "--http-token-file",
            "/t",
            "--idle-shutdown",
            "10m",
            "--guard-pid",
            "7",
            "--handoff",
            "9",
            "--handed-back",
        ];
        let full = Arguments::try_parse_from(line).expect("all options are known");
        let expected = Arguments {
            config: Some("/c".into()),
            socket: Some("/s".into()),
            check: true,
            no_guard: true,
            no_cgroup: true,
            http: Some("[::1]:0".parse().ok()),
            http_token_file: Some("/t".into()),
            idle_shutdown: Some(Duration::from_secs(600)),
            detach: false,
            check_handoff: None,
            handoff: Some(9),
            handed_back: true,
            guard_pid: Some(7),
        };
        assert_eq!(full, expected);
    }

    #[test]
    fn there_is_a_guard_unless_there_is_one_or_a_service_manager_or_none_is_wanted() {
        let parse = |line: &[&str]| Arguments::try_parse_from(line).expect("known options");
        let none = |_: &str| None;
        assert!(parse(&["xyd"]).wants_guard(none));
        assert!(!parse(&["xyd", "--no-guard"]).wants_guard(none));
        assert!(!parse(&["xyd", "--guard-pid", "7"]).wants_guard(none));
        let managed = |name: &str| (name == "NOTIFY_SOCKET").then(|| "/run/systemd/notify".into());
        assert!(!parse(&["xyd"]).wants_guard(managed));
        assert!(parse(&["xyd"]).wants_guard(|_| Some("".into())));
    }

    #[test]
    fn http_is_asked_for_with_or_without_an_address_and_only_a_loopback_one() {
        let parse = |line: &[&str]| Arguments::try_parse_from(line).map(|arguments| arguments.listen());
        assert_eq!(parse(&["xyd"]).ok(), Some(Listen::Configured));
        assert_eq!(parse(&["xyd", "--http", "--no-guard"]).ok(), Some(Listen::On));
        let given = "127.0.0.1:5".parse().expect("an address");
        assert_eq!(parse(&["xyd", "--http", "127.0.0.1:5"]).ok(), Some(Listen::At(given)));
        for refused in ["0.0.0.0:5", "localhost:5", "192.168.0.1:5"] {
            let error = parse(&["xyd", "--http", refused]).expect_err("refused").to_string();
            assert!(error.contains("127.0.0.1"), "{error}");
        }
    }

    #[test]
    fn unknown_options_and_operands_are_usage_errors() {
        for line in [["xyd", "--confg"], ["xyd", "dir"]] {
            let error = Arguments::try_parse_from(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
