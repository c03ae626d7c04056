//! The daemon as a systemd service, with the socket that brings it up.

use std::path::Path;

use super::{MARK, Scope, Service, printable};
use crate::error::LifecycleError;

/// Returns the text of `xyd.service`.
///
/// systemd is the guard here: it starts xyd again, and `KillMode=mixed` with the control group ends what xyd leaves.
pub(super) fn service(service: &Service) -> Result<String, LifecycleError> {
    let mut command = vec![quoted(printable(&service.program)?)];
    for (option, path) in [("--config", &service.config), ("--socket", &service.socket)] {
        if let Some(path) = path {
            command.extend([option.to_owned(), quoted(printable(path)?)]);
        }
    }
    let wanted_by = match service.scope {
        Scope::User => "default.target",
        Scope::System => "multi-user.target",
    };
    Ok(format!(
        "\
# {MARK}; what you change here is kept only in a drop-in: systemctl edit xyd

[Unit]
Description=xy keeps servers running
After=network.target
# systemd holds the socket: a client that comes while xyd is down brings it up, and waits for it.
Requires=xyd.socket
After=xyd.socket

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=kill -HUP $MAINPID
WatchdogSec=30s
Restart=always
RestartSec=1s
# An end that was asked for is one, and trying again does not help against a bad configuration, a bad command line or another
# instance.
RestartPreventExitStatus=0 3 64 75
# xyd ends its servers itself, each with its own patience.
KillMode=mixed
TimeoutStopSec=2min
# Each server has a control group of its own, and one that runs out of memory takes nobody along.
Delegate=yes
OOMPolicy=continue
# What xyd writes is for its user alone; a server that is to write for others has `umask`.
UMask=0077

[Install]
WantedBy={wanted_by}
Also=xyd.socket
",
        command = command.join(" ")
    ))
}

/// Returns the text of `xyd.socket`.
pub(super) fn socket(service: &Service) -> Result<String, LifecycleError> {
    let path = match (&service.socket, service.scope) {
        (Some(path), _) => unquoted(path)?,
        // Where clients look, and where xyd would bind it itself.
        (None, Scope::User) => "%t/xy/xyd.sock".to_owned(),
        (None, Scope::System) => "%h/.local/state/xy/xyd.sock".to_owned(),
    };
    Ok(format!(
        "\
# {MARK}; what you change here is kept only in a drop-in: systemctl edit xyd.socket

[Unit]
Description=the socket of xy

[Socket]
ListenStream={path}
FileDescriptorName=xyd
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
"
    ))
}

/// Writes a path where systemd takes the rest of the line as it is, but for `%`.
fn unquoted(path: &Path) -> Result<String, LifecycleError> {
    let text = printable(path)?;
    // White space at the end would be cut off, and a backslash would join the next line.
    if text.ends_with(|last: char| last.is_whitespace() || last == '\\') {
        return Err(LifecycleError::Unwritable { path: path.to_owned() });
    }
    Ok(text.replace('%', "%%"))
}

/// Writes an argument of `ExecStart=` so that systemd reads it as it is.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    let mut text = String::from("\"");
    for c in argument.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_by_systemd_as_they_are() {
        for (argument, text) in [
            ("/usr/bin/xyd", "/usr/bin/xyd"),
            ("/my programs/xyd", "\"/my programs/xyd\""),
            ("/100%/$HOME", "\"/100%%/$$HOME\""),
            (r#"/a"b\c"#, r#""/a\"b\\c""#),
            ("/é;x", "\"/é;x\""),
        ] {
            assert_eq!(quoted(argument), text);
        }
    }

    /// Reads an argument back by the rules of systemd.syntax(7) and systemd.service(5).
    fn read_back(text: &str) -> String {
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let mut characters = inner.unwrap_or(text).chars();
        let mut read = String::new();
        while let Some(c) = characters.next() {
            match c {
                '\\' => read.extend(characters.next()),
                '%' | '$' => assert_eq!(characters.next(), Some(c), "{text}"),
                '"' => panic!("a quote ends the argument: {text}"),
                ' ' | '\t' => {
                    assert!(inner.is_some(), "a blank ends the argument: {text}");
                    read.push(c);
                }
                _ => {}
            }
            if !matches!(c, '\\' | ' ' | '\t') {
                read.push(c);
            }
        }
        read
    }

    /// Makes texts of what is special to somebody; the same ones in each run.
    fn texts(count: usize) -> impl Iterator<Item = String> {
        const PIECES: [&str; 28] = [
            " ", "  ", "\"", "'", "\\", "\\\\", "%", "%h", "%%", "$", "$HOME", "${X}", "$$", ";", "#", "=",
            "é", "🦀", "*", "?", "[", "]", "{", "}", "~", "-", "@", "a",
        ];
        let mut state = 0x9e37_79b9_u64;
        let mut next = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        std::iter::repeat_with(move || {
            let length = 1 + next(8);
            (0..length).map(|_| PIECES[next(PIECES.len())]).collect()
        })
        .take(count)
    }

    #[test]
    fn any_argument_comes_back_as_it_was() {
        for text in texts(10_000) {
            assert_eq!(read_back(&quoted(&text)), text, "{}", quoted(&text));
        }
    }

    #[test]
    fn any_path_makes_units_that_systemd_accepts() {
        const UNITS: usize = 200;
        let directory = tempfile::tempdir().expect("a directory");
        let mut units = Vec::new();
        let mut paths = texts(2 * UNITS).map(|text| format!("/x/{text}x"));
        for number in 0..UNITS {
            let both = Service {
                program: "/bin/sh".into(),
                config: paths.next().map(Into::into),
                socket: paths.next().map(Into::into),
                scope: Scope::User,
            };
            let name = |kind: &str| format!("t{number}.{kind}");
            for (kind, text) in [("service", service(&both)), ("socket", socket(&both))] {
                let text = text.expect("writable").replace("xyd.socket", &name("socket"));
                let path = directory.path().join(name(kind));
                std::fs::write(&path, text).expect("written");
                units.push(path);
            }
        }
        let verified = std::process::Command::new("systemd-analyze")
            .args(["verify", "--user", "--recursive-errors=no"])
            .args(&units)
            .env("XDG_RUNTIME_DIR", directory.path())
            .output();
        match verified {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let ours: Vec<_> =
                    said.lines().filter(|line| line.contains("/t") || line.starts_with('t')).collect();
                assert!(output.status.success() && ours.is_empty(), "{said}");
            }
            Err(error) => eprintln!("the units were not verified, there is no systemd-analyze: {error}"),
        }
    }

    #[test]
    fn the_socket_is_where_clients_look_unless_another_one_is_named() {
        let service = |socket: Option<&str>, scope| Service {
            program: "/usr/bin/xyd".into(),
            config: None,
            socket: socket.map(Into::into),
            scope,
        };
        for (socket_path, scope, line) in [
            (None, Scope::User, "ListenStream=%t/xy/xyd.sock"),
            (None, Scope::System, "ListenStream=%h/.local/state/xy/xyd.sock"),
            (Some("/run/100%/a \"b\".sock"), Scope::User, "ListenStream=/run/100%%/a \"b\".sock"),
        ] {
            let text = socket(&service(socket_path, scope)).expect("writable");
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        for path in ["/run/a\\", "/run/a ", "/run/a\nExecStartPre=evil"] {
            let error = socket(&service(Some(path), Scope::User)).expect_err("refused");
            assert!(matches!(error, LifecycleError::Unwritable { .. }), "{error}");
        }
    }

    #[test]
    fn a_path_that_no_unit_can_hold_is_refused() {
        let bad = Service {
            program: "/usr/bin/xyd".into(),
            config: Some("/a\nExecStartPre=evil".into()),
            socket: None,
            scope: Scope::User,
        };
        let error = service(&bad).expect_err("refused");
        assert!(matches!(error, LifecycleError::Unwritable { .. }), "{error}");
    }
}
