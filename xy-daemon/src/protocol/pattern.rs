//! Names that stand for several servers: `web-*`, `?ail`, `@tag`.

/// Returns whether a text is a pattern. No server's name can be one: names have none of these characters.
pub fn is_pattern(text: &str) -> bool {
    text.starts_with('@') || text.contains(['*', '?'])
}

/// Returns whether a server is meant: by its own name, by a pattern for names, or by `@` and one of its tags.
///
/// `*` stands for any characters and `?` for one, except `/`, so that `group/*` are the children of a group and `*` are
/// those that have none.
///
/// ```
/// use xy_daemon::protocol::pattern::matches;
///
/// assert!(matches("web-*", "web-1", &[]));
/// assert!(matches("@blue", "web-1", &["blue".to_owned()]));
/// assert!(!matches("*", "group/web", &[]));
/// ```
pub fn matches(pattern: &str, name: &str, tags: &[String]) -> bool {
    match pattern.strip_prefix('@') {
        Some(tag) => tags.iter().any(|own| own == tag),
        None => glob(pattern.as_bytes(), name.as_bytes()),
    }
}

/// Takes time in proportion to both lengths multiplied: only the last `*` is ever gone back to.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, position));
                at += 1;
            }
            Some(b'?') if name[position] != b'/' => {
                at += 1;
                position += 1;
            }
            Some(byte) if *byte == name[position] => {
                at += 1;
                position += 1;
            }
            _ => match star {
                // The star takes one more.
                Some((after, from)) if name[from] != b'/' => {
                    star = Some((after, from + 1));
                    at = after;
                    position = from + 1;
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_characters_of_one_name_and_never_for_a_slash() {
        for (pattern, name, expected) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web-*", "web-1", true),
            ("web-*", "web", false),
            ("*", "web", true),
            ("*", "", true),
            ("*", "group/web", false),
            ("group/*", "group/web", true),
            ("*/web", "group/web", true),
            ("*/*", "group/web", true),
            ("**", "group/web", false),
            ("?eb", "web", true),
            ("?", "/", false),
            ("*a*b*c", "xaxbxbc", true),
            ("*a*b*c", "xaxbxb", false),
            ("", "web", false),
        ] {
            assert_eq!(matches(pattern, name, &[]), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn a_tag_is_matched_whole() {
        let tags = ["blue".to_owned(), "mcp".to_owned()];
        for (pattern, expected) in
            [("@blue", true), ("@mcp", true), ("@blu", false), ("@*", false), ("@", false)]
        {
            assert_eq!(matches(pattern, "web", &tags), expected, "{pattern}");
        }
    }
}
