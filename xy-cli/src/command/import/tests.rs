//! What files of other tools become, and that the daemon's own reader accepts it.

use std::path::PathBuf;

use xy_daemon::config::{Config, LoadOptions, check_commands};

use super::*;

fn origin() -> Origin {
    Origin { directory: PathBuf::from("/srv/app"), file: None }
}

/// Has the daemon's reader read all servers.
fn accepted(import: &Import) {
    let directory = tempfile::tempdir().expect("a directory");
    let servers = directory.path().join("servers");
    fs::create_dir(&servers).expect("a directory");
    for server in &import.servers {
        write(&servers.join(format!("{}.ron", server.name)), &server.to_ron(), false).expect("written");
    }
    let config = Config::load(directory.path(), &LoadOptions::new(Some("/home/u".into()))).expect("readable");
    let errors: Vec<_> = config.errors().map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
}

/// The texts of the servers, and the notes.
fn both(import: Result<Import, String>) -> (Vec<String>, Vec<String>) {
    let mut import = import.expect("understood");
    import.settle();
    accepted(&import);
    let texts = import.servers.iter().map(|server| format!("{}: {}", server.name, server.to_ron()));
    let left =
        import.left.iter().map(|left| format!("{}: {}", left.entry.as_deref().unwrap_or("-"), left.what));
    (texts.collect(), left.collect())
}

#[test]
fn an_mcp_entry_with_program_and_url_becomes_a_server_and_every_other_is_named() {
    let (servers, left) = both(mcp::read(
        r#"{
            // Editors write comments, and commas at the end.
            "mcpServers": {
                "Search Engine": {
                    "type": "http", "command": "npx", "args": ["-y", "search-mcp@2", "--port", 8422],
                    "env": {"LOG_LEVEL": "info", "KEY": "${input:key}"}, "url": "http://localhost:8422/mcp?x=1",
                    "alwaysAllow": ["find"],
                },
                "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv"]},
                "remote": {"url": "https://mcp.example.com/mcp"},
                "far": {"command": "ssh-tunnel", "url": "http://10.0.0.7:80/mcp"},
                "off": {"command": "off", "url": "http://[::1]:9000", "disabled": true},
                "odd": 7, "empty": {}
            }
        }"#,
        &origin(),
    ));
    assert_eq!(
        servers,
        [
            "search-engine: Process(\n    command: \"npx\",\n    args: [\"-y\", \"search-mcp@2\", \"--port\", \"8422\"],\n    \
             env: {\"LOG_LEVEL\": \"info\"},\n    port: 8422,\n    ready: Mcp(path: \"/mcp\"),\n)\n",
            "off: Process(\n    command: \"off\",\n    port: 9000,\n    ready: Mcp(path: \"/\"),\n    autostart: false,\n)\n",
        ]
    );
    let begins = [
        "Search Engine: the variable KEY: `${input:key}` is filled in by the client",
        "Search Engine: `alwaysAllow`, which is the client's",
        "Search Engine: its name; here it is `search-engine`",
        "files: speaks over its standard streams",
        "remote: it only names https://mcp.example.com/mcp",
        "far: http://10.0.0.7:80/mcp is on another machine",
        "odd: it is no object",
        "empty: it has neither",
    ];
    assert_eq!(left.len(), begins.len(), "{left:#?}");
    for begin in begins {
        assert!(left.iter().any(|left| left.starts_with(begin)), "{begin} is not in {left:#?}");
    }
}

#[test]
fn entries_of_other_clients_are_found_where_those_keep_them() {
    let entry = r#"{"web": {"command": "web-mcp", "url": "http://127.0.0.1:7000/mcp"}}"#;
    for text in [
        format!(r#"{{"servers": {entry}}}"#),
        format!(r#"{{"mcp": {{"servers": {entry}}}}}"#),
        format!(r#"{{"context_servers": {entry}}}"#),
        r#"{"context_servers": {"web": {"command": {"path": "web-mcp", "args": []}, "url": "http://127.0.0.1:7000/mcp"}}}"#
            .to_owned(),
    ] {
        let (servers, left) = both(mcp::read(&text, &origin()));
        assert_eq!((servers.len(), left.len()), (1, 0), "{text}");
        assert!(servers[0].contains("command: \"web-mcp\"") && servers[0].contains("port: 7000"), "{servers:?}");
    }
    for wrong in ["", "[]", "{", r#"{"tools": {}}"#, r#"{"mcpServers": []}"#] {
        mcp::read(wrong, &origin()).expect_err("refused");
    }
}

#[test]
fn lines_of_a_procfile_become_servers_with_a_shell_only_where_one_is_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(".env"), "RACK_ENV=production\n").expect("written");
    let origin = Origin { directory: directory.path().to_owned(), file: None };
    let text = "# processes\nweb: bundle exec puma -p $PORT -C config/puma.rb\n\nworker: bundle exec sidekiq -c '5 a'\n\
                clock: QUEUE=low rake jobs:work && echo done\nrelease: rake db:migrate\n";
    let (servers, left) = both(procfile::read(text, &origin));
    let rest = format!("env_files: [\"{0}/.env\"],\n    working_dir: \"{0}\",\n", directory.path().display());
    let env = |port: u16| format!("env: {{\"PORT\": \"{port}\"}},\n    {rest}");
    assert_eq!(
        servers,
        [
            format!(
                "web: Process(\n    command: \"/bin/sh\",\n    args: [\"-c\", \"exec bundle exec puma -p $PORT -C \
                 config/puma.rb\"],\n    {}    port: 5000,\n)\n",
                env(5000)
            ),
            format!(
                "worker: Process(\n    command: \"bundle\",\n    args: [\"exec\", \"sidekiq\", \"-c\", \"5 a\"],\n    \
                 {})\n",
                env(5100)
            ),
            format!(
                "clock: Process(\n    command: \"/bin/sh\",\n    args: [\"-c\", \"QUEUE=low rake jobs:work && echo \
                 done\"],\n    {})\n",
                env(5200)
            ),
        ]
    );
    assert_eq!(left, ["release: it is run once before a deployment and is no server"]);
    for wrong in ["web", "web:", ": command", "my web: x"] {
        let error = procfile::read(wrong, &origin).expect_err("refused");
        assert_eq!(error, "line 1: expected `name: command`");
    }
}

#[test]
fn a_line_that_is_no_entry_is_passed_over_and_named() {
    let (servers, left) = both(procfile::read("\u{feff}web: serve\n{% if x %}\n", &origin()));
    assert_eq!((servers.len(), left), (1, vec!["-: line 2, which is not `name: command`".to_owned()]));
}

#[test]
fn an_assignment_before_a_single_program_stays_one() {
    let (servers, _) = both(procfile::read("a: PORT=$X serve --now\nb: PORT=80 serve $PORTAL\n", &origin()));
    assert!(servers[0].contains("\"exec env PORT=$X serve --now\""), "{servers:?}");
    assert!(servers[1].contains("env: {\"PORT\": \"5100\"}") && !servers[1].contains("port:"), "{servers:?}");
}

#[test]
fn programs_of_supervisord_keep_what_has_a_meaning_and_the_rest_is_listed() {
    let text = "[supervisord]\nlogfile=/tmp/s.log ; not ours\n\n[program:api]\ncommand=/srv/api/bin/serve --port=%(ENV_XY_NO)s \
                --name \"%(program_name)s 100%%\" ; the server\ndirectory=%(here)s/api\n\
                environment=KEY=\"a,b\",OTHER=c\nautorestart=true\nstopsignal=QUIT\nstopwaitsecs=20\nuser=nobody\n\
                stdout_logfile=/var/log/api.log\nstartsecs=5\nstopasgroup=true\n\n\
                [program:worker]\ncommand=worker --n %(process_num)02d\nnumprocs=2\nprocess_name=%(program_name)s_%(process_num)02d\n\
                autostart=false\nautorestart=unexpected\n\n\
                [program:mute]\ncommand=mute\nnumprocs=2\nprocess_name=%(program_name)s_%(process_num)02d\n\n\
                [group:all]\nprograms=api,worker,mute,gone\n\n\
                [include]\nfiles=conf.d/*.conf\n\n[eventlistener:mail]\ncommand=crashmail\n";
    let (servers, left) = both(supervisord::read(text, &origin()));
    assert_eq!(
        servers,
        [
            "api: Process(\n    command: \"/srv/api/bin/serve\",\n    args: [\"--port=%(ENV_XY_NO)s\", \"--name\", \"api 100%\"],\n    \
             env: {\"KEY\": \"a,b\", \"OTHER\": \"c\"},\n    working_dir: \"/srv/app/api\",\n    user: \"nobody\",\n    \
             tags: [\"all\"],\n    restart: (policy: Always),\n    stop: (signal: QUIT, grace: \"20s\"),\n)\n",
            "worker_00: Process(\n    command: \"worker\",\n    args: [\"--n\", \"00\"],\n    tags: [\"all\"],\n    \
             autostart: false,\n)\n",
            "worker_01: Process(\n    command: \"worker\",\n    args: [\"--n\", \"01\"],\n    tags: [\"all\"],\n    \
             autostart: false,\n)\n",
            "mute: Process(\n    command: \"mute\",\n    tags: [\"all\"],\n    instances: 2,\n)\n",
        ]
    );
    let begins = [
        "api: %(ENV_XY_NO)s: not set here",
        "api: stdout_logfile=/var/log/api.log; `xyctl logs api`",
        "api: startsecs=5; ",
        "mute: process_name=%(program_name)s_%(process_num)02d; here they are `mute-1` to `mute-2`",
        "group:all: the program `gone`, which is no server here",
        "include: conf.d/*.conf, where no file is",
        "eventlistener:mail: supervisord tells it of events",
        "-: what is about supervisord itself: `logfile`",
    ];
    assert_eq!(left.len(), begins.len(), "{left:#?}");
    for begin in begins {
        assert!(left.iter().any(|left| left.starts_with(begin)), "{begin} is not in {left:#?}");
    }
    supervisord::read("", &origin()).expect_err("nothing in it");
}

#[test]
fn processes_of_process_compose_keep_probes_dependencies_and_ends() {
    let text = r#"
version: "0.5"
environment:
  - "ZONE=eu"
processes:
  db:
    command: "postgres -D data"
    working_dir: db
    readiness_probe:
      exec:
        command: pg_isready -q
      period_seconds: 2
      timeout_seconds: 3
    availability:
      restart: always
      backoff_seconds: 4
  migrate:
    command: "./migrate && echo ok"
    depends_on:
      db:
        condition: process_healthy
  api:
    command: api --port 8080
    environment:
      - "DB=${DB_URL}"
    depends_on:
      migrate:
        condition: process_completed_successfully
    liveness_probe:
      http_get:
        host: 127.0.0.1
        port: 8080
        path: /health
      failure_threshold: 4
    ready_log_line: "listening (http)"
    availability:
      restart: on_failure
      max_restarts: 3
    shutdown:
      signal: 2
      timeout_seconds: 12
    is_daemon: true
"#;
    let import = process_compose::read(text, &origin(), &[]).expect("understood");
    let texts: Vec<_> = import.servers.iter().map(Server::to_ron).collect();
    let find = |name: &str| {
        let index = import.servers.iter().position(|server| server.name == name).expect("is there");
        texts[index].as_str()
    };
    assert_eq!(
        find("db"),
        "Process(\n    command: \"postgres\",\n    args: [\"-D\", \"data\"],\n    env: {\"ZONE\": \"eu\"},\n    \
         working_dir: \"/srv/app/db\",\n    ready: Exec(command: \"pg_isready\", args: [\"-q\"], interval: \"2s\", \
         timeout: \"3s\"),\n    restart: (policy: Always, backoff_initial: \"4s\"),\n)\n"
    );
    assert_eq!(
        find("api"),
        "Process(\n    command: \"api\",\n    args: [\"--port\", \"8080\"],\n    env: {\"DB\": \"${DB_URL}\", \"ZONE\": \
         \"eu\"},\n    working_dir: \"/srv/app\",\n    port: 8080,\n    ready: Log(\"listening \\\\(http\\\\)\"),\n    \
         liveness: (probe: Http(path: \"/health\"), failures: 4),\n    depends_on: {\"migrate\": Completed},\n    \
         stop: (signal: INT, grace: \"12s\"),\n)\n"
    );
    assert!(find("migrate").contains("depends_on: {\"db\": Healthy}"));
    assert!(find("migrate").contains("restart: (policy: Never)"));
    let left: Vec<_> = import.left.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left.len(), 3, "{left:#?}");
    process_compose::read("processes: [", &origin(), &[]).expect_err("no YAML");
    process_compose::read("services: {}", &origin(), &[]).expect_err("no processes");
}

#[test]
fn one_of_two_servers_with_one_port_keeps_it_and_the_other_is_named() {
    let text = r#"
processes:
  a:
    command: a
    readiness_probe: {http_get: {port: 8080, path: health}}
  b:
    command: b
    replicas: 2
    readiness_probe: {http_get: {port: 8080}}
  c:
    command: c
    readiness_probe: {exec: {command: look}}
    liveness_probe: {http_get: {port: "8080"}}
"#;
    let (servers, left) = both(process_compose::read(text, &origin(), &[]).map_err(|(_, message)| message));
    assert!(
        servers[0].contains("port: 8080") && servers[0].contains("Http(path: \"/health\")"),
        "{servers:?}"
    );
    assert!(servers[1].contains("instances: 2"), "{servers:?}");
    assert!(servers[2].contains("ready: Exec(command: \"look\", args: [])"), "{servers:?}");
    assert!(
        servers[1..].iter().all(|server| !server.contains("8080") && !server.contains("Http")),
        "{servers:?}"
    );
    assert_eq!(
        left,
        [
            "b: the probe of one port by several replicas; each instance has its own here",
            "c: its port 8080, which `a` has already",
        ]
    );
}

#[test]
fn dependencies_follow_the_names_that_servers_come_to() {
    let text = r#"
processes:
  Web App: {command: a}
  web-app: {command: b}
  pair: {command: "c {{.PC_REPLICA_NUM}}", replicas: 2}
  last:
    command: d
    depends_on: {Web App: {condition: process_healthy}, web-app: {}, pair: {condition: process_started}}
"#;
    let (servers, _) = both(process_compose::read(text, &origin(), &[]).map_err(|(_, message)| message));
    let last = servers.iter().find(|server| server.starts_with("last:")).expect("is there");
    let expected =
        r#"depends_on: {"web-app": Healthy, "pair-0": Started, "pair-1": Started, "web-app-2": Started}"#;
    assert!(last.contains(expected), "{last}");
}

#[test]
fn a_section_of_two_files_is_one_and_long_stops_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.ini"), "[program:a]\nstopwaitsecs=31\n").expect("written");
    let origin = Origin { directory: directory.path().to_owned(), file: None };
    let (servers, left) =
        both(supervisord::read("[program:a]\ncommand=a\n[include]\nfiles=*.ini\n", &origin));
    assert_eq!(servers, ["a: Process(\n    command: \"a\",\n    stop: (grace: \"31s\"),\n)\n"]);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("-: the time that `a` may take to stop"), "{left:?}");
}

#[test]
fn a_file_that_is_overwritten_is_its_owners_alone_like_a_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.ron");
    fs::write(&path, "old and longer").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    write(&path, "new", false).expect_err("it is there");
    write(&path, "new", true).expect("written");
    assert_eq!(fs::read_to_string(&path).expect("text"), "new");
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_env_file_that_is_named_is_one_that_the_daemon_reads() {
    let directory = tempfile::tempdir().expect("a directory");
    let env = directory.path().join(".env");
    let text = "\u{feff}# a\n; b\nexport A=1\n B = two words \nC='x # \"y\"'\nD=\"z\" # why\nE=$A-${B}\nF=\nG=a#b;c=d\n\
                H=\"one\ntwo\"\n";
    write(&env, text, false).expect("written");
    let origin = Origin { directory: directory.path().to_owned(), file: None };
    let import = procfile::read("a: sh\n", &origin).expect("understood");
    assert_eq!(import.left, []);
    let servers = directory.path().join("servers");
    fs::create_dir(&servers).expect("a directory");
    write(&servers.join("a.ron"), &import.servers[0].to_ron(), false).expect("written");
    let config = Config::load(directory.path(), &LoadOptions::new(None)).expect("readable");
    assert_eq!(config.servers["a"].process.settings.env_files[0].path, env);
    let warnings = check_commands(&config, "/usr/bin:/bin".as_ref());
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn of_several_files_of_process_compose_the_later_goes_over_the_earlier() {
    let base = r#"
version: "0.5"
environment: ["LEVEL=info", "PLACE=base"]
processes:
  web:
    command: "serve --all"
    working_dir: www
    availability: {restart: always}
  db: {command: "db"}
"#;
    let local = r#"
environment: ["LEVEL=debug"]
processes:
  web: {command: "serve --one"}
  mail: {command: "mail", depends_on: {db: {condition: process_started}}}
"#;
    let top = "processes: {mail: {disabled: true}}";
    let elsewhere = Origin { directory: PathBuf::from("/elsewhere"), file: None };
    let over = [(local, &elsewhere), (top, &elsewhere)];
    let (servers, left) = both(process_compose::read(base, &origin(), &over).map_err(|(_, message)| message));
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(servers.len(), 3, "{servers:#?}");
    let server = |name: &str| {
        let begin = format!("{name}: ");
        servers.iter().find(|server| server.starts_with(&begin)).expect("it is there").as_str()
    };
    let web = server("web");
    for part in ["\"--one\"", "/srv/app/www", "\"LEVEL\": \"debug\"", "\"PLACE\": \"base\""] {
        assert!(web.contains(part), "{part} is not in {web}");
    }
    assert!(server("mail").contains("autostart: false"), "{}", server("mail"));
    let (index, _) =
        process_compose::read(base, &origin(), &[(local, &elsewhere), ("processes: [", &elsewhere)])
            .expect_err("no YAML");
    assert_eq!(index, 2);
}
