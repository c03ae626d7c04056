//! Files that load, and what they mean.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xy_actors::log::LogSettings;
use xy_actors::process::health::Liveness;
use xy_actors::process::readiness::{LogPattern, ProbeHeader, ProbeTimes, StatusSet};
use xy_actors::process::{PortOwner, ProcessSpec, Readiness, StopSignal};
use xy_actors::spec::{
    Backoff, ChildSpec, OnLimit, RestartIntensity, RestartLimit, RestartType, Shutdown, SupervisorSpec,
};
use xy_daemon::config::{Config, EventSettings, LoadOptions, Settings};
use xy_daemon::permission::Decision;
use xy_daemon::permission::rules::Rule;

use crate::support::{Directory, errors, fixtures, options, web};

fn fixture(name: &str) -> String {
    fs::read_to_string(fixtures("good").join(name)).expect("fixtures are checked in")
}

fn five_a_minute() -> Option<RestartLimit> {
    let intensity = RestartIntensity::new(5, Duration::from_secs(60));
    Some(RestartLimit { intensity, on_limit: OnLimit::GiveUp })
}

#[test]
fn the_smallest_file_has_every_default() {
    let server = web(&fixture("smallest.ron"));
    assert_eq!(server.name, "web");
    assert!(server.source.ends_with("servers/web.ron"));
    assert_eq!(
        *server.child,
        ChildSpec {
            restart: RestartType::Transient,
            shutdown: Shutdown::Timeout(Duration::from_secs(10)),
            backoff: Some(Backoff {
                first: None,
                base: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_secs(30),
                jitter: 0.1,
                reset_after: Duration::from_secs(30),
            }),
            limit: five_a_minute(),
            start_timeout: Some(Duration::from_secs(300)),
            retain: true,
            autostart: true,
            ..ChildSpec::worker("web")
        }
    );
    assert_eq!(
        *server.process,
        ProcessSpec {
            args: vec!["--http".into(), "--port".into(), "8421".into()],
            port: Some(8421),
            port_owner: PortOwner::Own,
            ready: None,
            stop_signal: StopSignal::Term,
            working_dir: Some("/home/somebody".into()),
            ..ProcessSpec::new("files-mcp")
        }
    );
    assert_eq!(server.process.readiness(), Readiness::Tcp);
    assert_eq!(server.log, LogSettings { max_size: 10 << 20, max_age: None, keep: 5, buffer: 1 << 20 });
    assert_eq!(server.child.validate(&SupervisorSpec::default()), Ok(()));
}

#[test]
fn the_usual_file_means_what_it_says() {
    let server = web(&fixture("usual.ron"));
    assert_eq!(server.process.env["PORT"], "8422");
    assert_eq!(server.process.env["LOG_LEVEL"], "info");
    assert_eq!(server.process.working_dir, Some("/home/somebody/files".into()));
    assert_eq!(server.process.readiness(), Readiness::Mcp { path: "/mcp".into(), host: "localhost".into() });
    assert_eq!(server.child.limit, five_a_minute());
    assert_eq!(server.child.backoff, Some(Backoff::default()));
}

#[test]
fn every_key_is_read() {
    let server = web(&fixture("every_key.ron"));
    let env = [
        ("INTEGER", "8422"),
        ("VERSION", "1.10"),
        ("HEX", "0x1F"),
        ("NEGATIVE", "-1"),
        ("YES", "true"),
        ("NO", "false"),
        ("TEXT", "a=b"),
    ];
    assert_eq!(
        *server.process,
        ProcessSpec {
            args: vec!["--verbose".into()],
            env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            working_dir: Some("/home/somebody/data".into()),
            port: Some(8423),
            port_owner: PortOwner::Any,
            ready: Some(Readiness::Http {
                path: "/health".into(),
                status: StatusSet::new([200..=200, 300..=399]),
                header: Some(ProbeHeader { name: "X-Probe".into(), value: "1".into() }),
            }),
            ready_times: ProbeTimes {
                interval: Some(Duration::from_millis(100)),
                timeout: Some(Duration::from_secs(3)),
            },
            liveness: Some(Liveness {
                probe: Readiness::Exec { command: "check".into(), args: vec!["-q".into()] },
                interval: Duration::from_secs(20),
                timeout: Duration::from_secs(4),
                failure_threshold: 2,
            }),
            watchdog: Some(Duration::from_secs(30)),
            stop_signal: StopSignal::Int,
            ..ProcessSpec::new("bin/server")
        }
    );
    assert_eq!(
        *server.child,
        ChildSpec {
            restart: RestartType::Permanent,
            shutdown: Shutdown::Timeout(Duration::from_secs(3)),
            backoff: Some(Backoff {
                base: Duration::from_millis(250),
                max: Duration::from_secs(5),
                ..Backoff::default()
            }),
            limit: Some(RestartLimit {
                intensity: RestartIntensity::new(9, Duration::from_secs(60)),
                on_limit: OnLimit::GiveUp,
            }),
            start_timeout: Some(Duration::from_secs(90)),
            retain: true,
            autostart: false,
            health_checked: true,
            ..ChildSpec::worker("web")
        }
    );
    assert_eq!(
        server.log,
        LogSettings {
            max_size: 1 << 20,
            max_age: Some(Duration::from_secs(7 * 24 * 3600)),
            keep: 2,
            buffer: 64 << 10
        }
    );
}

#[test]
fn policies_are_known_in_both_vocabularies() {
    for (word, expected) in [
        ("OnFailure", RestartType::Transient),
        ("Transient", RestartType::Transient),
        ("Always", RestartType::Permanent),
        ("Permanent", RestartType::Permanent),
        ("Never", RestartType::Temporary),
        ("Temporary", RestartType::Temporary),
    ] {
        let server = web(&format!("Process(command: \"a\", restart: (policy: {word}))"));
        assert_eq!(server.child.restart, expected, "{word}");
    }
}

#[test]
fn readiness_is_written_bare_with_empty_brackets_or_with_keys() {
    let http = |path: &str| Readiness::http(path);
    let log = |pattern: &str| Readiness::Log { pattern: LogPattern::new(pattern).expect("a pattern") };
    let mcp = |path: &str, host: &str| Readiness::Mcp { path: path.into(), host: host.into() };
    for (text, expected) in [
        ("Started", Readiness::Started),
        ("Tcp", Readiness::Tcp),
        ("Http", http("/")),
        ("Http()", http("/")),
        ("Http(path: \"/h?a=1\")", http("/h?a=1")),
        ("Mcp", mcp("/mcp", "localhost")),
        ("Mcp /* bare */ ", mcp("/mcp", "localhost")),
        ("Mcp()", mcp("/mcp", "localhost")),
        ("Mcp(path: \"/x\",)", mcp("/x", "localhost")),
        ("Mcp(host: \"127.0.0.1\")", mcp("/mcp", "127.0.0.1")),
        ("Some(Mcp)", mcp("/mcp", "localhost")),
        ("Tcp()", Readiness::Tcp),
        ("Exec(command: \"c\")", Readiness::Exec { command: "c".into(), args: vec![] }),
        (
            "Exec(command: \"c\", args: [\"-q\", \"x\"])",
            Readiness::Exec { command: "c".into(), args: vec!["-q".into(), "x".into()] },
        ),
        ("Log(\"on .*\")", log("on .*")),
        (r#"Log(r"on \d+$")"#, log(r"on \d+$")),
        ("Notify", Readiness::Notify { fd: None }),
        ("Notify()", Readiness::Notify { fd: None }),
        ("Notify(fd: 3)", Readiness::Notify { fd: Some(3) }),
    ] {
        for tail in ["", ",", ", autostart: true"] {
            let server = web(&format!("Process(command: \"a\", port: 1, ready: {text}{tail})"));
            assert_eq!(server.process.ready, Some(expected.clone()), "{text}{tail}");
        }
    }
}

#[test]
fn an_http_probe_takes_statuses_and_a_header() {
    let ready = |keys: &str| {
        web(&format!("Process(command: \"a\", port: 1, ready: Http({keys}))")).process.ready.clone()
    };
    let http = |status: StatusSet, header: Option<(&str, &str)>| {
        let header = header.map(|(name, value)| ProbeHeader { name: name.into(), value: value.into() });
        Some(Readiness::Http { path: "/".into(), status, header })
    };
    assert_eq!(ready("status: [200, 204]"), http(StatusSet::new([200..=200, 204..=204]), None));
    assert_eq!(ready("status: [\"200-299\", 401]"), http(StatusSet::new([200..=299, 401..=401]), None));
    assert_eq!(ready("header: (\"X-Probe\", \"1 2\")"), http(StatusSet::default(), Some(("X-Probe", "1 2"))));
}

#[test]
fn what_is_asked_may_have_times_of_its_own() {
    for probe in ["Tcp(?)", "Http(?)", "Mcp(path: \"/x\", ?)", "Exec(command: \"c\", ?)"] {
        let probe = probe.replace('?', "interval: \"1s\", timeout: \"2s\"");
        let process = web(&format!("Process(command: \"a\", port: 1, ready: {probe})")).process;
        let expected =
            ProbeTimes { interval: Some(Duration::from_secs(1)), timeout: Some(Duration::from_secs(2)) };
        assert_eq!(process.ready_times, expected, "{probe}");
    }
    assert_eq!(web("Process(command: \"a\", ready: Notify)").process.ready_times, ProbeTimes::default());
}

#[test]
fn liveness_and_watchdog_are_off_unless_asked_for() {
    let process =
        |keys: &str| Arc::unwrap_or_clone(web(&format!("Process(command: \"a\", port: 1, {keys})")).process);
    assert_eq!((process("").liveness, process("").watchdog), (None, None));
    assert_eq!(process("watchdog: \"30s\"").watchdog, Some(Duration::from_secs(30)));
    let usual = process("liveness: (probe: Tcp)").liveness.expect("asked for");
    let seconds = Duration::from_secs;
    assert_eq!((usual.interval, usual.timeout, usual.failure_threshold), (seconds(10), seconds(5), 3));
    let mcp = process("liveness: (probe: Mcp)").liveness.expect("asked for");
    assert_eq!((mcp.interval, mcp.timeout), (seconds(30), seconds(10)));
    let own = "liveness: (probe: Http(path: \"/live\"), interval: \"1s\", timeout: \"2s\", failures: 5)";
    assert_eq!(
        process(own).liveness,
        Some(Liveness {
            probe: Readiness::http("/live"),
            interval: seconds(1),
            timeout: seconds(2),
            failure_threshold: 5
        })
    );
    for text in ["probe: Exec(command: \"c\")", "probe: Tcp, failures: 1", "probe: Mcp, interval: \"31s\""] {
        let liveness = process(&format!("liveness: ({text})")).liveness.expect("asked for");
        assert_eq!(liveness.validate(), Ok(()), "{text}");
    }
}

#[test]
fn stop_signals_are_written_in_capitals() {
    for (word, expected) in [
        ("TERM", StopSignal::Term),
        ("INT", StopSignal::Int),
        ("HUP", StopSignal::Hup),
        ("QUIT", StopSignal::Quit),
        ("USR1", StopSignal::Usr1),
        ("USR2", StopSignal::Usr2),
        ("KILL", StopSignal::Kill),
    ] {
        let server = web(&format!("Process(command: \"a\", stop: (signal: {word}))"));
        assert_eq!(server.process.stop_signal, expected, "{word}");
    }
}

#[test]
fn working_directories_start_at_the_default_one() {
    let options = LoadOptions { default_dir: "/srv/project".into(), ..options() };
    for (key, expected) in [
        ("", "/srv/project"),
        ("working_dir: \"data\"", "/srv/project/data"),
        ("working_dir: \"/opt\"", "/opt"),
        ("working_dir: \"~\"", "/home/somebody"),
        ("working_dir: \"~/x\"", "/home/somebody/x"),
        ("working_dir: \"./~x\"", "/srv/project/./~x"),
    ] {
        let directory = Directory::new();
        directory.write("servers/web.ron", format!("Process(command: \"a\", {key})"));
        let config = Config::load(directory.root(), &options).expect("sound settings");
        assert_eq!(errors(&config), "", "{key}");
        assert_eq!(config.servers["web"].process.working_dir, Some(PathBuf::from(expected)), "{key}");
    }
}

#[test]
fn a_home_directory_that_is_not_known_is_an_error_only_where_it_is_needed() {
    let options = LoadOptions::new(None);
    assert_eq!(options.default_dir, Path::new("/"));
    let directory = Directory::new();
    directory.write("servers/a.ron", "Process(command: \"a\")");
    directory.write("servers/b.ron", "Process(command: \"b\", working_dir: \"~/b\")");
    let config = Config::load(directory.root(), &options).expect("sound settings");
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(
        errors(&config),
        "servers/b.ron:1:36: working_dir: `~` needs a home directory, and none is known; \
         set HOME, or write the whole path"
    );
}

#[test]
fn a_first_delay_of_zero_is_instant_once_and_a_long_one_lifts_the_default_maximum() {
    let backoff = |keys: &str| web(&format!("Process(command: \"a\", restart: ({keys}))")).child.backoff;
    let seconds = Duration::from_secs;
    assert_eq!(
        backoff("backoff_initial: \"0s\""),
        Some(Backoff { first: Some(Duration::ZERO), ..Backoff::default() })
    );
    assert_eq!(
        backoff("backoff_initial: \"1m\""),
        Some(Backoff { base: seconds(60), max: seconds(60), ..Backoff::default() })
    );
    assert_eq!(
        backoff("backoff_initial: \"2s\", backoff_max: \"2s\""),
        Some(Backoff { base: seconds(2), max: seconds(2), ..Backoff::default() })
    );
}

#[test]
fn extensions_of_ron_are_on_and_may_be_named() {
    let server = web("#![enable(implicit_some, unwrap_newtypes, unwrap_variant_newtypes)]\n\
         Process(command: r#\"a\"#, port: Some(8421), working_dir: None, stop: Stop(grace: \"0s\"))");
    assert_eq!(server.process.port, Some(8421));
    assert_eq!(server.child.shutdown, Shutdown::Timeout(Duration::ZERO));
    assert_eq!(web("\u{feff}Process(command: \"a\")").process.command, "a");
}

#[test]
fn the_settings_have_defaults_for_every_key() {
    let expected = Settings {
        shutdown_timeout: Duration::from_secs(30),
        log: LogSettings { max_size: 10 << 20, max_age: None, keep: 5, buffer: 1 << 20 },
        http: None,
        rotate_token: Duration::from_secs(24 * 3600),
        idle_shutdown: None,
        events: EventSettings { keep: 10_000, age: Duration::from_secs(24 * 3600) },
    };
    for text in [None, Some(""), Some("// nothing"), Some("()"), Some("Daemon()"), Some("(log: ())")] {
        let directory = Directory::new();
        if let Some(text) = text {
            directory.write("xyd.ron", text);
        }
        assert_eq!(directory.load().settings, expected, "{text:?}");
    }
}

#[test]
fn the_token_of_http_is_replaced_as_often_as_the_settings_say() {
    let directory = Directory::new();
    directory.write("xyd.ron", "(http: (rotate_token: \"12h\"))");
    assert_eq!(directory.load().settings.rotate_token, Duration::from_secs(12 * 3600));
    directory.write("xyd.ron", "(http: (rotate_token: \"60s\"))");
    assert_eq!(directory.load().settings.rotate_token, Duration::from_secs(60));
}

#[test]
fn http_is_on_when_it_is_in_the_settings_at_the_address_there_or_the_usual_one() {
    for (text, expected) in [
        ("(http: ())", "127.0.0.1:9847"),
        ("(http: (listen: \"127.0.0.1:0\"))", "127.0.0.1:0"),
        ("(http: (listen: \"[::1]:80\"))", "[::1]:80"),
    ] {
        let directory = Directory::new();
        directory.write("xyd.ron", text);
        assert_eq!(directory.load().settings.http, expected.parse().ok(), "{text}");
    }
}

#[test]
fn a_server_takes_the_log_settings_it_does_not_set_from_the_daemon() {
    let config = Directory::new()
        .write("xyd.ron", "(shutdown_timeout: \"1m\", log: (max_size: \"2MiB\", keep: 3))")
        .write("servers/web.ron", "Process(command: \"a\", log: (keep: 7))")
        .load();
    assert_eq!(config.settings.shutdown_timeout, Duration::from_secs(60));
    assert_eq!(
        config.servers["web"].log,
        LogSettings { max_size: 2 << 20, max_age: None, keep: 7, buffer: 1 << 20 }
    );
}

#[test]
fn the_commented_examples_name_every_key_and_parse() {
    let example = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        fs::read_to_string(path).expect("examples are checked in")
    };
    let config = Directory::new()
        .write("xyd.ron", example("xyd.ron"))
        .write("servers/search.ron", example("server.ron"))
        .write("servers/backend.ron", example("group.ron"))
        .load();
    assert_eq!(errors(&config), "");
    // The examples say that they show the defaults.
    assert_eq!(config.settings, Settings::default());
    let search = &config.servers["search"];
    assert_eq!(
        *search.child,
        ChildSpec {
            id: "search".into(),
            health_checked: true,
            ..(*web("Process(command: \"a\")").child).clone()
        }
    );
    assert_eq!(search.log, LogSettings::default());
    // The parser's own lists of keys are the reference.
    for (name, probe, file) in [
        ("xyd.ron", "(?: 1)", "xyd.ron"),
        ("xyd.ron", "(log: (?: 1))", "xyd.ron"),
        ("server.ron", "Process(?: 1)", "servers/web.ron"),
        ("server.ron", "Process(restart: (?: 1))", "servers/web.ron"),
        ("server.ron", "Process(stop: (?: 1))", "servers/web.ron"),
        ("server.ron", "Process(log: (?: 1))", "servers/web.ron"),
        ("server.ron", "Process(limits: (?: 1))", "servers/web.ron"),
        ("server.ron", "Process(ready: Mcp(?: 1))", "servers/web.ron"),
        ("server.ron", "Process(ready: Http(?: 1))", "servers/web.ron"),
        ("server.ron", "Process(ready: Exec(?: 1))", "servers/web.ron"),
        ("server.ron", "Process(liveness: (?: 1))", "servers/web.ron"),
        ("group.ron", "Supervisor(?: 1)", "servers/web.ron"),
        ("group.ron", "Supervisor(intensity: (?: 1))", "servers/web.ron"),
    ] {
        let directory = Directory::new();
        directory.write(file, probe.replace('?', "no_such_key"));
        let text = match directory.try_load() {
            Ok(config) => errors(&config),
            Err(error) => error.to_string(),
        };
        let keys = text.split("expected one of ").nth(1).expect("a list of keys");
        for key in keys.split(", ").map(|key| key.trim_matches('`')) {
            assert!(example(name).contains(&format!("{key}: ")), "{name} does not show {key}");
        }
    }
}

#[test]
fn rules_of_permissions_are_read_in_their_order() {
    let rules = r#"(permissions: [
        (decision: Deny, client: "mcp:*", server: "db*", tool: "st?p", action: "@change"),
        (decision: Ask, action: "rotate_token"),
        (decision: Allow),
    ], permission_timeout: "5m")"#;
    let permissions = Directory::new().write("xyd.ron", rules).load().permissions;
    assert_eq!(permissions.ask_timeout, Duration::from_secs(300));
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        Rule {
            decision: Decision::Deny,
            client: text("mcp:*"),
            server: text("db*"),
            tool: text("st?p"),
            action: text("@change"),
        },
        Rule { action: text("rotate_token"), ..Rule::new(Decision::Ask) },
        Rule::new(Decision::Allow),
    ];
    assert_eq!(permissions.rules, expected);
}
