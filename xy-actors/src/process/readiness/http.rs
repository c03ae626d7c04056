//! A small HTTP/1.1 client for loopback, bounded in every direction, and the HTTP probe.
//!
//! One request per connection, no redirects, no compression, no TLS. A head is at most 16 KiB and a body, with its
//! framing, at most 64 KiB unless the target says otherwise; time is the caller's to bound.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;

use super::tcp::connect;
use super::{ProbeFailure, ProbeHeader, StatusSet, printable};

/// The longest head, interim answers included, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// The longest body in bytes, framing included, unless [`Target::body_limit`] says otherwise.
const BODY_LIMIT: usize = 64 * 1024;

/// The most header fields of a head.
const HEADER_LIMIT: usize = 100;

/// Where requests go.
#[derive(Debug)]
pub(super) struct Target<'a> {
    addresses: &'a [IpAddr],
    port: u16,
    /// The `Host` header.
    authority: String,
    path: &'a str,
    body_limit: usize,
}

impl<'a> Target<'a> {
    /// Creates a target from a host and a path that [`validate`] accepts.
    pub(super) fn new(addresses: &'a [IpAddr], port: u16, host: &str, path: &'a str) -> Self {
        let authority = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        };
        Self { addresses, port, authority, path, body_limit: BODY_LIMIT }
    }

    /// Sets how much of a body is read, in bytes, framing included.
    pub(super) fn body_limit(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }
}

/// Checks that host and path can stand in a request.
pub(super) fn validate(host: &str, path: &str) -> Result<(), ProbeFailure> {
    let is_host =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    let invalid = match (is_host, is_path) {
        (true, true) => return Ok(()),
        (false, _) => host,
        (true, false) => path,
    };
    Err(ProbeFailure::InvalidTarget { value: invalid.escape_default().to_string() })
}

/// Asks `GET path` and judges the status alone; the body is not waited for, it may be a stream without end.
pub(super) async fn probe(
    target: &Target<'_>,
    statuses: &StatusSet,
    header: Option<&ProbeHeader>,
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    let name = format!("GET {}", target.path);
    let header = header.map(|header| (header.name.as_str(), header.value.as_str()));
    let response = match time::timeout(timeout, send(target, &name, "GET", header.as_slice(), b"")).await {
        Ok(response) => response?,
        Err(_) => return Err(ProbeFailure::Timeout { request: name, after: timeout }),
    };
    if statuses.contains(response.status) {
        return Ok(());
    }
    Err(ProbeFailure::Http { request: name, status: response.status, location: response.location })
}

/// Sends one request and reads the head of its answer. `name` is what the request is called in failures.
pub(super) async fn send(
    target: &Target<'_>,
    name: &str,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response, ProbeFailure> {
    let mut stream = connect(target.addresses, target.port).await?;
    let broken = |source| ProbeFailure::Connection { request: name.to_owned(), source };
    stream.write_all(&encode(target, method, headers, body)).await.map_err(broken)?;

    let mut input = Vec::new();
    let mut interim = 0;
    loop {
        match parse_head(&input) {
            Ok(Some((length, head))) => {
                input.drain(..length);
                if (100..200).contains(&head.status) && head.status != 101 {
                    // An interim answer; the real one follows.
                    interim += length;
                    continue;
                }
                return Ok(Response {
                    status: head.status,
                    location: head.location,
                    session: head.session,
                    is_event_stream: head.is_event_stream,
                    body: Body {
                        stream,
                        input,
                        framing: head.framing,
                        received: 0,
                        limit: target.body_limit,
                        request: name.to_owned(),
                    },
                });
            }
            Ok(None) if interim + input.len() >= HEAD_LIMIT => {
                return Err(malformed(name, "a head of more than 16 KiB"));
            }
            Ok(None) => {}
            Err(problem) => return Err(malformed(name, problem)),
        }
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(match input.is_empty() {
                true => broken(io::ErrorKind::UnexpectedEof.into()),
                false => malformed(name, "half a head"),
            });
        }
    }
}

fn malformed(request: &str, problem: &'static str) -> ProbeFailure {
    ProbeFailure::Protocol { request: request.to_owned(), problem }
}

fn encode(target: &Target<'_>, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nUser-Agent: xy/{}\r\n",
        target.path,
        target.authority,
        env!("CARGO_PKG_VERSION"),
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// The answer to a request, with its body still to come.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Where a redirect points, cut and printable.
    pub(super) location: Option<String>,
    /// The `Mcp-Session-Id`.
    pub(super) session: Option<String>,
    pub(super) is_event_stream: bool,
    pub(super) body: Body,
}

/// The parts of a head that matter here.
#[derive(Debug)]
struct Head {
    status: u16,
    location: Option<String>,
    session: Option<String>,
    is_event_stream: bool,
    framing: Framing,
}

/// Parses a head if it is complete, and returns its length with it.
fn parse_head(input: &[u8]) -> Result<Option<(usize, Head)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields"),
        Err(_) => return Err("something that is not HTTP"),
    };
    let status = parsed.code.ok_or("something that is not HTTP")?;
    let field = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(str::from_utf8(found.value).unwrap_or_default().trim())
    };
    let framing = match (field("transfer-encoding"), field("content-length")) {
        _ if matches!(status, 100..=199 | 204 | 304) => Framing::Length(0),
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked(Chunk::Size),
        (Some(_), _) => return Err("an unknown transfer coding"),
        (None, Some(length)) => Framing::Length(length.parse().map_err(|_| "an invalid content length")?),
        (None, None) => Framing::UntilClose,
    };
    let is_event_stream = field("content-type").is_some_and(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    });
    let location = field("location").filter(|_| (300..400).contains(&status)).map(printable);
    let session = field("mcp-session-id").filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(Some((length, Head { status, location, session, is_event_stream, framing })))
}

/// What [`Body::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some bytes, and more may follow.
    More,
    /// The end of the body.
    End,
    /// The limit: what follows will not be read.
    Cut,
}

/// A body that is read piece by piece, up to a limit.
#[derive(Debug)]
pub(super) struct Body {
    stream: TcpStream,
    /// What has been received and not been decoded.
    input: Vec<u8>,
    framing: Framing,
    received: usize,
    limit: usize,
    request: String,
}

impl Body {
    /// Waits for the next piece and appends it to `output`.
    pub(super) async fn read(&mut self, output: &mut Vec<u8>) -> Result<Piece, ProbeFailure> {
        loop {
            let (before, raw) = (output.len(), self.input.len());
            let ended = self.framing.decode(&mut self.input, output);
            self.received += raw - self.input.len();
            if ended.map_err(|problem| malformed(&self.request, problem))? {
                return Ok(Piece::End);
            }
            if self.received + self.input.len() > self.limit {
                return Ok(Piece::Cut);
            }
            if output.len() > before {
                return Ok(Piece::More);
            }
            let broken = |source| ProbeFailure::Connection { request: self.request.clone(), source };
            if self.stream.read_buf(&mut self.input).await.map_err(broken)? == 0 {
                return match self.framing {
                    Framing::UntilClose => Ok(Piece::End),
                    _ => Err(malformed(&self.request, "half a body")),
                };
            }
        }
    }
}

/// How the end of a body is found.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// By its chunks.
    Chunked(Chunk),
    /// Where the connection ends.
    UntilClose,
}

/// The place in a chunked body.
#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    /// Before the line with a chunk's size.
    Size,
    /// In a chunk with this many bytes to come.
    Data(u64),
    /// Before the line end that closes a chunk.
    End,
    /// After the last chunk. Trailers are not read: the connection is closed instead.
    Last,
}

impl Framing {
    /// Moves what can be decoded from `input` to `output`, and returns whether the body has ended.
    fn decode(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<bool, &'static str> {
        let mut taken = 0;
        let ended = loop {
            let rest = &input[taken..];
            match self {
                Self::UntilClose => {
                    output.extend_from_slice(rest);
                    taken = input.len();
                    break false;
                }
                Self::Length(missing) | Self::Chunked(Chunk::Data(missing)) if *missing > 0 => {
                    let part = rest.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
                    output.extend_from_slice(&rest[..part]);
                    taken += part;
                    // A `usize` always fits.
                    *missing -= part as u64;
                    if *missing > 0 {
                        break false;
                    }
                }
                Self::Length(_) | Self::Chunked(Chunk::Last) => break true,
                Self::Chunked(chunk @ Chunk::Data(_)) => *chunk = Chunk::End,
                Self::Chunked(chunk @ Chunk::End) => match rest {
                    [b'\r', b'\n', ..] => {
                        taken += 2;
                        *chunk = Chunk::Size;
                    }
                    [] | [b'\r'] => break false,
                    _ => return Err("a chunk of the wrong length"),
                },
                Self::Chunked(chunk @ Chunk::Size) => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        taken += length;
                        *chunk = if size == 0 { Chunk::Last } else { Chunk::Data(size) };
                    }
                    Ok(httparse::Status::Partial) => break false,
                    Err(_) => return Err("an invalid chunk size"),
                },
            }
        };
        input.drain(..taken);
        Ok(ended)
    }
}

/// Reads a whole answer that arrives in pieces of `step` bytes; `None` if it is none.
#[cfg(feature = "testkit")]
pub(super) fn read_whole(answer: &[u8], step: usize) -> Option<(bool, Vec<u8>)> {
    let mut pieces = answer.chunks(step);
    let mut input = Vec::new();
    let head = loop {
        match parse_head(&input) {
            Ok(Some((length, head))) => {
                input.drain(..length);
                break head;
            }
            Ok(None) if input.len() >= HEAD_LIMIT => return None,
            Ok(None) => input.extend_from_slice(pieces.next()?),
            Err(_) => return None,
        }
    };
    let is_printable = |text: &String| !text.chars().any(char::is_control);
    assert!(head.location.as_ref().is_none_or(is_printable), "{:?}", head.location);
    let (mut framing, mut body) = (head.framing, Vec::new());
    loop {
        let before = input.len() + body.len();
        let ended = framing.decode(&mut input, &mut body).ok()?;
        assert!(input.len() + body.len() <= before, "something came from nowhere");
        match pieces.next().filter(|_| !ended && body.len() <= BODY_LIMIT) {
            Some(piece) => input.extend_from_slice(piece),
            None => return Some((head.is_event_stream, body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `text` in pieces of `step` bytes.
    fn decode(mut framing: Framing, text: &[u8], step: usize) -> Result<(bool, Vec<u8>), &'static str> {
        let (mut input, mut output, mut ended) = (Vec::new(), Vec::new(), false);
        for piece in text.chunks(step) {
            input.extend_from_slice(piece);
            ended = framing.decode(&mut input, &mut output)?;
        }
        Ok((ended, output))
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut() {
        let text = b"4\r\nwiki\r\n6;name=value\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n";
        for step in 1..=text.len() {
            let (ended, output) = decode(Framing::Chunked(Chunk::Size), text, step).expect("valid chunks");
            assert!(ended, "step {step}");
            assert_eq!(output, b"wikipedia in \r\n\r\nchunks.", "step {step}");
        }
    }

    #[test]
    fn a_chunk_must_be_as_long_as_it_says() {
        let (size, length) = (b"zz\r\n", b"2\r\nabc\r\n");
        assert_eq!(decode(Framing::Chunked(Chunk::Size), size, 1), Err("an invalid chunk size"));
        assert_eq!(decode(Framing::Chunked(Chunk::Size), length, 9), Err("a chunk of the wrong length"));
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        assert_eq!(decode(Framing::Length(3), b"abcdef", 6), Ok((true, b"abc".to_vec())));
        assert_eq!(decode(Framing::Length(3), b"ab", 1), Ok((false, b"ab".to_vec())));
        assert_eq!(decode(Framing::UntilClose, b"abc", 1), Ok((false, b"abc".to_vec())));
    }

    #[test]
    fn a_target_that_could_smuggle_a_header_is_refused() {
        for (host, path) in [
            ("localhost", "mcp"),
            ("localhost", "/a b"),
            ("localhost", "/\r\nX: y"),
            ("", "/"),
            ("a@b", "/"),
            ("a\n", "/"),
        ] {
            let failure = validate(host, path).expect_err("an invalid target");
            assert!(matches!(failure, ProbeFailure::InvalidTarget { .. }), "{host:?} {path:?}");
        }
        validate("::1", "/mcp?a=b").expect("a target");
        assert_eq!(Target::new(&[], 1, "::1", "/").authority, "[::1]:1");
    }
}
