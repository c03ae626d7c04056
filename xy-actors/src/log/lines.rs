//! Cuts a stream of raw bytes into bounded lines; pure, and blind to what the bytes mean.

use memchr::memchr;

/// The longest line in bytes; a longer one is cut into pieces of this size.
pub const MAX_LINE: usize = 64 << 10;

/// Above this capacity an emptied carry-over is freed, so that one long line does not cost an idle child its memory.
const KEPT_CAPACITY: usize = 4 << 10;

/// One stream's carry-over between two reads.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    carry: Vec<u8>,
}

impl LineCutter {
    /// Takes the next bytes and hands every piece that is complete to `emit`.
    ///
    /// The flag is `true` for a piece that no newline followed: the rest of its line is in the next piece.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let tail = self.absorb(&bytes[..end], &mut emit);
            if self.carry.is_empty() {
                emit(tail, false);
            } else {
                self.carry.extend_from_slice(tail);
                emit(&self.carry, false);
                self.clear();
            }
            bytes = &bytes[end + 1..];
        }
        let tail = self.absorb(bytes, &mut emit);
        self.carry.extend_from_slice(tail);
    }

    /// Ends the stream: what is left, a last line without a newline, is handed to `emit` as a partial piece.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.carry.is_empty() {
            emit(&self.carry, true);
            self.carry = Vec::new();
        }
    }

    /// Emits full-size pieces until the carry-over and what is returned fit into one piece together.
    fn absorb<'a>(&mut self, mut line: &'a [u8], emit: &mut impl FnMut(&[u8], bool)) -> &'a [u8] {
        if !self.carry.is_empty() && self.carry.len() + line.len() > MAX_LINE {
            let (head, rest) = line.split_at(MAX_LINE - self.carry.len());
            self.carry.extend_from_slice(head);
            emit(&self.carry, true);
            self.clear();
            line = rest;
        }
        while line.len() > MAX_LINE {
            let (head, rest) = line.split_at(MAX_LINE);
            emit(head, true);
            line = rest;
        }
        line
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
        for chunk in chunks {
            cutter.push(chunk, |bytes, partial| pieces.push((bytes.to_vec(), partial)));
            assert!(cutter.carry.len() <= MAX_LINE);
        }
        cutter.finish(|bytes, partial| pieces.push((bytes.to_vec(), partial)));
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
            cutter.push(&chunk, |bytes, partial| {
                assert!(partial && bytes.len() == MAX_LINE);
                total += bytes.len();
            });
            assert!(cutter.carry.capacity() <= 2 * MAX_LINE);
        }
        assert_eq!(total + cutter.carry.len(), 2_000 * chunk.len());
    }

    #[test]
    fn a_long_line_does_not_keep_its_memory() {
        let mut cutter = LineCutter::default();
        cutter.push(&vec![b'x'; MAX_LINE - 1], |_, _| panic!("nothing is complete yet"));
        cutter.push(b"\n", |_, _| {});
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
