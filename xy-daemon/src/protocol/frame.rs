//! One message per line, bounded in length and in time.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// The most bytes of one line, without its line feed.
pub const MAX_LINE: usize = 1 << 20;

/// The longest time from the first byte of a line to its line feed, where a limit applies.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes are asked for at once.
const READ_SIZE: usize = 16 << 10;

/// Why no more lines can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A line is too long, so its end is not looked for.
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The rest of a line did not come.
    #[error("the line was not completed within {} s", LINE_TIMEOUT.as_secs())]
    Incomplete,
    /// The connection failed.
    #[error("reading from the connection failed")]
    Io(#[source] io::Error),
}

/// Reads lines from a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    /// Bytes read; those before `start` are returned already.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes before this index are known to hold no line feed, or are returned already.
    searched: usize,
    timeout: Option<Duration>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads lines that have to be completed within [`LINE_TIMEOUT`].
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::new(), start: 0, searched: 0, timeout: Some(LINE_TIMEOUT), ended: false }
    }

    /// Reads lines that may take any time.
    pub fn patient(inner: R) -> Self {
        Self { timeout: None, ..Self::new(inner) }
    }

    /// Returns the next line without its line feed and a carriage return before it; `None` at the end.
    ///
    /// Empty lines are skipped. What stands behind the last line feed when the stream ends is a line as well: a message
    /// that was cut off is no JSON, so that it cannot be mistaken for a whole one.
    ///
    /// # Errors
    ///
    /// No line can be read any more: one is too long or was not completed in time, or the stream failed.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost when the future is dropped; the time that a half-sent line has begins anew.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let mut deadline = None;
        loop {
            if let Some(line) = self.take_line()? {
                deadline = None;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.ended {
                let mut rest = self.buffer.split_off(self.start);
                self.searched = self.start;
                strip_carriage_return(&mut rest);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            self.discard_returned();
            if self.buffer.is_empty() {
                deadline = None;
            } else if deadline.is_none() {
                deadline = self.timeout.map(|timeout| Instant::now() + timeout);
            }
            let read = read_into(&mut self.inner, &mut self.buffer);
            let count = match deadline {
                Some(deadline) => timeout_at(deadline, read).await.map_err(|_| FrameError::Incomplete)?,
                None => read.await,
            };
            self.ended = count.map_err(FrameError::Io)? == 0;
        }
    }

    /// Returns the first line in the buffer.
    fn take_line(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = found.map_or(self.buffer.len(), |at| self.searched + at);
        if end - self.start > MAX_LINE {
            return Err(FrameError::TooLong);
        }
        if found.is_none() {
            self.searched = end;
            return Ok(None);
        }
        let mut line = self.buffer[self.start..end].to_vec();
        self.start = end + 1;
        self.searched = self.start;
        strip_carriage_return(&mut line);
        Ok(Some(line))
    }

    /// Moves what is left to the front, once per read and not once per line.
    fn discard_returned(&mut self) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            // An idle connection needs no memory for lines.
            self.buffer = Vec::new();
        }
    }
}

/// Appends what there is to read and returns how much that was. While there is nothing, no room for it is taken either.
async fn read_into(inner: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        let mut room = [MaybeUninit::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *inner).poll_read(context, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

fn strip_carriage_return(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = FrameReader::new(bytes);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.expect("readable") {
            lines.push(String::from_utf8(line).expect("text"));
        }
        lines
    }

    #[tokio::test]
    async fn a_line_ends_with_a_line_feed_or_with_the_stream() {
        assert_eq!(lines(b"a\nbc\n").await, ["a", "bc"]);
        assert_eq!(lines(b"a\r\n\r\n\nbc").await, ["a", "bc"]);
        assert_eq!(lines(b"").await, [""; 0]);
    }

    #[tokio::test]
    async fn lines_across_reads_of_any_size_are_whole() {
        let text: Vec<String> =
            (0..3000).map(|number| format!("{number}-{}", "x".repeat(number % 97))).collect();
        let bytes = text.join("\n").into_bytes();
        for size in [1, 7, 64, READ_SIZE, 1 << 20] {
            let (mut near, far) = tokio::io::duplex(size);
            let mut reader = FrameReader::new(far);
            let write = async {
                near.write_all(&bytes).await.expect("a reader");
                drop(near);
            };
            let read = async {
                for expected in &text {
                    let line = reader.next().await.expect("readable").expect("a line");
                    assert_eq!(String::from_utf8_lossy(&line), *expected);
                }
                assert_eq!(reader.next().await.expect("readable"), None);
            };
            tokio::join!(write, read);
        }
    }

    #[tokio::test]
    async fn the_longest_line_is_read_and_one_byte_more_is_refused() {
        let mut text = vec![b'x'; MAX_LINE];
        text.push(b'\n');
        assert_eq!(lines(&text).await[0].len(), MAX_LINE);
        text.insert(0, b'x');
        assert!(matches!(FrameReader::new(&text[..]).next().await, Err(FrameError::TooLong)));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused_before_it_is_read_whole() {
        let text = vec![b'x'; 10 << 20];
        let mut reader = FrameReader::new(&text[..]);
        assert!(matches!(reader.next().await, Err(FrameError::TooLong)));
        assert!(reader.buffer.capacity() < 4 << 20, "{}", reader.buffer.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_sent_line_has_ten_seconds_and_an_idle_connection_has_any_time() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far);
        let idle = tokio::time::timeout(Duration::from_secs(3600), reader.next()).await;
        assert!(idle.is_err(), "an idle connection stays");
        near.write_all(b"{\"half").await.expect("room");
        let started = Instant::now();
        assert!(matches!(reader.next().await, Err(FrameError::Incomplete)));
        assert_eq!(started.elapsed(), LINE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_in_do_not_extend_the_time() {
        let (mut near, far) = tokio::io::duplex(64);
        let trickle = async {
            while near.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let mut reader = FrameReader::new(far);
        let read = async move { reader.next().await };
        let (read, ()) = tokio::join!(read, trickle);
        assert!(matches!(read, Err(FrameError::Incomplete)));
    }

    #[tokio::test]
    async fn a_dropped_read_loses_no_byte() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far);
        near.write_all(b"ab").await.expect("room");
        assert!(tokio::time::timeout(Duration::from_millis(1), reader.next()).await.is_err());
        near.write_all(b"cd\n").await.expect("room");
        assert_eq!(reader.next().await.expect("readable").as_deref(), Some(&b"abcd"[..]));
    }
}
