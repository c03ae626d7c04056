//! When a log file is full and which files move where; pure.

use std::iter;
use std::ops::Range;

use memchr::{memchr, memrchr};
use nix::errno::Errno;

/// One change to the files of a log; index 0 is the current file, higher ones are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Deletes the file of this index.
    Remove(u32),
    /// Renames the file of this index to the next index, replacing what is there.
    Shift(u32),
}

/// Returns the name of the file with this index.
pub(crate) fn file_name(stem: &str, index: u32) -> String {
    match index {
        0 => format!("{stem}.log"),
        _ => format!("{stem}.log.{index}"),
    }
}

/// Returns the name under which the next current file is made.
pub(crate) fn new_name(stem: &str) -> String {
    format!("{stem}.log.new")
}

/// Returns how many bytes of whole records go into a file that has `size` bytes; 0 means it has to be rotated first.
///
/// A record larger than `max_size` gets a file of its own.
pub(crate) fn fitting(records: &[u8], size: u64, max_size: u64) -> usize {
    let room = usize::try_from(max_size.saturating_sub(size)).unwrap_or(usize::MAX);
    if records.len() <= room {
        return records.len();
    }
    match memrchr(b'\n', &records[..room]) {
        Some(end) => end + 1,
        None if size > 0 => 0,
        None => memchr(b'\n', records).map_or(records.len(), |end| end + 1),
    }
}

/// Returns the steps, in order, after which the current file can become the first of the older ones, of which at most
/// `keep - 1` are left then. None of them touches the current file.
///
/// They begin at the old end, so that a crash between two of them loses nothing; the hole it leaves is used by the
/// next rotation. Files beyond `keep`, left from a larger setting, are removed.
///
/// # Errors
///
/// The first error of `exists`: a file that was taken for missing would be overwritten by a younger one.
pub(crate) fn steps<E>(keep: u32, exists: impl Fn(u32) -> Result<bool, E>) -> Result<Vec<Step>, E> {
    let keep = keep.max(1);
    let first_missing = |indices: Range<u32>| {
        for index in indices {
            if !exists(index)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    };
    let surplus = keep..first_missing(keep..u32::MAX)?.unwrap_or(u32::MAX);
    let mut steps: Vec<Step> = surplus.rev().map(Step::Remove).collect();
    if keep > 1 {
        let free = first_missing(1..keep - 1)?.unwrap_or(keep - 1);
        steps.extend((1..free).rev().map(Step::Shift));
    }
    Ok(steps)
}

/// Returns what `look` finds at some indices, newest first, until there are no more files.
///
/// One that is missing is not the last: a rotation may have failed before the current file was moved or after it.
pub(crate) fn existing<T>(
    mut indices: Range<u32>,
    mut look: impl FnMut(u32) -> nix::Result<T>,
) -> impl Iterator<Item = nix::Result<T>> {
    let mut is_after_hole = false;
    iter::from_fn(move || {
        loop {
            match look(indices.next()?) {
                Err(Errno::ENOENT) if !is_after_hole => is_after_hole = true,
                Err(error) => {
                    indices = 0..0;
                    return (error != Errno::ENOENT).then_some(Err(error));
                }
                Ok(found) => {
                    is_after_hole = false;
                    return Some(Ok(found));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the steps on a disk that can be looked at.
    fn steps(keep: u32, exists: impl Fn(u32) -> bool) -> Vec<Step> {
        super::steps(keep, |index| Ok::<_, ()>(exists(index))).unwrap()
    }

    #[test]
    fn records_fill_a_file_up_to_its_size_and_are_never_cut() {
        let records = b"aaaa\nbbbb\ncccc\n";
        let cases = [
            (0, 100, 15),
            (0, 15, 15),
            (0, 14, 10),
            (0, 9, 5),
            (0, 4, 5),
            (1, 4, 0),
            (5, 15, 10),
            (20, 15, 0),
        ];
        for (size, max_size, expected) in cases {
            assert_eq!(fitting(records, size, max_size), expected, "{size} of {max_size}");
        }
    }

    #[test]
    fn files_move_one_up_and_the_oldest_is_replaced() {
        assert_eq!(steps(3, |index| index < 3), [Step::Shift(1)]);
        assert_eq!(steps(3, |index| index < 1), []);
    }

    #[test]
    fn one_kept_file_has_no_older_ones() {
        assert_eq!(steps(1, |index| index < 3), [Step::Remove(2), Step::Remove(1)]);
        assert_eq!(steps(0, |index| index == 0), []);
    }

    #[test]
    fn a_hole_is_filled_before_anything_is_deleted() {
        assert_eq!(steps(5, |index| [0, 1, 3, 4].contains(&index)), [Step::Shift(1)]);
    }

    #[test]
    fn files_of_a_larger_setting_are_removed_from_the_old_end() {
        assert_eq!(steps(2, |index| index < 5), [Step::Remove(4), Step::Remove(3), Step::Remove(2)]);
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_never_taken_for_missing() {
        for (keep, unknown) in [(5, 2), (5, 1), (3, 3), (1, 1)] {
            let exists = |index| if index == unknown { Err(index) } else { Ok(index < 4) };
            assert_eq!(super::steps(keep, exists), Err(unknown), "{unknown} of {keep}");
        }
    }

    #[test]
    fn a_hole_hides_no_older_file_and_two_in_a_row_are_the_end() {
        let existing = |files: &[u32]| -> Vec<u32> {
            let look = |index| if files.contains(&index) { Ok(index) } else { Err(Errno::ENOENT) };
            super::existing(0..10, look).map(Result::unwrap).collect()
        };
        assert_eq!(existing(&[0, 1, 2]), [0, 1, 2]);
        assert_eq!(existing(&[1, 3, 5]), [1, 3, 5]);
        assert_eq!(existing(&[0, 3]), [0]);
        assert_eq!(existing(&[2]), [] as [u32; 0]);
        assert_eq!(existing(&[0, 9, 10]), [0]);
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_ends_the_search_with_the_reason() {
        let look = |index| if index == 2 { Err(Errno::EACCES) } else { Ok(index) };
        let found: Vec<_> = super::existing(0..10, look).collect();
        assert_eq!(found, [Ok(0), Ok(1), Err(Errno::EACCES)]);
    }

    #[test]
    fn names_count_up_with_age() {
        assert_eq!([file_name("web", 0), file_name("web", 2)], ["web.log", "web.log.2"]);
        assert_eq!(new_name("web"), "web.log.new");
    }
}
