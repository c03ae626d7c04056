//! What a hub knows, as plain data: for another program that goes on with the same pipes; pure.
//!
//! What memory holds is not part of it, but for little of it: it stays where it is, and goes along by one descriptor.

use std::time::Duration;

use super::LogSettings;
use super::buffer::{BufferState, Run};
use super::record::Stream;
use super::ring::RingState;

/// The first bytes of an encoded state; the last one is the version of the format.
const MAGIC: &[u8; 8] = b"xy-logs\x02";

/// Those of the version before, which held all lines itself.
const MAGIC_OF_COPIES: &[u8; 8] = b"xy-logs\x01";

/// Everything a hub knows beside its pipes and files, made by [`LogHub::hand_over`](super::LogHub::hand_over).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HubState {
    /// Whether there is memory that stays where it is; its descriptor comes after the pipes.
    pub(super) has_memory: bool,
    pub(super) logs: Vec<LogState>,
}

/// One log: its place in the numbering, what memory holds, what the files lack, and its pipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) name: String,
    pub(super) settings: LogSettings,
    pub(super) buffer: BufferState,
    pub(super) dropped_lines: u64,
    pub(super) complete_from: u64,
    pub(super) last_error: Option<String>,
    /// Lines that the files lack and do not tell of yet.
    pub(super) loss: Option<(u64, String)>,
    pub(super) attachments: Vec<AttachmentState>,
}

/// The pipes of one incarnation that have not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachmentState {
    pub(super) incarnation: u64,
    pub(super) pipes: Vec<PipeState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PipeState {
    pub(super) stream: Stream,
    /// Which of the descriptors handed over it is.
    pub(super) descriptor: u64,
    /// The beginning of a line that is not complete.
    pub(super) carry: Vec<u8>,
}

/// Why an encoded state cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It was written by a version that is not known here.
    #[error("the state of the logs has an unknown format")]
    Format,
    /// It ends early or contradicts itself.
    #[error("the state of the logs is damaged")]
    Damaged,
}

impl HubState {
    /// Returns how many descriptors belong to it.
    pub fn descriptors(&self) -> usize {
        self.pipes().count() + usize::from(self.has_memory)
    }

    fn pipes(&self) -> impl Iterator<Item = &PipeState> {
        self.logs.iter().flat_map(|log| &log.attachments).flat_map(|attachment| &attachment.pipes)
    }

    /// Writes it as bytes, for a file that survives the exchange of the program.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(MAGIC.to_vec());
        writer.number(u64::from(self.has_memory));
        writer.number(self.logs.len() as u64);
        for log in &self.logs {
            let LogSettings { max_size, max_age, keep, buffer } = log.settings;
            writer.bytes(log.name.as_bytes());
            writer.number(max_size);
            writer.option(max_age, |writer, age| {
                writer.number(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            });
            writer.number(u64::from(keep));
            writer.number(buffer as u64);
            writer.number(log.buffer.end);
            writer.number(log.buffer.next);
            writer.ring(&log.buffer.runs);
            writer.ring(&log.buffer.bytes);
            writer.number(log.dropped_lines);
            writer.number(log.complete_from);
            writer.option(log.last_error.as_deref(), |writer, error| writer.bytes(error.as_bytes()));
            writer.option(log.loss.as_ref(), |writer, (lines, error)| {
                writer.number(*lines);
                writer.bytes(error.as_bytes());
            });
            writer.number(log.attachments.len() as u64);
            for attachment in &log.attachments {
                writer.number(attachment.incarnation);
                writer.number(attachment.pipes.len() as u64);
                for pipe in &attachment.pipes {
                    writer.stream(pipe.stream);
                    writer.number(pipe.descriptor);
                    writer.bytes(&pipe.carry);
                }
            }
        }
        writer.0
    }

    /// Reads what [`HubState::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`StateError::Format`] if another version wrote it, [`StateError::Damaged`] if it is not whole or makes no sense.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let (rest, are_copied) = match bytes.split_first_chunk() {
            Some((MAGIC, rest)) => (rest, false),
            Some((MAGIC_OF_COPIES, rest)) => (rest, true),
            _ => return Err(StateError::Format),
        };
        let mut reader = Reader { rest, are_copied };
        let state = reader.hub().ok_or(StateError::Damaged)?;
        if !reader.rest.is_empty() || state.pipes().any(|pipe| pipe.carry.len() > super::MAX_LINE) {
            return Err(StateError::Damaged);
        }
        let mut used: Vec<u64> = state.pipes().map(|pipe| pipe.descriptor).collect();
        used.sort_unstable();
        if !used.iter().copied().eq(0..used.len() as u64)
            || state.logs.iter().any(|log| !log.buffer.is_sound())
        {
            return Err(StateError::Damaged);
        }
        Ok(state)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn stream(&mut self, stream: Stream) {
        self.number(match stream {
            Stream::Out => 1,
            Stream::Err => 2,
            Stream::Xy => 0,
        });
    }

    fn ring(&mut self, ring: &RingState) {
        match *ring {
            RingState::Copied(ref bytes) => {
                self.number(0);
                self.bytes(bytes);
            }
            RingState::Shared { offset, capacity, start, length } => {
                self.number(1);
                [offset, capacity, start, length].into_iter().for_each(|number| self.number(number));
            }
        }
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Whether it is of the version that held all lines itself.
    are_copied: bool,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn stream(&mut self) -> Option<Stream> {
        [Stream::Xy, Stream::Out, Stream::Err].get(usize::try_from(self.number()?).ok()?).copied()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    /// Reads a number of things; a number that is too large ends with the bytes.
    fn many<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut things = Vec::new();
        for _ in 0..count {
            things.push(read(self)?);
        }
        Some(things)
    }

    fn hub(&mut self) -> Option<HubState> {
        let has_memory = !self.are_copied && self.flag()?;
        Some(HubState { has_memory, logs: self.many(Self::log)? })
    }

    fn log(&mut self) -> Option<LogState> {
        let name = self.text()?;
        super::name::check(&name).ok()?;
        let settings = LogSettings {
            max_size: self.number()?,
            max_age: self.option(Self::number)?.map(Duration::from_millis),
            keep: u32::try_from(self.number()?).ok()?,
            buffer: usize::try_from(self.number()?).ok()?,
        };
        Some(LogState {
            name,
            settings,
            buffer: self.buffer()?,
            dropped_lines: self.number()?,
            complete_from: self.number()?,
            last_error: self.option(Self::text)?,
            loss: self.option(|reader| Some((reader.number()?, reader.text()?)))?,
            attachments: self.many(Self::attachment)?,
        })
    }

    fn buffer(&mut self) -> Option<BufferState> {
        let (end, next) = (self.number()?, self.number()?);
        if self.are_copied {
            let runs = self.many(Self::run)?;
            let runs = RingState::Copied(runs.into_iter().flat_map(Run::to_bytes).collect());
            return Some(BufferState { end, next, runs, bytes: RingState::Copied(self.bytes()?) });
        }
        Some(BufferState { end, next, runs: self.ring()?, bytes: self.ring()? })
    }

    fn ring(&mut self) -> Option<RingState> {
        if !self.flag()? {
            return Some(RingState::Copied(self.bytes()?));
        }
        Some(RingState::Shared {
            offset: self.number()?,
            capacity: self.number()?,
            start: self.number()?,
            length: self.number()?,
        })
    }

    fn run(&mut self) -> Option<Run> {
        Some(Run {
            start: self.number()?,
            first: self.number()?,
            unix_ms: self.number()?.cast_signed(),
            stream: self.stream()?,
            partial: self.flag()?,
        })
    }

    fn attachment(&mut self) -> Option<AttachmentState> {
        Some(AttachmentState { incarnation: self.number()?, pipes: self.many(Self::pipe)? })
    }

    fn pipe(&mut self) -> Option<PipeState> {
        Some(PipeState { stream: self.stream()?, descriptor: self.number()?, carry: self.bytes()? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::buffer::Buffer;
    use super::*;

    /// What the first version wrote of [`state`].
    const FIRST: &[u8] = include_bytes!("../../tests/log/hub-state-1.bin");

    /// The same with a log whose lines stay in memory.
    fn with_memory() -> HubState {
        let mut state = state();
        let mut loud = state.logs[1].clone();
        loud.name = "loud".into();
        let ring = |offset, length| RingState::Shared { offset, capacity: 1 << 20, start: 64, length };
        loud.buffer = BufferState { end: 1 << 40, next: 7, runs: ring(0, 96), bytes: ring(1 << 20, 1 << 20) };
        state.logs.push(loud);
        state.has_memory = true;
        state
    }

    fn state() -> HubState {
        let mut buffer = Buffer::new(1 << 20, &Arc::default());
        buffer.push_lines(Stream::Out, -5, b"a\n\xff\0\n", 2);
        buffer.push_part(Stream::Err, 7, b"half");
        let pipe = |stream, descriptor| PipeState { stream, descriptor, carry: b"begin".to_vec() };
        let log = LogState {
            name: "group/web".into(),
            settings: LogSettings { max_age: Some(Duration::from_secs(60)), ..LogSettings::default() },
            buffer: buffer.state(),
            dropped_lines: 3,
            complete_from: 2,
            last_error: Some("disk full".into()),
            loss: Some((3, "disk full".into())),
            attachments: vec![AttachmentState {
                incarnation: 4,
                pipes: vec![pipe(Stream::Out, 1), pipe(Stream::Err, 0)],
            }],
        };
        let idle = LogState {
            name: "idle".into(),
            loss: None,
            last_error: None,
            attachments: vec![],
            ..log.clone()
        };
        HubState { has_memory: false, logs: vec![log, idle] }
    }

    #[test]
    fn a_state_reads_back_as_it_was() {
        assert_eq!(HubState::decode(&state().encode()), Ok(state()));
        assert_eq!(HubState::decode(&with_memory().encode()), Ok(with_memory()));
        assert_eq!(HubState::decode(&HubState::default().encode()), Ok(HubState::default()));
    }

    #[test]
    fn what_the_first_version_wrote_is_understood() {
        assert_eq!(HubState::decode(FIRST), Ok(state()));
    }

    #[test]
    fn a_buffer_that_cannot_be_is_refused() {
        let shared = |offset, capacity, start, length| RingState::Shared { offset, capacity, start, length };
        for (runs, bytes) in [
            (shared(0, 64, 0, 96), shared(0, 64, 0, 64)),
            (shared(0, 96, 96, 32), shared(0, 64, 0, 64)),
            (shared(0, 96, 16, 32), shared(0, 64, 0, 64)),
            (shared(0, 80, 0, 32), shared(0, 64, 0, 64)),
            (shared(0, 96, 0, 48), shared(0, 64, 0, 64)),
            (shared(0, 96, 0, 32), shared(0, 64, 0, 65)),
            (shared(0, 96, 0, 32), shared(0, u64::MAX, 0, 64)),
            (shared(0, 96, 0, 32), shared(0, 200, 0, 150)),
            (RingState::Copied(vec![0; 33]), shared(0, 64, 0, 64)),
        ] {
            let mut damaged = with_memory();
            damaged.logs[2].buffer = BufferState { end: 100, next: 7, runs, bytes };
            assert_eq!(HubState::decode(&damaged.encode()), Err(StateError::Damaged), "{damaged:?}");
        }
    }

    #[test]
    fn the_format_of_a_state_is_fixed() {
        // Another version of this program reads it: a change of the format needs a change of its version.
        let encoded = with_memory().encode();
        let sum = encoded.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        assert_eq!((encoded.len(), sum), (FORMAT_LENGTH, FORMAT_SUM));
    }

    const FORMAT_LENGTH: usize = 761;
    const FORMAT_SUM: u32 = 2_947_874_929;

    #[test]
    fn a_damaged_state_is_refused_and_never_panics() {
        let encoded = with_memory().encode();
        for end in 0..encoded.len() {
            assert!(HubState::decode(&encoded[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(HubState::decode(&[&encoded[..], b"x"].concat()), Err(StateError::Damaged));
        let mut refused = 0;
        for at in 0..encoded.len() {
            for flip in [1, 0x80] {
                let mut damaged = encoded.clone();
                damaged[at] ^= flip;
                refused += usize::from(HubState::decode(&damaged).is_err());
            }
        }
        assert!(refused > encoded.len() / 2, "only {refused} of {}", 2 * encoded.len());
        let mut newer = encoded;
        newer[7] = 3;
        assert_eq!(HubState::decode(&newer), Err(StateError::Format));
    }

    #[test]
    fn a_descriptor_belongs_to_one_pipe() {
        let mut twice = state();
        twice.logs[0].attachments[0].pipes[0].descriptor = 0;
        assert_eq!(HubState::decode(&twice.encode()), Err(StateError::Damaged));
        assert_eq!((state().descriptors(), with_memory().descriptors()), (2, 3));
    }
}
