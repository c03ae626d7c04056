//! Which names a log may have, since a name becomes a path; pure.

/// The longest part of a name between slashes, so that a file name with its endings stays below 255 bytes.
const MAX_PART: usize = 200;

/// The most parts of a name.
const MAX_PARTS: usize = 32;

/// Why a log name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// The name, or a part between two slashes, is empty; this includes absolute paths.
    #[error("a part of it is empty")]
    EmptyPart,
    /// A part begins with a dot; this includes `.` and `..`.
    #[error("a part of it begins with a dot")]
    LeadingDot,
    /// It contains a control character, NUL included.
    #[error("it contains a control character")]
    ControlCharacter,
    /// A part has more than 200 bytes, or there are more than 32 parts.
    #[error("it has more than {MAX_PARTS} parts or one of more than {MAX_PART} bytes")]
    TooLong,
}

/// Checks a log name such as `web` or `group/web`.
pub(crate) fn check(name: &str) -> Result<(), NameFault> {
    if name.chars().any(char::is_control) {
        return Err(NameFault::ControlCharacter);
    }
    if name.split('/').count() > MAX_PARTS || name.split('/').any(|part| part.len() > MAX_PART) {
        return Err(NameFault::TooLong);
    }
    for part in name.split('/') {
        match part.chars().next() {
            None => return Err(NameFault::EmptyPart),
            Some('.') => return Err(NameFault::LeadingDot),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_paths_are_accepted() {
        for name in ["web", "group/web", "a/b/c", "with space", "naïve", "-x", "web.log"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(201);
        let deep = ["x"; 33].join("/");
        let cases = [
            ("", NameFault::EmptyPart),
            ("/", NameFault::EmptyPart),
            ("/etc/passwd", NameFault::EmptyPart),
            ("//web", NameFault::EmptyPart),
            ("web/", NameFault::EmptyPart),
            ("group//web", NameFault::EmptyPart),
            (".", NameFault::LeadingDot),
            ("..", NameFault::LeadingDot),
            ("../web", NameFault::LeadingDot),
            ("group/..", NameFault::LeadingDot),
            ("group/../../web", NameFault::LeadingDot),
            ("group/./web", NameFault::LeadingDot),
            (".ssh", NameFault::LeadingDot),
            ("group/.hidden", NameFault::LeadingDot),
            ("web\0", NameFault::ControlCharacter),
            ("\0", NameFault::ControlCharacter),
            ("web\n", NameFault::ControlCharacter),
            ("web\r/x", NameFault::ControlCharacter),
            ("\u{1b}[2J", NameFault::ControlCharacter),
            ("a\u{7f}", NameFault::ControlCharacter),
            ("a\u{85}b", NameFault::ControlCharacter),
            (&long, NameFault::TooLong),
            (&deep, NameFault::TooLong),
        ];
        for (name, fault) in cases {
            assert_eq!(check(name), Err(fault), "{name:?}");
        }
    }
}
