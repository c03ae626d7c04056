//! Every reader of foreign bytes, over the inputs that fuzzing has found and over mutations of them: what a fuzzer runs for
//! hours with a nightly compiler, for seconds and with the same outcome each time.
#![cfg(feature = "testkit")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use xy_daemon::readers::{READERS, Reader};

/// Mutated inputs per reader, unless its time is over before.
const MUTATIONS: usize = 20_000;

/// The time for one reader.
const LIMIT: Duration = Duration::from_secs(4);

/// Pieces that mean something to one reader or another.
const WORDS: [&[u8]; 14] = [
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\"",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"18446744073709551616",
    b"-1",
    b"..",
    b"%00",
    b"\x1b[2J",
];

/// A sequence of numbers that is the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit.max(1)
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

fn mutate(inputs: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = inputs[numbers.below(inputs.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(16)).min(bytes.len());
        let piece = match numbers.below(5) {
            0 => Vec::new(),
            1 => vec![numbers.below(256).to_le_bytes()[0]],
            2 => WORDS[numbers.below(WORDS.len())].to_vec(),
            3 => bytes[at..end].repeat(2),
            _ => {
                let other = &inputs[numbers.below(inputs.len())];
                let from = numbers.below(other.len());
                other[from..(from + numbers.below(64)).min(other.len())].to_vec()
            }
        };
        bytes.splice(at..end, piece);
    }
    bytes
}

fn hold(name: &str) {
    let (_, read): Reader = *READERS.iter().find(|(known, _)| *known == name).expect("a reader");
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "there is no corpus of `{name}`");
    inputs.iter().for_each(|input| read(input));
    let (mut numbers, began) = (Numbers(0x9e37_79b9_7f4a_7c15), Instant::now());
    for _ in (0..MUTATIONS).take_while(|_| began.elapsed() < LIMIT) {
        let input = mutate(&inputs, &mut numbers);
        if let Err(panic) = std::panic::catch_unwind(|| read(&input)) {
            eprintln!("{name} broke its promise over: {}", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_reader_has_a_corpus_a_target_and_a_test_here() {
    let here = include_str!("main.rs");
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, _) in READERS {
        assert!(here.contains(&format!("hold(\"{name}\")")), "{name}");
        let target = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).expect(name);
        assert!(target.contains(&format!("readers::{name}(bytes)")), "{target}");
    }
    let targets = fs::read_dir(fuzz.join("targets")).expect("targets").count();
    assert_eq!(targets, READERS.len());
}

#[test]
fn lines_are_the_same_in_whatever_pieces_they_come() {
    hold("line");
}

#[test]
fn every_answer_of_the_socket_is_json_rpc_whatever_was_asked() {
    hold("rpc");
}

#[test]
fn http_answers_nothing_without_the_token_and_never_by_a_failure_of_its_own() {
    hold("http");
}

#[test]
fn targets_heads_ids_and_announcements_are_read_or_refused() {
    hold("word");
}

#[test]
fn a_server_file_is_read_or_refused_with_its_place() {
    hold("server_file");
}

#[test]
fn the_settings_file_is_read_or_refused_with_its_place() {
    hold("settings_file");
}

#[test]
fn the_answer_to_a_probe_is_judged_whatever_it_is() {
    hold("probe_answer");
}

#[test]
fn a_notification_never_brings_control_characters() {
    hold("notification");
}

#[test]
fn a_ledger_says_the_same_once_it_is_written_anew() {
    hold("ledger");
}

#[test]
fn a_history_says_the_same_once_it_is_written_anew() {
    hold("history");
}

#[test]
fn a_journal_says_the_same_once_it_is_written_anew() {
    hold("journal");
}

#[test]
fn an_intent_says_the_same_once_it_is_written_anew() {
    hold("intent");
}

#[test]
fn a_handed_over_state_says_the_same_once_it_is_written_anew() {
    hold("handoff");
}
