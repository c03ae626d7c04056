//! `xyctl daemon logs`: what a daemon in the background says about itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::found::Place;
use crate::args::DaemonLogsArgs;
use crate::error::{CommandError, LifecycleError, exit_code};
use crate::output::reader_gone;
use crate::output::text::neutral;
use crate::session::Session;

/// The pause between two looks at a file that may have grown.
const PACE: Duration = Duration::from_millis(200);

/// How much of the end of a file is searched for its last lines.
const TAIL: u64 = 1 << 20;

/// Runs the command.
pub(super) async fn run(args: &DaemonLogsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let path = Place::of(session)?.directories.daemon_log();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LifecycleError::NoLog { path: path.clone() },
        _ => LifecycleError::File { path: path.clone(), source },
    };
    let mut file = File::open(&path).map_err(failed)?;
    for line in tail(&mut file, args.lines, 0).map_err(failed)? {
        write(&line, session)?;
    }
    let mut unfinished = String::new();
    if !args.follow {
        return Ok(exit_code::SUCCESS);
    }
    loop {
        session.output.flush()?;
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            () = reader_gone() => return Ok(exit_code::SUCCESS),
        }
        let mut more = Vec::new();
        // The daemon puts aside what has grown too large, and goes on at the beginning.
        if file.metadata().map_err(failed)?.len() < file.stream_position().map_err(failed)? {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
        }
        file.read_to_end(&mut more).map_err(failed)?;
        unfinished.push_str(&String::from_utf8_lossy(&more));
        while let Some(end) = unfinished.find('\n') {
            let line: String = unfinished.drain(..=end).collect();
            write(line.trim_end(), session)?;
        }
    }
}

fn write(line: &str, session: &mut Session<'_>) -> Result<(), CommandError> {
    if session.output.is_json() {
        return session.output.json(&json!({ "line": line }));
    }
    session.output.line(neutral(line).as_ref())
}

/// Returns the last lines that stand behind an offset.
pub(super) fn last_lines(path: &Path, lines: usize, from: u64) -> io::Result<Vec<String>> {
    tail(&mut File::open(path)?, lines, from)
}

fn tail(file: &mut File, lines: usize, from: u64) -> io::Result<Vec<String>> {
    let size = file.metadata()?.len();
    let begin = size.saturating_sub(TAIL).max(from.min(size));
    file.seek(SeekFrom::Start(begin))?;
    let mut reader = BufReader::new(file);
    if begin > from {
        // The first line is cut.
        reader.read_until(b'\n', &mut Vec::new())?;
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_and_stand_behind_the_offset() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        std::fs::write(&path, "one\ntwo\nthree\nfo").expect("written");
        assert_eq!(last_lines(&path, 2, 0).expect("read"), ["three", "fo"]);
        assert_eq!(last_lines(&path, 9, 4).expect("read"), ["two", "three", "fo"]);
        assert_eq!(last_lines(&path, 9, 99).expect("read"), [""; 0]);
        std::fs::write(&path, format!("{}\nlast\n", "x".repeat(2 << 20))).expect("written");
        assert_eq!(last_lines(&path, 9, 0).expect("read"), ["last"]);
    }
}
