//! What `ready`, `liveness` and `watchdog` mean.

use std::ops::RangeInclusive;

use xy_actors::process::Readiness;
use xy_actors::process::health::Liveness;
use xy_actors::process::readiness::{LogPattern, ProbeHeader, ProbeTimes, StatusSet};

use super::super::shape::{
    DurationText, ExecShape, HeaderShape, HttpShape, LivenessShape, McpShape, NotifyShape, ReadyShape,
    StatusShape, TcpShape,
};
use super::Checker;

/// The statuses there are.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// The highest descriptor that can be declared; the usual limit of open files is 1024.
const HIGHEST_FD: u32 = 255;

/// The most failures in a row that a liveness check may wait for.
const MOST_FAILURES: u32 = 1000;

impl Checker<'_> {
    /// Reads `ready` and how often it is asked.
    pub(super) fn ready(
        &mut self,
        shape: Option<ReadyShape>,
        has_port: bool,
    ) -> (Option<Readiness>, ProbeTimes) {
        match shape {
            Some(shape) => {
                let (readiness, times) = self.probe("ready", shape, has_port);
                (readiness, times)
            }
            None => (None, ProbeTimes::default()),
        }
    }

    /// Reads `liveness`.
    pub(super) fn liveness(&mut self, shape: LivenessShape, has_port: bool) -> Option<Liveness> {
        let (probe, times) = self.probe("liveness.probe", shape.probe, has_port);
        for (key, time) in [("interval", times.interval), ("timeout", times.timeout)] {
            if time.is_some() {
                self.error_with_hint(
                    &format!("liveness.probe.{key}"),
                    format!("`{key}` of a liveness check stands beside its `probe`"),
                    format!("write `liveness: (probe: .., {key}: ..)`"),
                );
            }
        }
        let interval = self.positive("liveness.interval", shape.interval.as_ref());
        let timeout = self.positive("liveness.timeout", shape.timeout.as_ref());
        let failures = self.number("liveness.failures", shape.failures, 1, MOST_FAILURES);
        let usual = Liveness::new(probe?);
        if !usual.probe.is_asked() {
            self.error(
                "liveness.probe",
                format!(
                    "`{}` cannot be asked again, expected one of `Tcp`, `Http(..)`, `Mcp(..)`, `Exec(..)`",
                    usual.probe.name()
                ),
            );
        }
        let is_mcp = matches!(usual.probe, Readiness::Mcp { .. });
        if is_mcp && interval.is_some_and(|interval| interval < Liveness::MCP_INTERVAL) {
            self.error(
                "liveness.interval",
                "is too short for `Mcp`, which leaves something behind on the server each time: expected \
                 \"30s\" or more",
            );
        }
        Some(Liveness {
            interval: interval.unwrap_or(usual.interval),
            timeout: timeout.unwrap_or(usual.timeout),
            failure_threshold: failures.unwrap_or(usual.failure_threshold),
            ..usual
        })
    }

    /// Reads a probe at a key; `None` with an error noted.
    fn probe(&mut self, key: &str, shape: ReadyShape, has_port: bool) -> (Option<Readiness>, ProbeTimes) {
        let none = ProbeTimes::default();
        match shape {
            ReadyShape::Started => (Some(Readiness::Started), none),
            ReadyShape::Tcp(TcpShape { interval, timeout }) => {
                self.needs_port(key, "Tcp", has_port);
                (Some(Readiness::Tcp), self.times(key, interval, timeout))
            }
            ReadyShape::Http(HttpShape { path, status, header, interval, timeout }) => {
                self.needs_port(key, "Http", has_port);
                let readiness = Readiness::Http {
                    path: self.url_path(key, path.unwrap_or_else(|| "/".to_owned())),
                    status: status.map_or_else(StatusSet::default, |status| self.statuses(key, status)),
                    header: header.map(|header| self.header(key, header)),
                };
                (Some(readiness), self.times(key, interval, timeout))
            }
            ReadyShape::Mcp(McpShape { path, host, interval, timeout }) => {
                self.needs_port(key, "Mcp", has_port);
                let host = host.unwrap_or_else(|| "localhost".to_owned());
                let plain =
                    |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
                if host.is_empty() || !host.chars().all(plain) {
                    self.error(&format!("{key}.host"), format!("`{host}` is not a host name or address"));
                }
                let path = self.url_path(key, path.unwrap_or_else(|| "/mcp".to_owned()));
                (Some(Readiness::Mcp { path, host }), self.times(key, interval, timeout))
            }
            ReadyShape::Exec(shape) => {
                let ExecShape { command, args, interval, timeout } = *shape;
                if command.trim().is_empty() {
                    self.error(&format!("{key}.command"), "is empty, expected a program");
                }
                self.no_nul(&format!("{key}.command"), "the command", &command);
                for (index, argument) in args.iter().enumerate() {
                    self.no_nul(&format!("{key}.args"), &format!("argument {}", index + 1), argument);
                }
                (Some(Readiness::Exec { command, args }), self.times(key, interval, timeout))
            }
            ReadyShape::Log(pattern) => match LogPattern::new(&pattern) {
                Ok(pattern) => (Some(Readiness::Log { pattern }), none),
                Err(error) => {
                    self.error(key, format!("`{pattern}` is not a regular expression: {error}"));
                    (None, none)
                }
            },
            ReadyShape::Notify(NotifyShape { fd }) => {
                let fd = self.number(&format!("{key}.fd"), fd, 3, HIGHEST_FD);
                (Some(Readiness::Notify { fd: fd.and_then(|fd| u16::try_from(fd).ok()) }), none)
            }
        }
    }

    fn needs_port(&mut self, key: &str, word: &str, has_port: bool) {
        if !has_port {
            self.error_with_hint(
                key,
                format!("`{word}` needs a `port`"),
                "add the port that the server listens on, as in `port: 8421`".to_owned(),
            );
        }
    }

    fn times(
        &mut self,
        key: &str,
        interval: Option<DurationText>,
        timeout: Option<DurationText>,
    ) -> ProbeTimes {
        ProbeTimes {
            interval: self.positive(&format!("{key}.interval"), interval.as_ref()),
            timeout: self.positive(&format!("{key}.timeout"), timeout.as_ref()),
        }
    }

    fn statuses(&mut self, key: &str, shapes: Vec<StatusShape>) -> StatusSet {
        let key = format!("{key}.status");
        if shapes.is_empty() {
            self.error(&key, "is empty, expected statuses such as 200 or \"200-299\"");
        }
        let mut ranges = Vec::new();
        for shape in shapes {
            let range = match &shape {
                StatusShape::One(status) => u16::try_from(*status).ok().map(|status| status..=status),
                StatusShape::Range(text) => text
                    .split_once('-')
                    .and_then(|(first, last)| Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)),
            };
            let is_status = |range: &RangeInclusive<u16>| {
                !range.is_empty() && STATUSES.contains(range.start()) && STATUSES.contains(range.end())
            };
            match (range.filter(is_status), shape) {
                (Some(range), _) => ranges.push(range),
                (None, StatusShape::One(status)) => {
                    self.error(&key, format!("{status} is not a status, expected a number from 100 to 599"));
                }
                (None, StatusShape::Range(text)) => {
                    let problem =
                        format!("`{text}` is not a range of statuses, expected one such as \"200-299\"");
                    self.error(&key, problem);
                }
            }
        }
        StatusSet::new(ranges)
    }

    /// Checks a header; its value, which may be a secret, appears in no error.
    fn header(&mut self, key: &str, HeaderShape(name, value): HeaderShape) -> ProbeHeader {
        let header = ProbeHeader { name, value };
        if let Some(fault) = header.fault() {
            self.error(&format!("{key}.header"), format!("`{}` {fault}", header.name.escape_debug()));
        }
        header
    }

    /// Checks the path of a probe; anything but printable ASCII would break the request line.
    fn url_path(&mut self, key: &str, path: String) -> String {
        let key = format!("{key}.path");
        if !path.starts_with('/') {
            self.error_with_hint(
                &key,
                format!("`{path}` does not start with `/`"),
                format!("did you mean `/{path}`?"),
            );
        } else if !path.chars().all(|c| c.is_ascii_graphic()) {
            self.error(&key, "contains a character that a URL must encode, such as a space");
        }
        path
    }
}
