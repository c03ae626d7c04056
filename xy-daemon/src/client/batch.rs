//! Several questions in one message over a connection of their own, for a program that asks once and needs no runtime.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use interprocess::ConnectWaitMode;
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, ToFsName as _};
use serde::Deserialize;

use super::{CONNECT_TIMEOUT, ClientError};
use crate::paths::check_socket_path;
use crate::protocol::Method;
use crate::protocol::error::RpcError;
use crate::protocol::frame::FrameError;
use crate::protocol::message::{Id, Outgoing, ReplyError};

/// How many bytes are asked for at once.
const READ_SIZE: usize = 64 << 10;

/// The most bytes of the answers to one batch.
const MAX_ANSWERS: usize = 64 << 20;

/// Questions that travel together; the daemon works on them at the same time.
///
/// ```no_run
/// use xy_daemon::client::{Answer, Batch};
/// use xy_daemon::paths::Directories;
/// use xy_daemon::protocol::method::{List, ListParams, ListResult, Usage, UsageParams, UsageResult};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let batch = Batch::default().with::<List>(&ListParams {}).with::<Usage>(&UsageParams {});
/// let answers = batch.ask(&Directories::of_user()?.default_socket())?;
/// let (list, usage): (Answer<ListResult>, Answer<UsageResult>) = answers.read()?;
/// println!("{} of {} servers run", usage.outcome()?.servers.len(), list.outcome()?.servers.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    text: String,
    count: u64,
    patience: Option<Duration>,
}

/// The answers to a batch.
#[derive(Debug, Clone)]
pub struct Answers {
    line: String,
}

/// The answer to one of the questions, in their order.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Answer<T> {
    result: Option<T>,
    error: Option<RpcError>,
}

impl Batch {
    /// Adds a question.
    #[must_use]
    pub fn with<M: Method>(mut self, params: &M::Params) -> Self {
        self.count += 1;
        self.text.push(if self.count == 1 { '[' } else { ',' });
        let request = Outgoing::request(Id::number(self.count), M::NAME, params);
        // Parameters are made of strings, numbers and lists, which always have a JSON form.
        self.text.push_str(&serde_json::to_string(&request).expect("parameters have a JSON form"));
        self
    }

    /// Sets how long the daemon may be silent before its answers are given up.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Asks the daemon that serves the socket at `path`. Blocking, as long as the daemon takes to answer, unless there is a
    /// [`patience`](Self::patience).
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] if nobody serves the socket or the system refuses; the path cannot be a socket's; the
    /// daemon ended before it answered, was silent for too long, or says more than can be taken in.
    pub fn ask(mut self, path: &Path) -> Result<Answers, ClientError> {
        check_socket_path(path)?;
        self.text.push_str(if self.count == 0 { "[]\n" } else { "]\n" });
        let connect = || {
            let name = path.to_fs_name::<GenericFilePath>()?;
            let wait = ConnectWaitMode::Timeout(CONNECT_TIMEOUT);
            let mut stream = ConnectOptions::new().name(name).wait_mode(wait).connect_sync()?;
            stream.set_recv_timeout(self.patience)?;
            stream.write_all(self.text.as_bytes())?;
            Ok(stream)
        };
        let stream =
            connect().map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })?;
        let line = read_line(stream)?;
        let line = String::from_utf8(line)
            .map_err(|_| ClientError::Frame(FrameError::Io(io::ErrorKind::InvalidData.into())))?;
        Ok(Answers { line })
    }
}

/// Reads the line of the answers. The daemon says nothing after it, so that only the end of what has come is looked at.
fn read_line(mut stream: impl io::Read) -> Result<Vec<u8>, ClientError> {
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        if length == line.len() {
            if length >= MAX_ANSWERS {
                return Err(ClientError::Frame(FrameError::TooLong));
            }
            line.resize(length + READ_SIZE, 0);
        }
        length += match stream.read(&mut line[length..]) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::Frame(FrameError::Io(error))),
        };
        if line[length - 1] == b'\n' {
            line.truncate(length - 1);
            return Ok(line);
        }
    }
}

impl Answers {
    /// Reads the answers, as a tuple of [`Answer`]s in the order of the questions; what they hold may borrow from the text.
    ///
    /// # Errors
    ///
    /// [`ClientError::Rpc`] if the daemon refused the batch as a whole, [`ClientError::Protocol`] if the text is something
    /// else.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        let protocol = |error: serde_json::Error| ClientError::Protocol(ReplyError::Json(error));
        if self.line.starts_with('{') {
            let answer: Answer<serde::de::IgnoredAny> = serde_json::from_str(&self.line).map_err(protocol)?;
            answer.outcome()?;
            let problem = "a single answer to a batch".to_owned();
            return Err(ClientError::Protocol(ReplyError::Shape { problem }));
        }
        serde_json::from_str(&self.line).map_err(protocol)
    }
}

impl<T> Answer<T> {
    /// Returns what the daemon said.
    ///
    /// # Errors
    ///
    /// [`ClientError::Rpc`] with the daemon's refusal; [`ClientError::Protocol`] if it said neither.
    pub fn outcome(self) -> Result<T, ClientError> {
        match (self.result, self.error) {
            (Some(result), None) => Ok(result),
            (None, Some(error)) => Err(error.into()),
            _ => {
                let problem = "an answer has either a result or an error".to_owned();
                Err(ClientError::Protocol(ReplyError::Shape { problem }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::protocol::error::ErrorKind;
    use crate::protocol::method::{List, ListParams, ListResult, Usage, UsageParams, UsageResult};

    fn batch() -> Batch {
        Batch::default().with::<List>(&ListParams {}).with::<Usage>(&UsageParams {})
    }

    /// Serves one batch with this text, and returns what was asked and what the client made of it.
    fn served(answer: &'static [u8]) -> (String, Result<Answers, ClientError>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = Vec::new();
            while asked.last() != Some(&b'\n') {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a line");
                asked.extend(byte);
            }
            stream.write_all(answer).expect("it reads");
            String::from_utf8(asked).expect("text")
        });
        let answers = batch().ask(&path);
        (daemon.join().expect("it serves"), answers)
    }

    type Both = (Answer<ListResult>, Answer<UsageResult>);

    #[test]
    fn questions_travel_as_one_batch_and_each_has_its_own_answer() {
        let (asked, answers) = served(
            b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"servers\":[]}},\
              {\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32603,\"message\":\"no\"}}]\n",
        );
        let expected = r#"[{"jsonrpc":"2.0","id":1,"method":"list","params":{}},{"jsonrpc":"2.0","id":2,"method":"usage","params":{}}]"#;
        assert_eq!(asked.trim_end(), expected);
        let answers = answers.expect("answers");
        let (list, usage) = answers.read::<Both>().expect("readable");
        assert_eq!(list.outcome().expect("a list").servers, []);
        let refused = usage.outcome().expect_err("refused");
        assert!(matches!(&refused, ClientError::Rpc(error) if error.kind() == ErrorKind::InternalError));
    }

    #[test]
    fn a_batch_that_is_refused_as_a_whole_is_an_error_of_the_daemon() {
        let (_, answers) = served(
            b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"no batches\"}}\n",
        );
        let error = answers.expect("an answer").read::<Both>().expect_err("refused");
        assert!(matches!(error, ClientError::Rpc(_)), "{error:?}");
    }

    #[test]
    fn what_is_cut_off_is_no_answer_and_nobody_at_all_is_unreachable() {
        assert!(matches!(served(b"[{").1, Err(ClientError::Closed)));
        let directory = tempfile::tempdir().expect("a directory");
        let nobody = batch().ask(&directory.path().join("socket"));
        assert!(matches!(nobody, Err(ClientError::Unreachable { .. })), "{nobody:?}");
    }

    #[test]
    fn an_answer_of_any_length_up_to_the_limit_is_read_whole() {
        for length in [0, 1, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 5 * READ_SIZE] {
            let mut text = vec![b'x'; length];
            text.push(b'\n');
            assert_eq!(read_line(Cursor::new(&text)).expect("a line").len(), length);
        }
        let endless = read_line(io::repeat(b'x'));
        assert!(matches!(endless, Err(ClientError::Frame(FrameError::TooLong))));
    }
}
