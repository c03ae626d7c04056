//! What a process gets beside its command line: files that load, and what they mean.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use nix::unistd::{Uid, User};
use xy_actors::process::settings::{
    EnvBase, EnvFile, ProcessSettings, Resource, ResourceLimit, SearchPath, SecretSource, Stdin,
};
use xy_actors::process::{ProcessSpec, StopCommand};
use xy_actors::spec::Shutdown;
use xy_daemon::config::{Config, LoadOptions, check_commands};

use crate::support::{Directory, chmod, errors, options, web, web_errors};

fn settings(keys: &str) -> ProcessSettings {
    web(&format!("Process(command: \"a\", {keys})")).process.settings.clone()
}

#[test]
fn without_keys_nothing_is_set() {
    assert_eq!(settings(""), ProcessSettings::default());
}

#[test]
fn every_key_is_read() {
    let limit = |resource, soft, hard| ResourceLimit { resource, soft, hard };
    let unlimited = ResourceLimit::UNLIMITED;
    assert_eq!(
        settings(
            "umask: \"027\", nice: -3, no_new_privs: false, oom_score_adj: -7, stdin: File(\"in\"),
             env_files: [\"a.env\", \"-~/b.env\", \"/c.env\"], env_base: Clean, path: \"~/bin:/bin\",
             limits: (nofile: 1024, nproc: (1, 2), core: \"unlimited\", as: \"1GiB\", memlock: (0, \"64KiB\"),
                      stack: (\"8MiB\", \"unlimited\"), cpu: \"2m\", fsize: 7, data: 8)"
        ),
        ProcessSettings {
            umask: Some(0o027),
            nice: Some(-3),
            no_new_privs: Some(false),
            oom_score_adj: Some(-7),
            stdin: Stdin::File("/home/somebody/in".into()),
            env_files: vec![
                EnvFile { path: "/home/somebody/a.env".into(), optional: false },
                EnvFile { path: "/home/somebody/b.env".into(), optional: true },
                EnvFile { path: "/c.env".into(), optional: false },
            ],
            env_base: EnvBase::Clean,
            path: SearchPath::Literal("/home/somebody/bin:/bin".to_owned()),
            limits: vec![
                limit(Resource::Nofile, 1024, 1024),
                limit(Resource::Nproc, 1, 2),
                limit(Resource::Core, unlimited, unlimited),
                limit(Resource::As, 1 << 30, 1 << 30),
                limit(Resource::Memlock, 0, 64 << 10),
                limit(Resource::Stack, 8 << 20, unlimited),
                limit(Resource::Cpu, 120, 120),
                limit(Resource::Fsize, 7, 7),
                limit(Resource::Data, 8, 8),
            ],
            ..ProcessSettings::default()
        }
    );
    assert_eq!(settings("path: Login").path, SearchPath::Login);
    assert_eq!(settings("path: /* bare */ Inherit").path, SearchPath::Inherit);
}

#[test]
fn paths_of_a_server_start_in_its_directory() {
    let settings = settings("working_dir: \"files\", stdin: File(\"in\"), env_files: [\"-x.env\"]");
    assert_eq!(settings.stdin, Stdin::File("/home/somebody/files/in".into()));
    assert_eq!(settings.env_files[0].path, std::path::Path::new("/home/somebody/files/x.env"));
}

#[test]
fn a_tilde_with_a_name_is_the_home_of_that_user() {
    let root = User::from_uid(Uid::from_raw(0)).expect("a user database").expect("every system has it");
    for (text, expected) in [("~root", root.dir.clone()), ("~root/x", root.dir.join("x"))] {
        let server = web(&format!("Process(command: \"a\", working_dir: \"{text}\")"));
        assert_eq!(server.process.working_dir, Some(expected), "{text}");
    }
}

#[test]
fn the_user_decides_where_paths_start() {
    if !Uid::effective().is_root() {
        let text = web_errors("Process(command: \"a\", user: \"root\", group: \"root\")");
        assert_eq!(
            text,
            "servers/web.ron:1:29: user: only root can run processes as user 0 and group 0; remove `user` and `group`, or run as root"
        );
        return;
    }
    let daemon = User::from_name("daemon").expect("a user database").expect("every system has it");
    for (keys, expected) in [
        ("user: \"daemon\"", daemon.dir.clone()),
        ("user: \"daemon\", working_dir: \"x\"", daemon.dir.join("x")),
        ("user: \"daemon\", working_dir: \"~/x\"", daemon.dir.join("x")),
        ("user: 54321, group: 54321", "/".into()),
        ("group: \"daemon\"", "/home/somebody".into()),
    ] {
        let server = web(&format!("Process(command: \"a\", {keys})"));
        assert_eq!(server.process.working_dir, Some(expected), "{keys}");
    }
    let settings = settings("user: 54321, group: \"12\"");
    assert_eq!((settings.user.as_deref(), settings.group.as_deref()), (Some("54321"), Some("12")));
}

#[test]
fn a_stop_command_has_the_grace_and_so_has_the_signal() {
    let server = web("Process(command: \"a\", stop: (command: [\"quit\", \"-x\"], grace: \"3s\"))");
    let grace = Duration::from_secs(3);
    assert_eq!(
        server.process.stop_command,
        Some(StopCommand { command: "quit".to_owned(), args: vec!["-x".to_owned()], grace })
    );
    assert_eq!(server.child.shutdown, Shutdown::Timeout(2 * grace));
}

#[test]
fn each_instance_is_a_server_with_its_number_and_port() {
    let config = Directory::new()
        .write(
            "servers/web.ron",
            "Process(command: \"a{instance}\", args: [\"--port={port}\", \"{instance}{instance}\", \"{x}\"], port: 8421,
             env: {\"PORT\": \"{port}\"}, working_dir: \"/srv/{instance}\", stdin: File(\"in\"),
             env_files: [\"-{instance}.env\"], stop: (command: [\"quit\", \"{port}\"]), instances: 12)",
        )
        .load();
    assert_eq!(errors(&config), "");
    assert_eq!(config.servers.len(), 12);
    let two = &config.servers["web-2"];
    assert_eq!((two.name.as_str(), two.origin.as_str(), two.child.id.as_str()), ("web-2", "web", "web-2"));
    let process = &two.process;
    assert_eq!(process.command, "a{instance}", "the program is the same for all");
    assert_eq!(process.args, ["--port=8422", "22", "{x}"]);
    assert_eq!(process.env, BTreeMap::from([("PORT".to_owned(), "8422".to_owned())]));
    assert_eq!(process.working_dir, Some("/srv/2".into()));
    assert_eq!(process.settings.stdin, Stdin::File("/srv/2/in".into()));
    assert_eq!(process.settings.env_files[0].path, std::path::Path::new("/srv/2/2.env"));
    assert_eq!(
        process.stop_command.as_ref().map(|command| command.args.as_slice()),
        Some(["8422".to_owned()].as_slice())
    );
    assert_eq!((process.port, config.servers["web-12"].process.port), (Some(8422), Some(8432)));
}

#[test]
fn one_instance_is_numbered_too_and_without_the_key_braces_mean_nothing() {
    let config = Directory::new()
        .write("servers/one.ron", "Process(command: \"a\", args: [\"{instance}\"], instances: 1)")
        .write("servers/none.ron", "Process(command: \"a\", args: [\"{instance} {port}\"], port: 1)")
        .load();
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["none", "one-1"]);
    assert_eq!(config.servers["none"].process.args, ["{instance} {port}"]);
    assert_eq!(config.servers["one-1"].process.args, ["1"]);
}

#[test]
fn an_instance_with_the_name_of_a_file_is_refused() {
    for other in ["Process(command: \"a\")", "Process("] {
        let config = Directory::new()
            .write("servers/web.ron", "Process(command: \"a\", instances: 3)")
            .write("servers/web-2.ron", other)
            .load();
        assert!(
            errors(&config).contains(
                "servers/web.ron: instances: instance `web-2` has the name of the file `web-2.ron`; \
                 rename one of the files"
            ),
            "{}",
            errors(&config)
        );
        assert!(!config.servers.contains_key("web-1") && !config.servers.contains_key("web-3"));
    }
    let long = "a".repeat(63);
    let config = Directory::new()
        .write(&format!("servers/{long}.ron"), "Process(command: \"a\", instances: 2)")
        .load();
    assert!(errors(&config).contains(&format!("instances: `{long}-2` is too long for a name")), "{config:?}");
}

#[test]
fn ports_of_instances_and_of_the_daemon_itself_are_taken() {
    let directory = Directory::new();
    directory
        .write("servers/a.ron", "Process(command: \"a\", port: 8421, args: [\"{port}\"], instances: 3)")
        .write("servers/b.ron", "Process(command: \"b\", port: 8423)")
        .write("servers/c.ron", "Process(command: \"c\", port: 8400)")
        .write("servers/d.ron", "Process(command: \"d\", port: 8399, args: [\"{port}\"], instances: 2)");
    let own_ports = BTreeMap::from([(8400, "the HTTP interface of xyd".to_owned())]);
    let options = LoadOptions { own_ports, ..options() };
    let config = Config::load(directory.root(), &options).expect("sound settings");
    assert_eq!(
        errors(&config),
        "servers/b.ron:1:29: port: port 8423 belongs to server `a-3`; give one of them another port\n\
         servers/c.ron:1:29: port: port 8400 belongs to the HTTP interface of xyd; choose another port\n\
         servers/d.ron:1:29: port: port 8400 belongs to the HTTP interface of xyd; choose another port"
    );
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["a-1", "a-2", "a-3"]);
}

#[test]
fn an_environment_file_that_cannot_be_used_is_told_without_a_rejection_and_without_values() {
    let directory = Directory::new();
    directory
        .write("sound.env", "PATH=/no/such\n")
        .write("malformed.env", "A=1\nhunter2\n")
        .write("shared.env", "A=hunter2\n");
    chmod(directory.path("shared.env"), 0o666);
    for name in ["absent", "malformed", "shared", "sound"] {
        let file = directory.path(&format!("{name}.env"));
        directory.write(
            &format!("servers/{name}.ron"),
            format!("Process(command: \"sh\", working_dir: \"/\", env_files: [{file:?}])"),
        );
    }
    directory.write("servers/zlogin.ron", "Process(command: \"no-such\", working_dir: \"/\", path: Login)");
    directory.write("servers/zpath.ron", "Process(command: \"sh\", working_dir: \"/\", path: \"/no\")");
    let config = directory.load();
    assert_eq!(errors(&config), "");
    let warnings = check_commands(&config, OsStr::new("/usr/bin:/bin"));
    let text = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let root = directory.root().display();
    assert_eq!(
        text,
        format!(
            "servers/absent.ron: env_files: environment file `{root}/absent.env` cannot be read: \
             No such file or directory (os error 2)\n\
             servers/malformed.ron: env_files: environment file `{root}/malformed.env`, line 2: expected `KEY=VALUE`\n\
             servers/shared.ron: env_files: environment file `{root}/shared.env` is writable by everybody; \
             `chmod o-w {root}/shared.env`\n\
             servers/sound.ron: command: there is no program `sh` in PATH\n\
             servers/zpath.ron: command: there is no program `sh` in PATH"
        )
    );
}

#[test]
fn secrets_are_sources_whose_paths_start_where_others_do() {
    let source = |text: &str| {
        settings(&format!("working_dir: \"files\", secrets: {{\"KEY\": {text}}}")).secrets["KEY"].clone()
    };
    assert_eq!(source("Env(\"NAME\")"), SecretSource::Env("NAME".to_owned()));
    assert_eq!(source("File(\"a\")"), SecretSource::File("/home/somebody/files/a".into()));
    assert_eq!(source("File(\"~/a\")"), SecretSource::File("/home/somebody/a".into()));
    let words = ["pass", "show", "x"].map(str::to_owned);
    assert_eq!(source("Command([\"pass\", \"show\", \"x\"])"), SecretSource::Command(words.into()));
}

#[test]
fn each_instance_has_its_own_sources_of_secrets() {
    let config = Directory::new()
        .write(
            "servers/web.ron",
            "Process(command: \"a\", instances: 2,
                     secrets: {\"F\": File(\"/s/{instance}\"), \"C\": Command([\"get\", \"{instance}\"])})",
        )
        .load();
    let secrets = &config.servers["web-2"].process.settings.secrets;
    assert_eq!(secrets["F"], SecretSource::File("/s/2".into()));
    assert_eq!(secrets["C"], SecretSource::Command(vec!["get".to_owned(), "2".to_owned()]));
}

#[test]
fn a_source_of_a_secret_that_is_not_there_is_a_warning() {
    let directory = Directory::new();
    directory.write("token", "hunter2\n");
    chmod(directory.path("token"), 0o644);
    let file = directory.path("token");
    let config = directory
        .write(
            "servers/web.ron",
            format!(
                "Process(command: \"sh\", working_dir: \"/\", secrets: {{\"A\": Env(\"XY_NO_SUCH_VARIABLE\"),
                 \"B\": File(\"/no/such\"), \"C\": File({file:?}), \"D\": Command([\"no-such\"]), \"E\": Command([\"sh\"])}})"
            ),
        )
        .load();
    assert_eq!(errors(&config), "");
    let warnings = check_commands(&config, OsStr::new("/usr/bin:/bin"));
    let text = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let file = file.display();
    assert_eq!(
        text,
        format!(
            "servers/web.ron: secrets.A: variable `XY_NO_SUCH_VARIABLE`: the variable is not set; it has to be set for xyd\n\
             servers/web.ron: secrets.B: file `/no/such`: the file cannot be read: No such file or directory (os error 2)\n\
             servers/web.ron: secrets.C: file `{file}`: the file has mode 644, so that everybody can read it; \
             `chmod o= {file}`\n\
             servers/web.ron: secrets.D: there is no program `no-such` in PATH"
        )
    );
}

#[test]
fn values_of_variables_show_nowhere_in_what_is_loaded() {
    let config = Directory::new()
        .write(
            "servers/web.ron",
            "Process(command: \"a\", env: {\"SECRET\": \"hunter2\"}, instances: 2, stop: (command: [\"x\"]))",
        )
        .load();
    let texts = [
        format!("{config:?}"),
        format!("{:?}", config.servers["web-1"].process),
        format!(
            "{:?}",
            ProcessSpec { env: config.servers["web-2"].process.env.clone(), ..ProcessSpec::new("a") }
        ),
    ];
    for text in texts {
        assert!(text.contains("SECRET") && !text.contains("hunter2"), "{text}");
    }
}
