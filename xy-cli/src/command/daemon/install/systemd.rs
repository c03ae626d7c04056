//! The daemon as a systemd service.

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

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=kill -HUP $MAINPID
WatchdogSec=30s
Restart=on-failure
RestartSec=1s
# Trying again does not help against a bad configuration, a bad command line or another instance.
RestartPreventExitStatus=3 64 75
# xyd ends its servers itself, each with its own patience.
KillMode=mixed
TimeoutStopSec=2min
# Each server has a control group of its own, and one that runs out of memory takes nobody along.
Delegate=yes
OOMPolicy=continue

[Install]
WantedBy={wanted_by}
",
        command = command.join(" ")
    ))
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
