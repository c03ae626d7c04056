//! Cuts a stream of raw bytes into bounded lines; pure, and blind to what the bytes mean.

use memchr::{memchr, memrchr};

/// The longest line in bytes; a longer one is cut into pieces of this size.
pub const MAX_LINE: usize = 64 << 10;

/// Above this capacity an emptied carry-over is freed, so that one long line does not cost an idle child its memory.
const KEPT_CAPACITY: usize = 4 << 10;

/// What comes out of a [`LineCutter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// One or more whole lines, each with its newline and together at most `MAX_LINE + 1` bytes.
    ///
    /// They are not cut apart here: whoever only copies them does so at once.
    Lines(&'a [u8]),
    /// A piece that no newline followed: the rest of its line is in the next piece.
    Part(&'a [u8]),
}

/// One stream's carry-over between two reads.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    carry: Vec<u8>,
}

impl LineCutter {
    /// Creates a cutter that goes on within a line.
    pub(crate) fn within(carry: Vec<u8>) -> Self {
        Self { carry }
    }

    /// Returns the beginning of the line that is not complete, at most [`MAX_LINE`] bytes.
    pub(crate) fn carry(&self) -> &[u8] {
        &self.carry
    }

    /// Takes the next bytes and hands every piece that is complete to `emit`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        if !self.carry.is_empty() {
            let room = MAX_LINE - self.carry.len();
            match memchr(b'\n', &rest[..rest.len().min(room + 1)]) {
                Some(end) => {
                    self.carry.extend_from_slice(&rest[..=end]);
                    emit(Piece::Lines(&self.carry));
                    rest = &rest[end + 1..];
                }
                None if rest.len() > room => {
                    self.carry.extend_from_slice(&rest[..room]);
                    emit(Piece::Part(&self.carry));
                    rest = &rest[room..];
                }
                None => return self.carry.extend_from_slice(rest),
            }
            self.clear();
        }
        loop {
            // No line in a window of this size can be too long.
            match memrchr(b'\n', &rest[..rest.len().min(MAX_LINE + 1)]) {
                Some(end) => {
                    emit(Piece::Lines(&rest[..=end]));
                    rest = &rest[end + 1..];
                }
                None if rest.len() > MAX_LINE => {
                    emit(Piece::Part(&rest[..MAX_LINE]));
                    rest = &rest[MAX_LINE..];
                }
                None => return self.carry.extend_from_slice(rest),
            }
        }
    }

    /// Ends the stream: what is left, a last line without a newline, is handed to `emit`.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Piece<'_>)) {
        if !self.carry.is_empty() {
            emit(Piece::Part(&self.carry));
            self.carry = Vec::new();
        }
    }

    fn clear(&mut self) {
        if self.carry.capacity() > KEPT_CAPACITY {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
        let mut cutter = LineCutter::default();
        let mut pieces = Vec::new();
        let mut emit = |piece: Piece<'_>| match piece {
            Piece::Lines(lines) => {
                assert!(lines.len() <= MAX_LINE + 1);
                let lines = lines.strip_suffix(b"\n").expect("lines are whole");
                pieces.extend(lines.split(|byte| *byte == b'\n').map(|line| (line.to_vec(), false)));
            }
            Piece::Part(part) => pieces.push((part.to_vec(), true)),
        };
        for chunk in chunks {
            cutter.push(chunk, &mut emit);
            assert!(cutter.carry.len() <= MAX_LINE);
        }
        cutter.finish(emit);
        pieces
    }

    #[test]
    fn control_bytes_and_invalid_utf_8_pass_unchanged() {
        let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        let mut input = every.clone();
        input.push(b'\n');
        assert_eq!(cut([&input[..]]), [(every, false)]);
    }

    #[test]
    fn the_last_line_without_a_newline_is_kept_and_flagged() {
        let expected = [(b"one".to_vec(), false), (vec![], false), (b"two".to_vec(), true)];
        assert_eq!(cut([&b"one\n\ntw"[..], b"o"]), expected);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole_and_one_byte_more_is_cut() {
        let mut input = vec![b'x'; MAX_LINE];
        input.push(b'\n');
        assert_eq!(cut([&input[..]]), [(vec![b'x'; MAX_LINE], false)]);
        input.insert(0, b'x');
        assert_eq!(cut([&input[..]]), [(vec![b'x'; MAX_LINE], true), (b"x".to_vec(), false)]);
    }

    #[test]
    fn an_endless_line_is_cut_with_bounded_memory() {
        let chunk = vec![0u8; 60_000];
        let mut cutter = LineCutter::default();
        let mut total = 0;
        for _ in 0..2_000 {
            cutter.push(&chunk, |piece| {
                assert!(matches!(piece, Piece::Part(part) if part.len() == MAX_LINE));
                total += MAX_LINE;
            });
            assert!(cutter.carry.capacity() <= 2 * MAX_LINE);
        }
        assert_eq!(total + cutter.carry.len(), 2_000 * chunk.len());
    }

    #[test]
    fn a_long_line_does_not_keep_its_memory() {
        let mut cutter = LineCutter::default();
        cutter.push(&vec![b'x'; MAX_LINE - 1], |_| panic!("nothing is complete yet"));
        cutter.push(b"\n", |_| {});
        assert_eq!(cutter.carry.capacity(), 0);
    }

    proptest! {
        #[test]
        fn pieces_joined_are_the_input_however_it_is_chunked(
            lines in prop::collection::vec((0usize..200_000, any::<u8>()), 0..6),
            tail in 0usize..70_000,
            chunk in 1usize..150_000,
        ) {
            let mut input = Vec::new();
            for (length, byte) in lines {
                input.extend(std::iter::repeat_n(if byte == b'\n' { 0 } else { byte }, length));
                input.push(b'\n');
            }
            input.extend(std::iter::repeat_n(b't', tail));
            let mut joined = Vec::new();
            for (bytes, partial) in cut(input.chunks(chunk)) {
                prop_assert!(bytes.len() <= MAX_LINE);
                joined.extend(bytes);
                if !partial {
                    joined.push(b'\n');
                }
            }
            prop_assert!(joined == input);
        }
    }
}
