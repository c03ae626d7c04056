//! Where the keys of a RON text stand: positions and key paths for errors, even in a text that does not parse.
//!
//! The deserializer forgets where a value came from, and its own errors know no key paths. This is a scanner of
//! tokens and brackets only; it accepts anything, never recurses, and its memory is bounded by the number of keys.

use std::collections::HashMap;

/// Paths deeper than this are not recorded; keys of groups in groups in groups are not as deep.
const DEEPEST: usize = 14;

/// The outline of one text.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    text: &'a str,
    /// The offset of the first value of each key path.
    keys: HashMap<String, usize>,
}

impl<'a> Outline<'a> {
    /// Scans a text.
    pub(super) fn new(text: &'a str) -> Self {
        let mut keys = HashMap::new();
        let mut nesting = Nesting::default();
        for token in Tokens::new(text) {
            if nesting.previous == ":"
                && let Some(path) = nesting.path()
            {
                keys.entry(path).or_insert(token.start);
            }
            nesting.take(token.text);
        }
        Self { text, keys }
    }

    /// Returns whether there is nothing but white space and comments.
    pub(super) fn is_empty(&self) -> bool {
        Tokens::new(self.text).next().is_none()
    }

    /// Returns the offset of the first value with this key path.
    pub(super) fn value_of(&self, path: &str) -> Option<usize> {
        self.keys.get(path).copied()
    }

    /// Returns the offset of an item of the list that is the first value with this key path.
    pub(super) fn item_of(&self, path: &str, index: usize) -> Option<usize> {
        let mut tokens = Tokens { text: self.text, offset: self.value_of(path)? };
        tokens.next().filter(|token| token.text == "[")?;
        let (mut depth, mut item, mut begins) = (0_usize, 0, true);
        for token in tokens {
            if token.text == "]" && depth == 0 {
                return None;
            }
            if begins && item == index {
                return Some(token.start);
            }
            begins = false;
            match token.text {
                "(" | "{" | "[" => depth += 1,
                ")" | "}" | "]" => depth = depth.saturating_sub(1),
                "," if depth == 0 => (item, begins) = (item + 1, true),
                _ => {}
            }
        }
        None
    }

    /// Returns the text of the number or word at an offset, exactly as written.
    pub(super) fn word_at(&self, offset: usize) -> &'a str {
        Tokens { text: self.text, offset }.next().map_or("", |token| token.text)
    }

    /// Returns the key path in force at an offset; empty at the top.
    pub(super) fn path_at(&self, offset: usize) -> String {
        let mut nesting = Nesting::default();
        for token in Tokens::new(self.text).take_while(|token| token.start < offset) {
            nesting.take(token.text);
        }
        nesting.path().unwrap_or_default()
    }

    /// Returns the key path of the bracket around an offset, without the key before the offset.
    pub(super) fn parent_at(&self, offset: usize) -> String {
        let mut nesting = Nesting::default();
        for token in Tokens::new(self.text).take_while(|token| token.start < offset) {
            nesting.take(token.text);
        }
        nesting.frames.last_mut().map(|frame| frame.key.take());
        nesting.path().unwrap_or_default()
    }

    /// Returns the start of the last token that begins before an offset.
    pub(super) fn token_before(&self, offset: usize) -> Option<usize> {
        Tokens::new(self.text).map(|token| token.start).take_while(|start| *start < offset).last()
    }

    /// Returns the offset of a position (line and column from 1, the column in characters).
    pub(super) fn offset_of(&self, line: usize, column: usize) -> usize {
        let start: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = self.text.get(start..).unwrap_or_default();
        rest.char_indices().nth(column.saturating_sub(1)).map_or(self.text.len(), |(at, _)| start + at)
    }

    /// Returns line and column, both from 1, the column in characters.
    pub(super) fn position_of(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// The open brackets and the key in force in each.
#[derive(Debug, Default)]
struct Nesting<'a> {
    frames: Vec<Frame<'a>>,
    previous: &'a str,
}

#[derive(Debug)]
struct Frame<'a> {
    key: Option<&'a str>,
    index: Option<usize>,
}

impl<'a> Nesting<'a> {
    fn take(&mut self, token: &'a str) {
        match token {
            "(" | "{" => self.frames.push(Frame { key: None, index: None }),
            "[" => self.frames.push(Frame { key: None, index: Some(0) }),
            ")" | "}" | "]" => {
                self.frames.pop();
            }
            ":" => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.key = Some(self.previous);
                }
            }
            "," => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.key = None;
                    frame.index = frame.index.map(|index| index + 1);
                }
            }
            _ => {}
        }
        self.previous = token;
    }

    /// Returns the path as text; `None` when it is too deep to matter.
    fn path(&self) -> Option<String> {
        if self.frames.len() > DEEPEST {
            return None;
        }
        let mut path = String::new();
        for frame in &self.frames {
            if let Some(key) = frame.key {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(unquoted(key));
            }
            if let Some(index) = frame.index {
                path.push_str(&format!("[{index}]"));
            }
        }
        Some(path)
    }
}

/// Returns a key without its quotes. Escapes stay as written: this is for people, and for keys that have none.
fn unquoted(key: &str) -> &str {
    key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key)
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    start: usize,
    text: &'a str,
}

/// The tokens of a text, without white space and comments.
#[derive(Debug)]
struct Tokens<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.offset..];
            let blank = rest.len() - rest.trim_start().len();
            let rest = &rest[blank..];
            self.offset += blank;
            if rest.starts_with("//") {
                self.offset += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(length) = block_comment(rest) {
                self.offset += length;
            } else if blank == 0 {
                return;
            }
        }
    }
}

/// Returns the length of the block comment a text starts with; they nest. `None` if it is none, or is never closed.
fn block_comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if !bytes.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// Returns the length of the string a text starts with, raw and byte strings included; `None` if it is none.
fn string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let open = text.len() - inner.len();
        return Some(inner.find(&close).map_or(text.len(), |at| open + at + close.len()));
    }
    let quote = body.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut escaped = false;
    for (at, character) in body.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let start = self.offset;
        let rest = &self.text[start..];
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.' | '#');
        let length = string(rest).unwrap_or_else(|| {
            if rest.starts_with("/*") {
                // A comment that is never closed is the last token: the file is not empty, it is broken.
                rest.len()
            } else if is_word(first) {
                rest.len() - rest.trim_start_matches(is_word).len()
            } else {
                first.len_utf8()
            }
        });
        self.offset += length;
        Some(Token { start, text: &rest[..length] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// a: comment\nProcess(\n  command: \"a:b\", /* x: /* y */ */\n  \
                        restart: (policy: OnFailure),\n  env: {\"A\": 1.10, r#\"B\"#: true},\n  args: [\"x\", 'y'])";

    #[test]
    fn values_are_found_by_key_path_past_comments_and_strings() {
        let outline = Outline::new(TEXT);
        let position = |path| outline.value_of(path).map(|offset| outline.position_of(offset));
        assert_eq!(position("command"), Some((3, 12)));
        assert_eq!(position("restart.policy"), Some((4, 21)));
        assert_eq!(position("env.A"), Some((5, 14)));
        assert_eq!(position("a"), None);
        assert_eq!(position("x"), None);
    }

    #[test]
    fn items_of_a_list_are_found_by_number() {
        let outline = Outline::new("(a: [\"x\", (y: [1, 2]), z(b: 3)], b: 1)");
        let item = |index| outline.item_of("a", index).map(|offset| outline.word_at(offset));
        assert_eq!([item(0), item(1), item(2), item(3)], [Some("\"x\""), Some("("), Some("z"), None]);
        assert_eq!(outline.item_of("b", 0), None);
        assert_eq!(Outline::new("(a: [1, [").item_of("a", 9), None);
    }

    #[test]
    fn numbers_are_read_as_written() {
        let outline = Outline::new(TEXT);
        let offset = outline.value_of("env.A").expect("it is there");
        assert_eq!(outline.word_at(offset), "1.10");
    }

    #[test]
    fn paths_at_an_offset_name_keys_and_indices() {
        let outline = Outline::new(TEXT);
        let at = |needle: &str| TEXT.find(needle).expect("it is there");
        assert_eq!(outline.path_at(at("OnFailure")), "restart.policy");
        assert_eq!(outline.path_at(at("'y'")), "args[1]");
        assert_eq!(outline.parent_at(at("policy")), "restart");
        assert_eq!(outline.path_at(0), "");
    }

    #[test]
    fn positions_count_characters_and_go_both_ways() {
        let text = "ä: 1,\nö: 2";
        let outline = Outline::new(text);
        let offset = text.find('2').expect("it is there");
        assert_eq!(outline.position_of(offset), (2, 4));
        assert_eq!(outline.offset_of(2, 4), offset);
        assert_eq!(outline.offset_of(9, 9), text.len());
    }

    #[test]
    fn any_text_is_accepted() {
        for text in
            ["", "((((", "))))", "\"", "r##\"", "b'", "/*", "/", "'\\", "a:", "]:[:", "\u{feff}(", "r#"]
        {
            let outline = Outline::new(text);
            for offset in 0..=text.len() {
                let _ = (outline.path_at(offset), outline.token_before(offset), outline.position_of(offset));
            }
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Outline::new(&deep).path_at(100_000), "");
    }
}
