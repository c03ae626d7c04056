//! Secrets of a process: had at each start, bounded, and told by name and source only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use xy_actors::process::settings::SecretSource;
use xy_actors::process::{ProcessSpec, SpawnErrorKind};

use crate::support::{child, host, run};

const CANARY: &str = "canary-7f3a9c";

fn with(sources: impl IntoIterator<Item = (&'static str, SecretSource)>) -> ProcessSpec {
    let mut spec = child("print-env");
    spec.settings.secrets = sources.into_iter().map(|(key, source)| (key.to_owned(), source)).collect();
    spec
}

fn shell(script: &str) -> SecretSource {
    SecretSource::Command(["/bin/sh", "-c", script].map(ToOwned::to_owned).into())
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permitted");
}

fn variable<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[tokio::test]
async fn each_start_has_the_secrets_anew_from_every_source() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("token"), "from-file\n", 0o600);
    let path = SecretSource::Env("PATH".to_owned());
    let mut spec = with([
        ("A", SecretSource::File("token".into())),
        ("B", shell("cat token; printf %s \"$PLAIN$C\" >&2; printf %s \"$PLAIN$C\"")),
        ("C", path),
    ]);
    spec.working_dir = Some(dir.path().to_owned());
    spec.env.insert("PLAIN".to_owned(), "plain".to_owned());
    spec.env.insert("A".to_owned(), "weaker".to_owned());
    let host = host();
    let (output, _) = run(&host, &spec).await;
    assert_eq!(variable(&output, "A"), Some("from-file"));
    assert_eq!(variable(&output, "B"), Some("from-file"));
    assert!(output.contains("\nplain"), "the command has the environment of the process: {output}");
    assert_eq!(variable(&output, "C"), std::env::var("PATH").ok().as_deref());
    write(&dir.path().join("token"), "changed", 0o640);
    let (output, _) = run(&host, &spec).await;
    assert_eq!(variable(&output, "A"), Some("changed"));
    assert!(host.secrets().iter().any(|secret| secret.expose() == "changed"));
}

#[tokio::test]
async fn a_secret_that_cannot_be_had_is_told_by_name_and_source_and_never_by_value() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    write(&path("shared"), CANARY, 0o604);
    write(&path("foreign"), CANARY, 0o602);
    write(&path("empty"), "\n", 0o600);
    write(&path("nul"), &format!("{CANARY}\0"), 0o600);
    let file = |name: &str| SecretSource::File(path(name));
    for (source, problem) in [
        (
            SecretSource::Env("XY_NO_SUCH_VARIABLE".to_owned()),
            "variable `XY_NO_SUCH_VARIABLE`: the variable is not set",
        ),
        (file("absent"), "absent`: the file cannot be read"),
        (file("shared"), "shared`: the file has mode 604, so that everybody can read it; `chmod o= "),
        (file("foreign"), "foreign`: the file is writable by everybody"),
        (file("empty"), "empty`: it is empty"),
        (file("nul"), "nul`: it is not UTF-8 text"),
        (file(""), "is not a regular file"),
        (
            shell(&format!("echo {CANARY}; echo {CANARY} >&2; exit 3")),
            "command `/bin/sh`: the command ended with code 3",
        ),
        (shell("kill -9 $$"), "the command was ended by signal 9"),
        (shell("yes canary-7f3a9c"), "the command printed more than 64 KiB"),
        (shell("exit 0"), "it is empty"),
        (
            SecretSource::Command(vec!["/no/such/program".to_owned(), CANARY.to_owned()]),
            "the command cannot be started: program `/no/such/program`",
        ),
        (SecretSource::Command(Vec::new()), "the command cannot be started"),
    ] {
        let error = host().spawn("test", &with([("KEY", source)])).await.expect_err(problem);
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("secret `KEY` cannot be had from ") && text.contains(problem),
            "{problem}: {text}"
        );
        assert!(!text.contains(CANARY), "{text}");
        assert_eq!(error.kind(), SpawnErrorKind::SecretUnavailable);
    }
}

#[tokio::test]
async fn the_value_counts_even_if_somebody_holds_the_pipe_open() {
    let spec = with([("KEY", shell("sleep 1000 & printf %s canary-7f3a9c"))]);
    let host = host();
    let (output, _) = run(&host, &spec).await;
    assert_eq!(variable(&output, "KEY"), Some(CANARY));
    assert!(host.live().is_empty(), "{:?}", host.live());
}

#[tokio::test]
async fn neither_debug_output_nor_errors_of_the_start_show_values() {
    let mut spec = with([("KEY", shell("echo canary-7f3a9c"))]);
    spec.args.push(format!("{CANARY}\0"));
    assert!(!format!("{:?}", spec.settings).contains(CANARY));
    let error = host().spawn("test", &spec).await.expect_err("refused");
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
}
