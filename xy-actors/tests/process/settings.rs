//! What a process was given beside its command line, read back by the process itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::unistd::{Uid, User};
use xy_actors::process::settings::{EnvBase, EnvFile, Resource, ResourceLimit, SearchPath, Stdin};
use xy_actors::process::{ProcessExit, ProcessSpec, SpawnErrorKind};

use crate::support::{child, host, is_running, pid_in, run, scenario, scenario_after, wait_until};

/// A program that prints files.
fn cat(files: &[&str]) -> ProcessSpec {
    let mut spec = ProcessSpec::new("/bin/cat");
    spec.args = files.iter().map(|file| (*file).to_owned()).collect();
    spec
}

/// The words after a heading in `/proc/PID/status` or `/proc/PID/limits`.
fn words<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(heading)).expect(heading);
    line.split_whitespace().collect()
}

/// The soft and the hard value of a line of `/proc/PID/limits`.
pub(crate) fn limit<'a>(text: &'a str, name: &str) -> [&'a str; 2] {
    let words = words(text, name);
    [words[0], words[1]]
}

fn variable<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn is_root() -> bool {
    Uid::effective().is_root()
}

#[tokio::test]
async fn limits_niceness_mask_and_score_are_those_of_the_spec() {
    let mut spec =
        cat(&["/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj", "/proc/self/stat"]);
    let both = |resource, soft, hard| ResourceLimit { resource, soft, hard };
    spec.settings.umask = Some(0o027);
    spec.settings.nice = Some(7);
    spec.settings.no_new_privs = Some(true);
    spec.settings.oom_score_adj = Some(321);
    spec.settings.limits = vec![
        both(Resource::Nofile, 100, 200),
        both(Resource::Core, 4096, 8192),
        both(Resource::Stack, 4 << 20, 5 << 20),
        both(Resource::Cpu, 50, 60),
        both(Resource::Fsize, 1 << 20, 2 << 20),
        both(Resource::As, 4 << 30, 5 << 30),
        both(Resource::Data, 1 << 30, 2 << 30),
        both(Resource::Memlock, 4096, 4096),
        both(Resource::Nproc, 4000, 5000),
    ];
    let (output, exit) = run(&host(), &spec).await;
    assert_eq!(exit, ProcessExit::Code(0));
    assert_eq!(words(&output, "Umask:"), ["0027"]);
    assert_eq!(words(&output, "NoNewPrivs:"), ["1"]);
    for (name, values) in [
        ("Max open files", ["100", "200"]),
        ("Max core file size", ["4096", "8192"]),
        ("Max stack size", ["4194304", "5242880"]),
        ("Max cpu time", ["50", "60"]),
        ("Max file size", ["1048576", "2097152"]),
        ("Max address space", ["4294967296", "5368709120"]),
        ("Max data size", ["1073741824", "2147483648"]),
        ("Max locked memory", ["4096", "4096"]),
        ("Max processes", ["4000", "5000"]),
    ] {
        assert_eq!(limit(&output, name), values, "{name}");
    }
    let (stat, score) = {
        let mut lines = output.lines().rev();
        (lines.next().expect("stat"), lines.next().expect("oom_score_adj"))
    };
    assert_eq!(score, "321");
    let nice = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16));
    assert_eq!(nice, Some("7"), "{stat}");
}

#[tokio::test]
async fn without_settings_a_process_has_ours_and_dies_before_us_when_memory_runs_out() {
    let files = ["/proc/self/limits", "/proc/self/oom_score_adj", "/proc/self/status"];
    let (output, _) = run(&host(), &cat(&files)).await;
    let own = |file: &str| fs::read_to_string(file).expect("readable");
    let own_score: i32 = own("/proc/self/oom_score_adj").trim().parse().expect("a number");
    let score = output.lines().find(|line| line.parse::<i32>().is_ok()).expect("a number");
    assert_eq!(score, (own_score + 1).min(1000).to_string());
    assert!(output.starts_with(&own("/proc/self/limits")));
    let own_status = own("/proc/self/status");
    for heading in ["Uid:", "Gid:", "Groups:", "Umask:", "NoNewPrivs:"] {
        assert_eq!(words(&output, heading), words(&own_status, heading), "{heading}");
    }
}

#[tokio::test]
async fn a_user_is_changed_to_for_good_with_groups_variables_and_home() {
    if !is_root() {
        // Nobody else can become somebody.
        return;
    }
    let daemon = User::from_name("daemon").expect("a user database").expect("every system has it");
    let mut spec = ProcessSpec::new("/bin/sh");
    spec.args = ["-c", "cat /proc/self/status; env; pwd"].map(str::to_owned).to_vec();
    spec.settings.user = Some("daemon".to_owned());
    let (output, exit) = run(&host(), &spec).await;
    assert_eq!(exit, ProcessExit::Code(0));
    let (uid, gid) = (daemon.uid.to_string(), daemon.gid.to_string());
    // Real, effective, saved and of the file system.
    assert_eq!(words(&output, "Uid:"), [uid.as_str(); 4]);
    assert_eq!(words(&output, "Gid:"), [gid.as_str(); 4]);
    let groups = words(&output, "Groups:");
    assert!(groups.contains(&gid.as_str()) && !groups.contains(&"0"), "{groups:?}");
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(words(&output, capabilities), ["0000000000000000"], "{capabilities}");
    }
    assert_eq!(words(&output, "NoNewPrivs:"), ["1"]);
    let home = daemon.dir.display().to_string();
    for (name, value) in [
        ("USER", "daemon"),
        ("LOGNAME", "daemon"),
        ("HOME", home.as_str()),
        ("SHELL", daemon.shell.to_str().expect("UTF-8")),
        ("PWD", home.as_str()),
    ] {
        assert_eq!(variable(&output, name), Some(value), "{name}");
    }
    assert!(!output.lines().any(|line| line.starts_with("XDG_")), "{output}");
}

#[tokio::test]
async fn a_number_needs_a_group_and_env_wins_over_what_follows_the_user() {
    if !is_root() {
        return;
    }
    let mut spec = ProcessSpec::new("/bin/sh");
    spec.args = ["-c", "cat /proc/self/status; env"].map(str::to_owned).to_vec();
    spec.working_dir = Some("/".into());
    spec.settings.user = Some("54321".to_owned());
    let error = host().spawn("test", &spec).await.expect_err("no group is known");
    assert_eq!(error.kind(), SpawnErrorKind::UnknownIdentity);
    assert_eq!(
        error.to_string(),
        "user `54321` has no entry in the user database: name its group in `group`"
    );
    spec.settings.group = Some("12345".to_owned());
    spec.settings.no_new_privs = Some(false);
    spec.env.insert("HOME".to_owned(), "/elsewhere".to_owned());
    let (output, _) = run(&host(), &spec).await;
    assert_eq!(words(&output, "Uid:"), ["54321"; 4]);
    assert_eq!(words(&output, "Gid:"), ["12345"; 4]);
    assert_eq!(words(&output, "Groups:"), ["12345"]);
    assert_eq!(words(&output, "NoNewPrivs:"), ["0"]);
    assert_eq!(variable(&output, "HOME"), Some("/elsewhere"));
    assert_eq!(variable(&output, "USER"), Some("54321"));
}

#[tokio::test]
async fn a_group_alone_leaves_the_user() {
    if !is_root() {
        return;
    }
    let mut spec = cat(&["/proc/self/status"]);
    spec.settings.group = Some("daemon".to_owned());
    let (output, _) = run(&host(), &spec).await;
    assert_eq!(words(&output, "Uid:"), ["0"; 4]);
    assert_eq!(words(&output, "Gid:"), ["1"; 4]);
    assert_eq!(words(&output, "Groups:"), ["1"]);
}

#[test]
fn a_child_of_another_user_dies_with_its_host() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut host = scenario("child_as_nobody", dir.path());
    let pid = pid_in(&dir.path().join("main"));
    assert!(is_running(pid));
    host.kill();
    wait_until("the child is dead", || !is_running(pid));
}

#[test]
fn children_of_a_host_that_raised_its_own_limits_get_the_original_ones() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("own_limits", dir.path()).succeed();
}

#[tokio::test]
async fn what_the_system_does_not_grant_is_told_by_name_and_leaves_nothing() {
    let host = host();
    let refuse = async |kind: SpawnErrorKind, text: &str, change: &dyn Fn(&mut ProcessSpec)| {
        let mut spec = child("exit 0");
        change(&mut spec);
        let error = host.spawn("test", &spec).await.expect_err(text);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(host.live(), []);
    };
    let limit = |soft, hard| ResourceLimit { resource: Resource::Nofile, soft, hard };
    refuse(SpawnErrorKind::UnknownIdentity, "there is no user `no such`", &|spec| {
        spec.settings.user = Some("no such".to_owned());
    })
    .await;
    refuse(SpawnErrorKind::UnknownIdentity, "there is no group `no such`", &|spec| {
        spec.settings.group = Some("no such".to_owned());
    })
    .await;
    refuse(SpawnErrorKind::InvalidSpec, "the soft limit of `nofile` is above the hard one", &|spec| {
        spec.settings.limits = vec![limit(2, 1)];
    })
    .await;
    refuse(SpawnErrorKind::InvalidSpec, "`nofile` is limited twice", &|spec| {
        spec.settings.limits = vec![limit(100, 100), limit(100, 100)];
    })
    .await;
    // Above what the kernel lets anybody have.
    refuse(
        SpawnErrorKind::SettingRefused,
        "the limit nofile (soft 100, hard unlimited) is not permitted",
        &|spec| spec.settings.limits = vec![limit(100, ResourceLimit::UNLIMITED)],
    )
    .await;
    refuse(SpawnErrorKind::SettingRefused, "the value 5000 of oom_score_adj is not permitted", &|spec| {
        spec.settings.oom_score_adj = Some(5000);
    })
    .await;
    refuse(
        SpawnErrorKind::InputUnavailable,
        "standard input `/no/such` does not exist: create it",
        &|spec| {
            spec.settings.stdin = Stdin::File("/no/such".into());
        },
    )
    .await;
    refuse(SpawnErrorKind::InputUnavailable, "standard input `/tmp` is a directory", &|spec| {
        spec.settings.stdin = Stdin::File("/tmp".into());
    })
    .await;
    if is_root() {
        refuse(SpawnErrorKind::WorkingDirInaccessible, "may not be entered by user `nobody`", &|spec| {
            spec.settings.user = Some("nobody".to_owned());
            spec.working_dir = Some("/root".into());
        })
        .await;
    } else {
        refuse(SpawnErrorKind::NotPrivileged, "only root can run processes as user 0", &|spec| {
            spec.settings.user = Some("root".to_owned());
        })
        .await;
        refuse(SpawnErrorKind::SettingRefused, "the niceness -20 is not permitted", &|spec| {
            spec.settings.nice = Some(-20);
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_is_read_as_standard_input_from_the_working_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("input"), "twelve bytes").expect("written");
    let mut spec = child("read-stdin");
    spec.working_dir = Some(dir.path().to_owned());
    spec.settings.stdin = Stdin::File("input".into());
    for _ in 0..2 {
        let (output, _) = run(&host(), &spec).await;
        assert_eq!(output, "stdin 12\n", "each start begins at the beginning");
    }
}

#[tokio::test]
async fn a_clean_environment_has_only_what_is_listed() {
    let mut spec = child("print-env");
    spec.settings.env_base = EnvBase::Clean;
    spec.env.insert("XY_TEST_VARIABLE".to_owned(), "1".to_owned());
    let (output, _) = run(&host(), &spec).await;
    let names: Vec<&str> = output.lines().map(|line| line.split('=').next().unwrap_or_default()).collect();
    let listed = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XY_INSTANCE", "XY_TEST_VARIABLE"];
    // The test runner sets others.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let others: Vec<&&str> =
        names.iter().filter(|name| !listed.contains(name) && !name.starts_with("XDG_")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(names.contains(&"PATH") && names.contains(&"XY_TEST_VARIABLE"), "{names:?}");
}

/// Whether our own login shell is one whose profile these tests know how to write.
fn has_a_usual_shell() -> bool {
    let Some(user) = User::from_uid(Uid::effective()).expect("a user database") else { return true };
    let name = user.shell.file_name().unwrap_or_default();
    ["sh", "bash", "dash", "zsh"].iter().any(|usual| name == *usual)
}

#[test]
fn the_path_of_the_login_shell_is_asked_for_once_whatever_the_profile_prints() {
    if !has_a_usual_shell() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    // It says something, reads its input, and leaves a process that holds its output.
    let profile = "echo asked >> $HOME/asked\necho hello; cat; sleep 1000 &\nexport PATH=/from/the/profile:/usr/bin:/bin\n";
    for shell in [".profile", ".zprofile"] {
        fs::write(dir.path().join(shell), profile).expect("written");
    }
    let script = r#"HOME="$XY_TEST_DIR" exec "$0" "$@""#;
    scenario_after(script, "login_path", dir.path()).succeed();
}

#[test]
fn a_login_shell_that_hangs_is_ended_and_not_asked_again_at_once() {
    if !has_a_usual_shell() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    for shell in [".profile", ".zprofile"] {
        fs::write(dir.path().join(shell), "echo asked >> $HOME/asked\nsleep 1000\n").expect("written");
    }
    let script = r#"HOME="$XY_TEST_DIR" exec "$0" "$@""#;
    scenario_after(script, "silent_login_shell", dir.path()).succeed();
}

#[tokio::test]
async fn where_the_login_shell_does_not_answer_the_inherited_path_serves() {
    if !is_root() {
        return;
    }
    let mut spec = ProcessSpec::new("/usr/bin/env");
    spec.working_dir = Some("/".into());
    // This one's shell refuses.
    spec.settings.user = Some("nobody".to_owned());
    spec.settings.path = SearchPath::Login;
    let (output, exit) = run(&host(), &spec).await;
    assert_eq!(exit, ProcessExit::Code(0));
    assert_eq!(variable(&output, "PATH"), std::env::var("PATH").ok().as_deref());
}

fn private_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    chmod(dir.path(), 0o700);
    dir
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    chmod(path, 0o600);
}

fn file(path: &Path) -> EnvFile {
    EnvFile { path: path.to_owned(), optional: false }
}

#[tokio::test]
async fn environment_files_are_read_at_each_start_and_the_later_and_env_win() {
    let dir = private_dir();
    let (one, two) = (dir.path().join("one.env"), dir.path().join("two.env"));
    write(&one, "A=one\nB=one\nC='one'\nPATH=/from/file:/usr/bin:/bin\n");
    write(&two, "# the second\nB=\"two\"\nC=two\n");
    let mut spec = child("print-env");
    spec.working_dir = Some(dir.path().to_owned());
    spec.settings.env_files = vec![
        file(&one),
        EnvFile { path: "two.env".into(), optional: false },
        EnvFile { path: "absent.env".into(), optional: true },
    ];
    spec.settings.path = SearchPath::Literal("/literal".to_owned());
    spec.env.insert("C".to_owned(), "env".to_owned());
    let (output, _) = run(&host(), &spec).await;
    for (name, value) in [("A", "one"), ("B", "two"), ("C", "env"), ("PATH", "/from/file:/usr/bin:/bin")] {
        assert_eq!(variable(&output, name), Some(value), "{name}");
    }
    write(&one, "A=changed\n");
    let (output, _) = run(&host(), &spec).await;
    assert_eq!(variable(&output, "A"), Some("changed"));
    assert_eq!(variable(&output, "PATH"), Some("/literal"));
}

#[tokio::test]
async fn an_environment_file_that_cannot_be_used_is_told_with_its_line_and_without_its_values() {
    let dir = private_dir();
    let path = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("malformed", "A=1\nhunter2\n"),
        ("bad_key", "XY_INSTANCE=hunter2\n"),
        ("shared", "A=hunter2\n"),
        ("sound", "A=hunter2\n"),
    ] {
        write(&path(name), text);
    }
    chmod(&path("shared"), 0o622);
    fs::create_dir(path("open")).expect("created");
    write(&path("open/inside"), "A=hunter2\n");
    chmod(&path("open"), 0o777);
    symlink("open/inside", path("link")).expect("linked");
    fs::create_dir(path("sticky")).expect("created");
    write(&path("sticky/inside"), "A=hunter2\n");
    chmod(&path("sticky"), 0o1777);
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("made");
    for (name, problem) in [
        ("absent", "` does not exist: create it, or put `-` before"),
        ("malformed", "`, line 2: expected `KEY=VALUE`"),
        ("bad_key", "environment variable \"XY_INSTANCE\" is set by the process host itself"),
        ("shared", "` is writable by everybody; `chmod o-w "),
        ("open/inside", "` its directory is writable by everybody; `chmod o-w "),
        ("link", "` its directory is writable by everybody; `chmod o-w "),
        ("open", "` is not a regular file"),
        ("fifo", "` is not a regular file"),
    ] {
        let mut spec = child("exit 0");
        spec.settings.env_files = vec![file(&path(name))];
        let error = host().spawn("test", &spec).await.expect_err(name);
        let text = format!("{error} {error:?}");
        assert!(text.contains(problem) && !text.contains("hunter2"), "{name}: {text}");
        let kind =
            if name == "bad_key" { SpawnErrorKind::InvalidSpec } else { SpawnErrorKind::EnvironmentFile };
        assert_eq!(error.kind(), kind, "{name}");
    }
    for name in ["sound", "sticky/inside"] {
        let mut spec = child("print-env");
        spec.settings.env_files = vec![file(&path(name))];
        let (output, _) = run(&host(), &spec).await;
        assert_eq!(variable(&output, "A"), Some("hunter2"), "{name}");
    }
}

#[tokio::test]
async fn an_environment_file_of_another_user_is_refused() {
    if !is_root() {
        // Nobody else can give files away.
        return;
    }
    let dir = private_dir();
    let path = dir.path().join("foreign.env");
    write(&path, "A=1\n");
    std::os::unix::fs::chown(&path, Some(12_345), None).expect("root may");
    let mut spec = child("exit 0");
    spec.settings.env_files = vec![file(&path)];
    let error = host().spawn("test", &spec).await.expect_err("not ours");
    assert!(error.to_string().contains("belongs to user 12345, expected root or user 0"), "{error}");
}

#[tokio::test]
async fn values_of_variables_never_show_in_debug_output_or_errors() {
    let mut spec = child("exit 0");
    spec.env.insert("SECRET".to_owned(), "hunter2".to_owned());
    let text = format!("{spec:?}");
    assert!(text.contains("SECRET") && !text.contains("hunter2"), "{text}");
    for (name, value) in [("SECRET", "hunter2\0"), ("A=B", "hunter2"), ("", "hunter2")] {
        let mut spec = spec.clone();
        spec.env.insert(name.to_owned(), value.to_owned());
        let error = host().spawn("test", &spec).await.expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    spec.command = "/no/such/program".to_owned();
    let error = host().spawn("test", &spec).await.expect_err("missing");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}
