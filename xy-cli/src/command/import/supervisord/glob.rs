//! The files that a pattern such as `conf.d/*.conf` names.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the files that match, from `start` on unless the pattern is a whole path, in the order of their names.
pub(super) fn files(start: &Path, pattern: &str, most: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in start.join(pattern).components() {
        let Component::Normal(name) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        let name = name.to_string_lossy();
        found = if name.contains(['*', '?', '[']) {
            let all = found.iter().flat_map(|directory| {
                let names = entries(directory).into_iter().filter(|entry| matches(&name, entry));
                names.map(|entry| directory.join(entry)).collect::<Vec<_>>()
            });
            all.take(most).collect()
        } else {
            found.into_iter().map(|path| path.join(&*name)).collect()
        };
    }
    found.retain(|path| path.is_file());
    found
}

/// Returns the names in a directory, in their order; none if it cannot be read.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Returns whether a name matches a pattern of `*`, `?` and `[..]`; a leading dot has to be written.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    rest_matches(&pattern, &name)
}

fn rest_matches(pattern: &[char], name: &[char]) -> bool {
    // Where the last `*` stands, and how much of the name it has taken: one such place is enough to go back to.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('[') => {
                if let Some((is_in, end)) = class(&pattern[p..], name[n])
                    && is_in
                {
                    p += end;
                    n += 1;
                    continue;
                }
            }
            Some('?') => {
                p += 1;
                n += 1;
                continue;
            }
            Some(c) if *c == name[n] => {
                p += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        match star {
            Some((at, taken)) => {
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Returns whether a character is in the class at the beginning of a pattern, and how long that is.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let is_not = pattern.get(1) == Some(&'!');
    let first = if is_not { 2 } else { 1 };
    let end = pattern.iter().skip(first + 1).position(|c| *c == ']')? + first + 1;
    let members = &pattern[first..end];
    let mut is_in = false;
    let mut at = 0;
    while at < members.len() {
        if members.get(at + 1) == Some(&'-') && at + 2 < members.len() {
            is_in |= (members[at]..=members[at + 2]).contains(&c);
            at += 3;
        } else {
            is_in |= members[at] == c;
            at += 1;
        }
    }
    Some((is_in != is_not, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".a.conf", false),
            (".*", ".a", true),
            ("a*b*c", "axxbxbyc", true),
            ("a*b*c", "axxbxby", false),
            ("?[0-9][!x]", "a1y", true),
            ("?[0-9][!x]", "a1x", false),
            ("[ab]", "c", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_also_through_directories_that_match() {
        let directory = tempfile::tempdir().expect("a directory");
        for file in ["b/x.conf", "a/x.conf", "a/y.txt", "c.conf"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let found = |pattern: &str| -> Vec<PathBuf> {
            let files = files(directory.path(), pattern, 10).into_iter();
            files.map(|file| file.strip_prefix(directory.path()).expect("in it").to_owned()).collect()
        };
        assert_eq!(found("*/*.conf"), [PathBuf::from("a/x.conf"), PathBuf::from("b/x.conf")]);
        assert_eq!(found("c.conf"), [PathBuf::from("c.conf")]);
        assert_eq!(found("*"), [PathBuf::from("c.conf")]);
        assert_eq!(found("d.conf"), [] as [PathBuf; 0]);
        assert_eq!(
            files(Path::new("/nowhere"), &directory.path().join("c.*").display().to_string(), 9).len(),
            1
        );
    }
}
