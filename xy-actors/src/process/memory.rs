//! Less memory for a program that mostly waits.

use super::sys;

/// Has all threads take memory from one heap, so that none keeps for itself what another could use.
///
/// For a program in which hardly ever two threads allocate at the same time; to be called while there is one. It has an
/// effect with the GNU C library only.
pub fn share_one_heap() {
    sys::share_one_heap();
}

/// Gives back to the system what a start has needed and waiting does not: free memory within the heap, and the code of the
/// program and its libraries, of which whatever is used again is mapped again.
///
/// It takes some milliseconds of a large heap, and allocations of other threads wait meanwhile.
pub fn release_unused() {
    sys::release_free_memory();
    sys::release_program_memory();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What is mapped of this program's code, in KiB.
    fn resident_code() -> u64 {
        let program = std::env::current_exe().expect("known");
        let program = program.to_str().expect("text");
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        let mut lines = maps.lines().skip_while(|line| !(line.ends_with(program) && line.contains(" r-xp ")));
        let resident = lines.find_map(|line| line.strip_prefix("Rss:"));
        let resident = resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        resident.expect("the program has code")
    }

    #[test]
    fn code_that_is_not_used_is_not_mapped_and_works_when_it_is_used_again() {
        let finds =
            || regex::bytes::Regex::new(r"(?i)^[a-z]+(\d{3,5}|x*y?)$").expect("valid").is_match(b"Web123");
        assert!(finds());
        resident_code();
        let before = resident_code();
        release_unused();
        let after = resident_code();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert!(finds());
    }
}
