//! Every reason for which a program does not start has its own kind, and the offending path in its text.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use xy_actors::process::{ProcessSpec, SpawnError, SpawnErrorKind};

use crate::support::{child, host, run, scenario};

async fn error_of(spec: &ProcessSpec) -> SpawnError {
    let host = host();
    let error = host.spawn("test", spec).await.expect_err("does not start");
    assert_eq!(host.live(), []);
    error
}

fn file(dir: &Path, name: &str, mode: u32, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, contents).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permitted");
    path
}

fn program(path: &Path) -> ProcessSpec {
    ProcessSpec::new(path.to_str().expect("UTF-8"))
}

/// A 64-bit program whose only segment names its loader.
fn binary_with_loader(loader: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    // A position-independent program, version 1, entry 0, headers right after this one.
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let size = loader.len() as u64 + 1;
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(4_u32.to_le_bytes());
    for word in [120_u64, 120, 120, size, size, 1] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(loader.as_bytes());
    bytes.push(0);
    bytes
}

#[tokio::test]
async fn each_failure_has_its_kind_and_names_the_path() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    let path = |name: &str| dir.join(name);
    let in_dir = |dir: PathBuf| ProcessSpec { working_dir: Some(dir), ..child("exit 0") };
    fs::create_dir(path("directory")).expect("created");
    let plain = file(dir, "plain", 0o644, "text");
    std::os::unix::fs::symlink(path("nowhere"), path("link")).expect("linked");
    let cases = [
        (program(&path("absent")), SpawnErrorKind::ProgramMissing, path("absent")),
        (program(&path("link")), SpawnErrorKind::ProgramMissing, path("link")),
        (in_dir(path("absent")), SpawnErrorKind::WorkingDirMissing, path("absent")),
        (in_dir(plain.clone()), SpawnErrorKind::NotADirectory, plain.clone()),
        (
            program(&file(dir, "script", 0o755, "#!/no/such/interpreter -x\n")),
            SpawnErrorKind::InterpreterMissing,
            "/no/such/interpreter".into(),
        ),
        (
            program(&file(dir, "windows", 0o755, "#!/bin/sh\r\nexit 0\r\n")),
            SpawnErrorKind::InterpreterMissing,
            "/bin/sh\r".into(),
        ),
        (
            program(&file(dir, "foreign", 0o755, binary_with_loader("/no/such/loader.so"))),
            SpawnErrorKind::LoaderMissing,
            "/no/such/loader.so".into(),
        ),
        (program(&plain), SpawnErrorKind::NotExecutable, plain.clone()),
        (
            program(&file(dir, "through", 0o755, format!("#!{}\n", plain.display()))),
            SpawnErrorKind::NotExecutable,
            plain.clone(),
        ),
        (program(&path("directory")), SpawnErrorKind::IsADirectory, path("directory")),
        (program(&plain.join("below")), SpawnErrorKind::PathInaccessible, plain),
        (
            program(&file(dir, "no-first-line", 0o755, "exit 0\n")),
            SpawnErrorKind::UnknownFormat,
            path("no-first-line"),
        ),
    ];
    for (spec, kind, at_fault) in cases {
        let error = error_of(&spec).await;
        assert_eq!((error.kind(), error.path()), (kind, Some(at_fault.as_path())), "{error}");
        let shown = at_fault.display().to_string().escape_debug().to_string();
        assert!(error.to_string().contains(&format!("`{shown}`")), "{error}");
        assert!(!error.is_resource_shortage());
    }
}

#[tokio::test]
async fn a_name_in_no_directory_of_the_path_lists_them() {
    let mut spec = ProcessSpec::new("no-such-program");
    spec.env.insert("PATH".to_owned(), "/no/one:/no/two".to_owned());
    let error = error_of(&spec).await;
    assert_eq!(error.kind(), SpawnErrorKind::ProgramMissing);
    let text = error.to_string();
    assert!(["`no-such-program`", "`/no/one`", "`/no/two`"].iter().all(|word| text.contains(word)), "{text}");
}

#[tokio::test]
async fn a_script_in_the_path_without_its_interpreter_is_not_a_missing_program() {
    let dir = tempfile::tempdir().expect("temporary directory");
    file(dir.path(), "tool", 0o755, "#!/no/such/interpreter\n");
    let mut spec = ProcessSpec::new("tool");
    spec.env.insert("PATH".to_owned(), format!("/no/one:{}:/no/two", dir.path().display()));
    let error = error_of(&spec).await;
    assert_eq!(error.kind(), SpawnErrorKind::InterpreterMissing, "{error}");
}

#[tokio::test]
async fn an_earlier_file_that_may_not_be_executed_does_not_hide_a_later_one() {
    let (one, two) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    file(one.path(), "tool", 0o644, "text");
    file(two.path(), "tool", 0o755, "#!/bin/sh\nexit 5\n");
    let mut spec = ProcessSpec::new("tool");
    spec.env.insert("PATH".to_owned(), format!("{}:{}", one.path().display(), two.path().display()));
    assert_eq!(run(&host(), &spec).await.1, xy_actors::process::ProcessExit::Code(5));
}

#[tokio::test]
async fn too_long_arguments_are_told_as_such() {
    let mut spec = child("exit 0");
    spec.args.push("x".repeat(200 << 10));
    let error = error_of(&spec).await;
    assert_eq!(error.kind(), SpawnErrorKind::ArgumentsTooLong);
    assert!(error.to_string().contains(&spec.command), "{error}");
}

#[tokio::test]
async fn a_program_being_written_starts_when_the_writer_is_done() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("tool");
    fs::copy(env!("CARGO_BIN_EXE_xy-testchild"), &path).expect("copied");
    let writer = OpenOptions::new().append(true).mode(0o755).open(&path).expect("opened");
    let error = error_of(&program(&path)).await;
    assert_eq!((error.kind(), error.path()), (SpawnErrorKind::TextBusy, Some(path.as_path())));
    let (host, spec) = (host(), program(&path));
    let spawn = host.spawn("test", &spec);
    let (process, ()) = tokio::join!(spawn, async {
        tokio::task::yield_now().await;
        drop(writer);
    });
    assert_eq!(process.expect("starts").exited().await, xy_actors::process::ProcessExit::Code(0));
}

#[test]
fn a_directory_that_may_not_be_entered_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("blocked_directory", dir.path()).succeed();
}

#[test]
fn a_limit_on_processes_is_a_shortage_and_not_the_fault_of_the_spec() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("no_processes", dir.path()).succeed();
}

#[test]
fn a_shortage_backs_off_without_counting_and_ends_with_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    scenario("shortage", dir.path()).succeed();
}

#[tokio::test]
async fn a_command_with_its_arguments_in_one_word_is_told_where_those_go() {
    for (command, advice) in [
        ("no-such-program", "install it, or give its full path as `command`"),
        ("no-such-program --port 80", "arguments go into `args`, as no shell splits the command"),
    ] {
        let error = error_of(&ProcessSpec::new(command)).await;
        assert_eq!(error.kind(), SpawnErrorKind::ProgramMissing);
        assert!(error.to_string().ends_with(&format!("): {advice}")), "{error}");
    }
}
