//! Completions, manual pages and help topics, from the definitions of the command line.

use crate::daemon::{Daemon, nowhere};
use crate::real::RealDaemon;
use crate::xyctl::{self, finish, start_in_with};

/// Completes the last word as bash asks for it.
fn completed(socket: &std::path::Path, words: &[&str]) -> Vec<String> {
    let index = (words.len() - 1).to_string();
    let variables = [("COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", index.as_str()), ("_CLAP_IFS", "\n")];
    let arguments = [&["--"], words].concat();
    let run = finish(start_in_with(nowhere(), socket, &arguments, &variables));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    run.text().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn words_are_completed_by_commands_by_live_names_and_by_tags() {
    let daemon = RealDaemon::start(&[
        ("search", r#"Process(command: "sleep", args: ["1000"], tags: ["blue"], autostart: false)"#),
        ("server", r#"Process(command: "sleep", args: ["1000"], tags: ["blue", "black"], autostart: false)"#),
    ]);
    assert_eq!(completed(&daemon.socket(), &["xyctl", "resu"]), ["resume"]);
    assert_eq!(completed(&daemon.socket(), &["xyctl", "start", "sea"]), ["search"]);
    assert_eq!(completed(&daemon.socket(), &["xyctl", "logs", "se"]), ["search", "server"]);
    assert_eq!(completed(&daemon.socket(), &["xyctl", "stop", "@"]), ["@black", "@blue"]);
    // Without a daemon there are no names, and no error on the line that is typed.
    assert_eq!(completed(nowhere(), &["xyctl", "start", "sea"]), Vec::<String>::new());
}

#[test]
fn each_shell_is_told_to_ask_this_program() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = xyctl::run(nowhere(), &["completions", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(run.text().contains("COMPLETE") && run.text().contains("xyctl"), "{shell}: {run:?}");
    }
    assert_eq!(xyctl::run(nowhere(), &["completions", "tcsh"]).code, Some(64));
}

#[test]
fn there_is_a_manual_page_of_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    xyctl::run(nowhere(), &["man", pages.to_str().unwrap()]).is(0, "", "");
    let page = |name: &str| {
        std::fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("xyctl.1").contains(".TH xyctl 1"), "{}", page("xyctl.1"));
    assert!(page("xyctl-restart.1").contains("wait until they are ready"));
    assert!(page("xyd.1").contains("no\\-guard"), "{}", page("xyd.1"));
    let run = xyctl::run(nowhere(), &["man"]);
    assert_eq!((run.code, run.text().contains(".TH xyctl 1")), (Some(0), true));
}

#[test]
fn the_exit_codes_are_a_topic_of_the_help() {
    let run = xyctl::run(nowhere(), &["help", "exit-codes"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for code in ["  0   ", "  1   ", "  2   ", "  3   ", "  64  ", "  70  ", "  75  "] {
        assert!(run.text().contains(code), "{code:?}: {run:?}");
    }
}

#[test]
fn a_habit_that_cannot_work_is_answered_with_the_command_that_does_it() {
    let daemon = Daemon::start();
    daemon.xyctl(&["kill", "web"]).is(
        64,
        "",
        "error: there is no command `kill`\nhint: `xyctl stop NAME` ends a server and keeps it down; \
         `xyctl signal NAME KILL` kills it, and it is restarted\n",
    );
}
