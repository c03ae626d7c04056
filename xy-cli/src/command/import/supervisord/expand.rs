//! `%(name)s` in values: what supervisord fills in, known here where the file is read.

use std::path::{Path, PathBuf};

use super::super::Import;

/// Fills in values for one process of one program, and remembers what it met.
#[derive(Debug)]
pub(super) struct Expander<'a> {
    program: &'a str,
    group: &'a str,
    here: PathBuf,
    /// The number of the process and how many there are.
    process: Option<(u32, u32)>,
    uses_number: bool,
    filled: Vec<String>,
    unset: Vec<String>,
    unknown: Vec<String>,
}

impl<'a> Expander<'a> {
    pub(super) fn new(program: &'a str, here: &Path) -> Self {
        Self {
            program,
            group: program,
            here: here.to_owned(),
            process: None,
            uses_number: false,
            filled: Vec::new(),
            unset: Vec::new(),
            unknown: Vec::new(),
        }
    }

    pub(super) fn in_group(self, group: Option<&'a str>) -> Self {
        Self { group: group.unwrap_or(self.program), ..self }
    }

    pub(super) fn of_process(self, number: u32, count: u32) -> Self {
        Self { process: Some((number, count)), ..self }
    }

    /// Returns whether anything depended on the number of the process.
    pub(super) fn is_numbered(&self) -> bool {
        self.uses_number
    }

    /// Notes what was filled in, and what could not be.
    pub(super) fn tell(&mut self, entry: &str, import: &mut Import) {
        for (names, what) in [
            (&mut self.filled, "filled in with what it is now; import again when that changes"),
            (&mut self.unset, "not set here; set it and import again, or write the value into the file"),
            (&mut self.unknown, "passed as it is written"),
        ] {
            names.sort();
            names.dedup();
            if !names.is_empty() {
                import.left(entry, format!("{}: {what}", names.join(", ")));
            }
            names.clear();
        }
    }

    /// Fills in `%(name)s`, `%(name)d` with a width, and `%%`.
    pub(super) fn expand(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            if let Some(after) = rest.strip_prefix("%%") {
                out.push('%');
                rest = after;
                continue;
            }
            let Some((whole, name, format)) = placeholder(rest) else {
                out.push('%');
                rest = &rest[1..];
                continue;
            };
            match self.value(name, whole) {
                Some(value) => out.push_str(&padded(&value, format)),
                None => out.push_str(whole),
            }
            rest = &rest[whole.len()..];
        }
        out.push_str(rest);
        out
    }

    fn value(&mut self, name: &str, whole: &str) -> Option<String> {
        match (name, self.process) {
            ("here", _) => Some(self.here.display().to_string()),
            ("program_name", _) => Some(self.program.to_owned()),
            ("group_name", _) => Some(self.group.to_owned()),
            ("process_num", Some((number, _))) => {
                self.uses_number = true;
                Some(number.to_string())
            }
            ("numprocs", Some((_, count))) => Some(count.to_string()),
            _ => {
                let Some(variable) = name.strip_prefix("ENV_") else {
                    self.unknown.push(whole.to_owned());
                    return None;
                };
                match std::env::var(variable) {
                    Ok(value) => {
                        self.filled.push(whole.to_owned());
                        Some(value)
                    }
                    Err(_) => {
                        self.unset.push(whole.to_owned());
                        None
                    }
                }
            }
        }
    }
}

/// Returns a placeholder at the beginning of a text, the name in it and the format behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let close = text.strip_prefix("%(")?.find(')')? + 2;
    let format = &text[close + 1..];
    let letter = format.find(|c: char| !c.is_ascii_digit() && c != '-')?;
    format[letter..].starts_with(['s', 'd', 'i']).then(|| {
        let end = close + 1 + letter + 1;
        (&text[..end], &text[2..close], &text[close + 1..end])
    })
}

/// Writes a value in a format such as `02d`.
fn padded(value: &str, format: &str) -> String {
    let digits = format.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    // A width beyond this is a mistake.
    let width = digits.trim_start_matches('-').parse::<usize>().unwrap_or(0).min(64);
    if digits.starts_with('-') {
        format!("{value:<width$}")
    } else if digits.starts_with('0') && !format.ends_with('s') {
        format!("{value:0>width$}")
    } else {
        format!("{value:>width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_width_and_percent_signs_are_halved() {
        let mut expander = Expander::new("web", Path::new("/etc/s")).of_process(7, 12);
        for (text, expected) in [
            ("%(program_name)s_%(process_num)02d", "web_07"),
            ("98%(process_num)d%(process_num)s", "9877"),
            ("%(process_num)3d|%(process_num)-3d|", "  7|7  |"),
            ("%(here)s/%(group_name)s of %(numprocs)d", "/etc/s/web of 12"),
            ("date +%%F 100%", "date +%F 100%"),
            ("%(nobody)s %(process_num) %(", "%(nobody)s %(process_num) %("),
        ] {
            assert_eq!(expander.expand(text), expected, "{text}");
        }
        assert!(expander.is_numbered());
        assert_eq!(expander.unknown, ["%(nobody)s"]);
    }
}
