//! Files that are refused, and the exact words.

use std::collections::BTreeSet;
use std::fs;

use xy_daemon::config::LoadError;

use crate::support::{Directory, errors, fixtures, web_errors};

/// Each `fixtures/bad/NAME.ron` is refused with the text of `NAME.txt`.
///
/// `XY_BLESS=1` writes the texts anew, for a person to read.
#[test]
fn each_bad_fixture_is_refused_in_its_pinned_words() {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(fixtures("bad")).expect("fixtures are checked in") {
        let path = entry.expect("a directory entry").path();
        names.insert(path.file_stem().expect("a file").to_string_lossy().into_owned());
    }
    assert!(names.len() > 30, "fixtures are missing: {names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let text = fs::read(fixtures("bad").join(format!("{name}.ron"))).expect("each text has its file");
        let config = Directory::new().write(&format!("servers/{name}.ron"), text).load();
        assert!(config.servers.is_empty() && config.groups.is_empty(), "{name} was accepted");
        let found = errors(&config) + "\n";
        let pinned = fixtures("bad").join(format!("{name}.txt"));
        if std::env::var_os("XY_BLESS").is_some() {
            fs::write(pinned, found).expect("the source tree is writable");
        } else if found != fs::read_to_string(pinned).unwrap_or_default() {
            wrong.push(found);
        }
    }
    assert!(wrong.is_empty(), "not as pinned:\n{}", wrong.join("\n"));
}

#[test]
fn the_first_error_of_shape_and_all_errors_of_meaning_are_reported() {
    let shape = web_errors("Process(command: \"a\", x: 1, y: 2)");
    assert_eq!(shape.lines().count(), 1, "{shape}");
    let meaning = web_errors("Process(command: \"\", port: 0, stop: (grace: \"x\"))");
    assert_eq!(meaning.lines().count(), 3, "{meaning}");
}

#[test]
fn a_flood_of_mistakes_is_counted_and_told_in_bounded_time() {
    let entries: String = (0..50_000).map(|index| format!("\"{index}=\": 1, ")).collect();
    let text = web_errors(format!("Process(command: \"a\", env: {{{entries}}})"));
    assert_eq!(text.lines().count(), 101);
    assert!(text.ends_with("servers/web.ron: there are 49900 more mistakes"));
}

#[test]
fn environment_values_never_appear_in_errors() {
    for value in [
        "\"hunter2",
        "\"hunter2\\u{0}\"",
        "[\"hunter2\"]",
        "b\"hunter2\"",
        "hunter2",
        "Some(\"hunter2\")",
        "(\"hunter2\")",
        "{\"hunter2\": 1}",
        "\"hunter2\" hunter2",
        "\"\\hunter2\"",
        "'hunter2'",
    ] {
        let text = web_errors(format!("Process(command: \"\", env: {{\"SECRET\": {value}}})"));
        assert!(!text.is_empty() && !text.contains("hunter2"), "{value}: {text}");
    }
}

#[test]
fn brackets_nested_deeply_are_refused_without_overflowing_the_stack() {
    for (open, close) in [
        ("[", "]"),
        ("(", ")"),
        ("{", "}"),
        ("Some(", ")"),
        ("/*", "*/"),
        ("{1:", "}"),
        ("a(", ")"),
        ("Supervisor(children:[", "])"),
    ] {
        let deep = open.repeat(100_000);
        for text in [
            deep.clone(),
            format!("Process(command: {deep}"),
            format!("Process(command: \"a\", env: {{\"A\": {deep}{}}})", close.repeat(100_000)),
            format!("Process(command: \"a\", args: {deep}"),
            format!("Process(command: \"a\", ready: {deep}"),
            format!("Supervisor(children: [{deep}"),
            format!("Process(command: \"a\", stop: (grace: {deep}"),
        ] {
            let text = web_errors(text);
            assert!(text.starts_with("servers/web.ron:"), "{open}: {text}");
        }
    }
}

#[test]
fn a_broken_settings_file_fails_the_load_with_all_its_errors() {
    for (text, expected) in [
        (
            "(shutdown_timout: \"1s\")",
            "xyd.ron:1:2: shutdown_timout: unknown key `shutdown_timout`, expected one of `shutdown_timeout`, `log`, `http`, `idle_shutdown`, `events`, `permissions`, `permission_timeout`; did you mean `shutdown_timeout`?",
        ),
        (
            "(shutdown_timeout: \"0s\", log: (keep: 0))",
            "xyd.ron:1:20: shutdown_timeout: must be longer than zero\nxyd.ron:1:38: log.keep: 0 is out of range, expected a number from 1 to 1000",
        ),
        (
            "(http: (listen: \"0.0.0.0:9847\"))",
            "xyd.ron:1:17: http.listen: `0.0.0.0:9847` is not a loopback address, and HTTP is for this machine only; use `127.0.0.1` or `[::1]`",
        ),
        (
            "(http: (rotate_token: \"59s\"))",
            "xyd.ron:1:23: http.rotate_token: must be at least 60s, for which an old token is accepted",
        ),
        (
            "(http: (listen: \"localhost:9847\"))",
            "xyd.ron:1:17: http.listen: `localhost:9847` is not an address with a port, expected `127.0.0.1:PORT` or `[::1]:PORT`",
        ),
        (
            "Process(command: \"a\")",
            "xyd.ron:1:1: unexpected word `Process`; the file is written as `(key: value, ..)`",
        ),
    ] {
        let error = Directory::new().write("xyd.ron", text).try_load().expect_err(text);
        assert!(matches!(error, LoadError::Settings(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn errors_are_data_for_programs() {
    let config = Directory::new().write("servers/web.ron", "Process(command: \"a\", prot: 1)").load();
    let json = serde_json::to_value(&config.rejected[0].errors).expect("plain data");
    assert_eq!(
        json,
        serde_json::json!([{
            "file": "servers/web.ron",
            "line": 1,
            "column": 23,
            "key": "prot",
                    "message": "unknown key `prot`, expected one of `name`, `command`, `args`, `env`, `env_files`, `secrets`, `env_base`, \
                        `path`, `working_dir`, `stdin`, `user`, `group`, `umask`, `nice`, `limits`, `no_new_privs`, \
                        `oom_score_adj`, `tags`, `instances`, `port`, `port_owner`, `ready`, `liveness`, `watchdog`, `start_timeout`, `depends_on`, `autostart`, `restart`, `stop`, `log`",
                    "hint": "did you mean `port`?",
        }])
    );
}

#[test]
fn a_rule_that_could_never_match_is_an_error() {
    for (rule, expected) in [
        ("(client: \"x\")", "missing key `decision`"),
        ("(decision: Maybe)", "unknown value `Maybe`"),
        ("(decision: Deny, action: \"shutdwon\")", "`shutdwon` is no action; did you mean `shutdown`?"),
        ("(decision: Deny, action: \"@all\")", "`@all` is no action"),
        ("(decision: Deny, server: \"\")", "permissions[0].server: must be a name"),
        ("(decision: Deny, client: \"@tag\")", "permissions[0].client: must be a name"),
        ("(decision: Deny, clients: \"x\")", "unknown key `clients`"),
    ] {
        let refused = Directory::new().write("xyd.ron", format!("(permissions: [{rule}])")).try_load();
        let text = refused.expect_err(rule).to_string();
        assert!(text.contains(expected), "{rule}: {text}");
    }
}
