//! Half-written and damaged files: whatever an editor or a disk leaves behind is loaded or refused with its place.

use std::fs;

use proptest::prelude::*;

use crate::support::{Directory, fixtures};

/// Loads the bytes as one server file and checks that the outcome can be told to people.
fn loads_or_says_where(bytes: &[u8]) -> Result<(), TestCaseError> {
    let config = Directory::new().write("servers/web.ron", bytes).load();
    prop_assert!(config.rejected.len() <= 1 && (config.rejected.is_empty() != config.servers.is_empty()));
    for error in config.errors() {
        prop_assert!(!error.message.is_empty());
        // Only an empty file has no place to point at.
        let placed = error.line.is_some_and(|line| line > 0) && error.column.is_some_and(|column| column > 0);
        prop_assert!(placed || error.message.starts_with("is empty"), "{error}");
        let lines = bytes.split(|byte| *byte == b'\n').count();
        prop_assert!(error.line.is_none_or(|line| line <= lines), "{error}");
    }
    Ok(())
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures("good").join(name)).expect("fixtures are checked in")
}

#[test]
fn every_truncation_of_a_valid_file_loads_or_says_where() {
    for name in ["smallest.ron", "usual.ron", "every_key.ron", "group.ron"] {
        let bytes = fixture(name);
        for length in 0..bytes.len() {
            if let Err(error) = loads_or_says_where(&bytes[..length]) {
                panic!("{name} cut after {length} bytes: {error}");
            }
        }
    }
}

proptest! {
    #[test]
    fn mutations_of_a_valid_file_load_or_say_where(
        name in prop::sample::select(vec!["smallest.ron", "usual.ron", "every_key.ron", "group.ron"]),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(b"(){}[]\"':,\\/*#rb0.-a\n\0\xff".to_vec())),
            1..6,
        ),
    ) {
        let mut bytes = fixture(name);
        for (index, kind, byte) in edits {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        loads_or_says_where(&bytes)?;
    }

    #[test]
    fn any_text_loads_or_says_where(text in "(Process)?[(]?[\\PC\n]{0,60}") {
        loads_or_says_where(text.as_bytes())?;
    }
}
