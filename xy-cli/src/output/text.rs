//! Text from servers made safe to show, and numbers made easy to read.

use std::borrow::Cow;
use std::fmt::Write as _;

use xy_daemon::protocol::method::KilledProcess;

/// Replaces what a terminal would act on: control characters, and those that reorder the text around them.
///
/// A server's output could otherwise move the cursor, change the title or hide what comes after it.
pub(crate) fn neutral(text: &str) -> Cow<'_, str> {
    replace(text, is_unsafe)
}

/// The same for a line of output, in which tabs keep their meaning.
pub(crate) fn neutral_line(text: &str) -> Cow<'_, str> {
    replace(text, |character| character != '\t' && is_unsafe(character))
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replace(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' if is_unsafe('\n') => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' if is_unsafe('\t') => safe.push_str("\\t"),
            character if is_unsafe(character) && character.is_ascii() => {
                // Writing to a string cannot fail.
                _ = write!(safe, "\\x{:02x}", u32::from(character));
            }
            character if is_unsafe(character) => _ = write!(safe, "\\u{{{:x}}}", u32::from(character)),
            character => safe.push(character),
        }
    }
    safe.into()
}

/// Writes a count with its noun: `1 line`, `1,234 lines`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 8);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push(' ');
    text.push_str(noun);
    if number != 1 {
        text.push('s');
    }
    text
}

/// Writes a number of bytes in three digits: `912K`, `48.2M`, `1.3G`.
pub(crate) fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut amount = bytes as f64 / 1024.0;
    let mut units = ["K", "M", "G", "T"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if amount < 999.5 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if amount < 99.95 && unit != "K" { format!("{amount:.1}{unit}") } else { format!("{amount:.0}{unit}") }
}

/// Reads base64 (RFC 4648, padded); `None` if the text is not that.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let unpadded = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(unpadded.len() * 3 / 4);
    for group in unpadded.chunks(4) {
        let mut bits: u32 = 0;
        for &character in group {
            let value = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let missing = 4 - group.len();
        let [_, decoded @ ..] = (bits << (6 * missing)).to_be_bytes();
        bytes.extend_from_slice(&decoded[..3 - missing.min(2)]);
    }
    Some(bytes)
}

/// Names processes: `4242 (node server.js), 4250`.
pub(crate) fn processes(processes: &[KilledProcess]) -> String {
    let one = |process: &KilledProcess| match process.command.trim() {
        "" => process.pid.to_string(),
        command => format!("{} ({})", process.pid, neutral(command)),
    };
    processes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_shown_instead() {
        for (given, shown) in [
            ("plain ünïcode", "plain ünïcode"),
            ("\x1b[2Jgone", "\\x1b[2Jgone"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("\u{7f}", "\\x7f"),
        ] {
            assert_eq!(neutral(given), shown);
        }
        assert_eq!(neutral_line("a\tb\x07"), "a\tb\\x07");
    }

    #[test]
    fn counts_are_grouped_and_agree_with_their_noun() {
        for (number, text) in [
            (0, "0 lines"),
            (1, "1 line"),
            (999, "999 lines"),
            (1234, "1,234 lines"),
            (1_000_000, "1,000,000 lines"),
        ] {
            assert_eq!(count(number, "line"), text);
        }
    }

    #[test]
    fn bytes_have_three_digits() {
        for (number, text) in [
            (0, "0K"),
            (4096, "4K"),
            (1_023 << 10, "1.0M"),
            (48 << 20, "48.0M"),
            (512 << 20, "512M"),
            (3 << 30, "3.0G"),
            (5 << 50, "5120T"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn base64_is_read_as_the_standard_says() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("/+8A", b"\xff\xef\x00"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for wrong in ["Zg", "Zg=a", "Z*==", "===="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }
}
