//! What hands type that know another tool: each habit works, or is answered with the command that does it.
//!
//! One table says all of it; `docs/habits.md` is written from it and a test runs every row. Verbs that mean the same under
//! another name are aliases in the definitions of the command line; what needs more than that is rewritten here.

use std::ffi::OsString;

/// What the arguments came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Translated {
    /// The arguments to read, the program's name first.
    Words(Vec<OsString>),
    /// The help on exit codes was asked for.
    Topic,
    /// There is no such command, and this says which one does it.
    Answer(String),
}

/// How the words of another tool are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// They work as they are.
    Same,
    /// The first words stand for these; the others stay.
    Words(&'static str),
    /// The first word is answered with this.
    Answer(&'static str),
}

use Meaning::{Answer, Same, Words};

/// One habit: the tools that teach it, what is typed, and what it means. In `typed`, the words up to `|` are what is
/// recognized and those after it are an example of what may follow.
struct Habit {
    #[cfg_attr(not(test), expect(dead_code, reason = "the page that is written from the table says it"))]
    tools: &'static str,
    typed: &'static str,
    meaning: Meaning,
}

const fn habit(tools: &'static str, typed: &'static str, meaning: Meaning) -> Habit {
    Habit { tools, typed, meaning }
}

/// The table. The first row that fits counts, so longer ones come first.
const HABITS: &[Habit] = &[
    habit("docker, process-compose", "ps", Same),
    habit("pm2, docker", "ls", Same),
    habit("pm2, process-compose", "list", Same),
    habit("supervisorctl, systemctl, pueue", "status", Same),
    habit("supervisorctl, systemctl", "status web", Same),
    habit("pm2", "describe web", Same),
    habit("pm2", "show web", Same),
    habit("pm2", "info | web", Words("status")),
    habit("pm2", "monit", Words("top")),
    habit("pm2, docker", "logs web", Same),
    habit("docker, kubectl", "logs -f web", Same),
    habit("tail, journalctl", "logs -n 100 web", Same),
    habit("pm2", "logs web --lines 100", Same),
    habit("docker, journalctl", "logs --since 10m web", Same),
    habit("pueue", "log web", Same),
    habit("pueue", "follow | web", Words("logs -f")),
    habit("supervisorctl", "tail -f | web", Words("logs -f")),
    habit("supervisorctl", "tail | web", Words("logs")),
    habit("supervisorctl", "fg | web", Words("logs -f")),
    habit("supervisorctl", "start all", Same),
    habit("supervisorctl", "stop all", Same),
    habit("supervisorctl, pm2", "restart all", Same),
    habit("supervisorctl, systemctl", "start web", Same),
    habit("supervisorctl, systemctl", "stop web api", Same),
    habit("supervisorctl, systemctl", "restart web", Same),
    habit("systemctl", "try-restart | web", Words("restart")),
    habit("systemctl", "reload-or-restart | web", Words("restart")),
    habit("supervisorctl", "signal HUP web", Same),
    habit("systemctl, docker", "kill -s | HUP web", Words("signal -s")),
    habit("systemctl", "kill --signal | HUP web", Words("signal --signal")),
    habit(
        "docker, pueue",
        "kill | web",
        Answer(
            "`xyctl stop NAME` ends a server and keeps it down; `xyctl signal NAME KILL` kills it, and it is restarted",
        ),
    ),
    habit("supervisorctl", "pid | web", Words("status")),
    habit("supervisorctl", "reread", Words("reload --dry-run")),
    habit("supervisorctl", "update", Words("reload")),
    habit("supervisorctl", "avail", Words("list")),
    habit("supervisorctl", "shutdown", Same),
    habit(
        "supervisorctl, pm2",
        "clear | web",
        Answer(
            "logs rotate by themselves; `log: (max_size: .., keep: ..)` in a server file sets how much is kept",
        ),
    ),
    habit(
        "pm2",
        "flush",
        Answer(
            "logs rotate by themselves; `log: (max_size: .., keep: ..)` in a server file sets how much is kept",
        ),
    ),
    habit("systemctl", "daemon-reload", Words("reload")),
    habit("systemctl", "enable web", Same),
    habit("systemctl", "enable --now web", Same),
    habit("systemctl", "disable web", Same),
    habit("systemctl", "disable --now web", Same),
    habit("systemctl", "mask | web", Words("disable --now")),
    habit("systemctl", "unmask | web", Words("enable")),
    habit("systemctl", "is-active | web", Words("wait --for ready --timeout 0")),
    habit("systemctl", "is-failed | web", Words("why")),
    habit("systemctl", "is-enabled | web", Words("show")),
    habit("systemctl", "cat | web", Words("show")),
    habit("systemctl", "list-units", Words("list")),
    habit(
        "systemctl",
        "edit | web",
        Answer("edit the server's file, whose path `xyctl show NAME` says, and `xyctl reload`"),
    ),
    habit("pm2, pueue", "delete web", Same),
    habit("pueue", "remove web", Same),
    habit("pm2", "reload | web", Words("restart")),
    habit("pm2", "kill", Words("shutdown")),
    habit(
        "pm2",
        "save",
        Answer(
            "nothing has to be saved: `xyctl add NAME -- COMMAND` writes a file, `xyctl enable NAME` is remembered",
        ),
    ),
    habit(
        "pm2",
        "resurrect",
        Answer("nothing has to be brought back: the daemon starts every server that is enabled"),
    ),
    habit("pm2", "startup", Answer("`xyctl daemon install` starts the daemon when you log in")),
    habit("pm2", "scale | web 3", Answer("`instances: 3` in the server's file, then `xyctl reload`")),
    habit("pueue", "add web -- sleep 10", Same),
    habit("pueue", "pause web", Same),
    habit("pueue", "wait web", Same),
    habit(
        "pueue",
        "clean",
        Answer(
            "`xyctl rm NAME` removes a server; one that ended stays listed so that `xyctl why NAME` can explain it",
        ),
    ),
    habit("docker, process-compose", "up", Same),
    habit("docker, process-compose", "up -d", Words("daemon start")),
    habit("process-compose", "up -D", Words("daemon start")),
    habit("docker", "up --detach", Words("daemon start")),
    habit("docker, process-compose", "down", Words("shutdown")),
    habit("process-compose", "process list", Words("list")),
    habit("process-compose", "process start | web", Words("start")),
    habit("process-compose", "process stop | web", Words("stop")),
    habit("process-compose", "process restart | web", Words("restart")),
    habit("process-compose", "process logs | web", Words("logs")),
    habit(
        "process-compose",
        "process scale | web 3",
        Answer("`instances: 3` in the server's file, then `xyctl reload`"),
    ),
    habit("process-compose, docker", "attach", Words("top")),
    habit("process-compose", "project update", Words("reload")),
];

/// Verbs that act on servers, where `all` as the only name means all.
const TARGETED: [&str; 10] =
    ["start", "stop", "restart", "pause", "resume", "enable", "disable", "logs", "log", "wait"];

/// Options of every command that take a word.
const WITH_VALUE: [&str; 2] = ["--socket", "--color"];

/// Options of the verbs that act on servers that take a word.
const VALUED: [&str; 11] = [
    "-n",
    "--tail",
    "--lines",
    "--since",
    "--until",
    "-g",
    "--grep",
    "--timeout",
    "--reason",
    "--for",
    "--socket",
];

/// Rewrites what another tool calls otherwise.
pub(crate) fn translate(arguments: Vec<OsString>) -> Translated {
    // What is not text is no habit. Nor is anything after `--`, which belongs to a command that is to be run.
    let mut words: Vec<&str> = Vec::with_capacity(arguments.len());
    for argument in arguments.iter().skip(1) {
        match argument.to_str() {
            Some("--") | None => break,
            Some(word) => words.push(word),
        }
    }
    let Some(verb) = first_verb(&words) else { return Translated::Words(arguments) };
    let typed = words.get(verb..).unwrap_or_default();
    if typed == ["help", "exit-codes"] {
        return Translated::Topic;
    }
    for Habit { typed: pattern, meaning, .. } in HABITS {
        let (prefix, is_open) = match pattern.split_once(" |") {
            Some((prefix, _)) => (prefix, true),
            None => (*pattern, false),
        };
        let prefix: Vec<&str> = prefix.split(' ').collect();
        // What nothing may follow is recognized as a whole, so that it hides no other meaning of its first word.
        let rest = typed.strip_prefix(&prefix[..]);
        let fits = rest.is_some_and(|rest| match is_open {
            true => rest.iter().any(|word| !word.starts_with('-')),
            false => rest.is_empty(),
        });
        if !fits {
            continue;
        }
        match meaning {
            Same => break,
            Answer(answer) => {
                return Translated::Answer(format!(
                    "there is no command `{}`\nhint: {answer}",
                    prefix.join(" ")
                ));
            }
            Words(means) => {
                let (from, to) = (1 + verb, 1 + verb + prefix.len());
                let mut rewritten = arguments.clone();
                rewritten.splice(from..to, means.split(' ').map(OsString::from));
                return Translated::Words(rewritten);
            }
        }
    }
    let mut rewritten = arguments.clone();
    if let [name, rest @ ..] = typed
        && TARGETED.contains(name)
    {
        let is_value = |place: usize| place > 0 && VALUED.contains(&rest[place - 1]);
        let mut names =
            rest.iter().enumerate().filter(|(place, word)| !word.starts_with('-') && !is_value(*place));
        if let (Some((place, &"all")), None) = (names.next(), names.next()) {
            rewritten[1 + verb + 1 + place] = OsString::from("--all");
        }
    }
    // supervisorctl names the signal first.
    if let ["signal", first, _, ..] = typed
        && !first.starts_with('-')
        && crate::args::is_signal(first)
        && !typed.last().is_some_and(|last| crate::args::is_signal(last))
    {
        let signal = rewritten.remove(1 + verb + 1);
        rewritten.push(signal);
    }
    Translated::Words(rewritten)
}

/// Returns where the verb is: the first word that is neither an option nor the value of one.
fn first_verb(words: &[&str]) -> Option<usize> {
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += match *word {
            option if WITH_VALUE.contains(&option) => 2,
            option if option.starts_with('-') => 1,
            _ => return Some(index),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Parsed};

    fn arguments(line: &str) -> Vec<OsString> {
        std::iter::once("xyctl").chain(line.split(' ')).map(OsString::from).collect()
    }

    /// Reads a line without running it. `daemon start` is not parsed here.
    fn parsed(line: &str) -> Option<String> {
        match args::parse(arguments(line)) {
            Parsed::Run(cli) => Some(format!("{:?}", cli.command)),
            Parsed::Exit(_) => None,
        }
    }

    fn typed(habit: &Habit) -> String {
        habit.typed.replace(" |", "")
    }

    /// What a row says that its words mean, in full.
    fn means(habit: &Habit, words: &str) -> String {
        match habit.typed.split_once(" | ") {
            Some((_, rest)) => format!("{words} {rest}"),
            None => words.to_owned(),
        }
    }

    #[test]
    fn every_habit_works_as_the_table_says_or_is_answered() {
        for habit in HABITS {
            let typed = typed(habit);
            match habit.meaning {
                Same => assert!(parsed(&typed).is_some(), "`{typed}` does not work"),
                Words(words) => {
                    let means = means(habit, words);
                    assert_eq!(translate(arguments(&typed)), Translated::Words(arguments(&means)), "{typed}");
                    assert!(
                        parsed(&means).is_some() || means.starts_with("daemon "),
                        "`{means}` does not work"
                    );
                    assert_eq!(parsed(&typed), parsed(&means), "{typed}");
                }
                Answer(answer) => match translate(arguments(&typed)) {
                    Translated::Answer(text) => assert!(text.ends_with(answer), "{typed}: {text}"),
                    other => panic!("`{typed}` is not answered: {other:?}"),
                },
            }
        }
    }

    #[test]
    fn all_means_all_only_where_it_is_the_only_name() {
        let translated = |line: &str| match translate(arguments(line)) {
            Translated::Words(words) => words.join(&OsString::from(" ")).into_string().unwrap(),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(translated("--json restart all --no-wait"), "xyctl --json restart --all --no-wait");
        assert_eq!(translated("logs all -n 1"), "xyctl logs --all -n 1");
        assert_eq!(translated("logs -n 1 all"), "xyctl logs -n 1 --all");
        assert_eq!(translated("restart all web"), "xyctl restart all web");
        assert_eq!(translated("why all"), "xyctl why all");
        assert_eq!(translated("signal HUP web api"), "xyctl signal web api HUP");
        assert_eq!(translated("signal web HUP"), "xyctl signal web HUP");
    }

    #[test]
    fn the_words_of_a_command_that_is_run_are_its_own() {
        let line = "run x -- kill web";
        assert_eq!(translate(arguments(line)), Translated::Words(arguments(line)));
        let line = "--socket kill list";
        assert_eq!(translate(arguments(line)), Translated::Words(arguments(line)));
    }

    #[test]
    fn the_page_of_habits_is_the_table() {
        let mut page = String::from(
            "# Habits of other tools\n\n\
             What hands type that know another tool, and what `xyctl` makes of it. This page is written from the table in\n\
             `xy-cli/src/habits.rs`, of which a test runs every row.\n\n\
             | typed | known from | does |\n|---|---|---|\n",
        );
        for habit in HABITS {
            let does = match habit.meaning {
                Same => "works".to_owned(),
                Words(words) => format!("`xyctl {}`", means(habit, words)),
                Answer(answer) => format!("answers: {answer}"),
            };
            page.push_str(&format!("| `xyctl {}` | {} | {does} |\n", typed(habit), habit.tools));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/habits.md");
        if std::env::var_os("XY_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/habits.md is out of date; write it with XY_WRITE_DOCS=1 in the environment"
        );
    }
}
