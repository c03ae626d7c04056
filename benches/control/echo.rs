//! The limit of a round trip on this machine: a program that answers each line with one of a given length, and nothing else.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::daemon::Line;

/// A running program; it ends when the value is dropped.
pub(crate) struct Echo {
    child: Child,
    line: Line,
    _directory: TempDir,
}

impl Echo {
    pub(crate) fn start(length: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["echo", path.to_str().expect("text"), &length.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is this program");
        // It says so when it listens.
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        said.read_line(&mut String::new()).expect("it listens");
        let line = Line::connect(&path).expect("it listens");
        Self { child, line, _directory: directory }
    }

    pub(crate) fn line(&mut self) -> &mut Line {
        &mut self.line
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers the lines of one client.
pub(crate) fn be_echo(path: &str, length: usize) {
    let listener = UnixListener::bind(Path::new(path)).expect("bound");
    println!("listening");
    let (stream, _) = listener.accept().expect("a client");
    let mut answer = vec![b'x'; length];
    answer[length - 1] = b'\n';
    let mut reader = BufReader::new(stream.try_clone().expect("a duplicate"));
    let (mut writer, mut request) = (stream, Vec::new());
    while reader.read_until(b'\n', &mut request).expect("readable") > 0 {
        request.clear();
        writer.write_all(&answer).expect("it reads");
    }
}
