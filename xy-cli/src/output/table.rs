//! Tables without lines, aligned by content; cut only at the edge of a terminal.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr as _;

use super::{Output, Style};
use crate::error::CommandError;
use crate::output::text::neutral;

/// What stands for nothing, so that every line has as many words as columns.
const EMPTY: &str = "-";

/// Between two columns.
const GAP: usize = 2;

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<(String, Style)>>,
}

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// Creates a table of these columns.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            header: columns.iter().map(|(title, _)| *title).collect(),
            right: columns.iter().map(|(_, align)| *align == Align::Right).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are columns; control characters in them are neutralized, and spaces before
    /// them are kept.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        let cells = cells.into_iter().map(|(text, style)| {
            let indent = text.len() - text.trim_start_matches(' ').len();
            let shown = neutral(text.trim());
            (if shown.is_empty() { EMPTY.to_owned() } else { " ".repeat(indent) + &shown }, style)
        });
        self.rows.push(cells.collect());
    }

    /// Writes the table, each line after `indent`.
    pub(crate) fn write(&self, indent: &str, output: &mut Output) -> Result<(), CommandError> {
        let header = self.header.iter().map(|title| ((*title).to_owned(), Style::Bold)).collect();
        let width = output.width().map(|width| width.saturating_sub(indent.len()));
        for (line, cells) in self.lines().iter().zip(std::iter::once(&header).chain(&self.rows)) {
            let line = width.map_or(Cow::Borrowed(line.as_str()), |width| cut(line, width));
            let painted = painted(&line, cells, output);
            output.line(&format!("{indent}{painted}"))?;
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let header = || self.header.iter().copied();
        let mut widths: Vec<usize> = header().map(|title| title.width()).collect();
        for row in &self.rows {
            for (widest, (text, _)) in widths.iter_mut().zip(row) {
                *widest = text.width().max(*widest);
            }
        }
        let mut lines = Vec::with_capacity(1 + self.rows.len());
        lines.push(self.line(header(), &widths));
        lines.extend(
            self.rows.iter().map(|row| self.line(row.iter().map(|(text, _)| text.as_str()), &widths)),
        );
        lines
    }

    /// Lays a line out in columns of these widths.
    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
        let mut line = String::with_capacity(widths.iter().map(|width| width + GAP).sum());
        let mut due = 0;
        for ((text, width), is_right) in cells.zip(widths).zip(&self.right) {
            let space = width.saturating_sub(text.width());
            let (before, after) = if *is_right { (space, 0) } else { (0, space) };
            // Spaces are written before the next cell only, so that no line ends in any.
            line.extend(std::iter::repeat_n(' ', due + before));
            line.push_str(text);
            due = after + GAP;
        }
        line
    }
}

/// Cuts a line that a terminal would wrap.
fn cut(line: &str, width: usize) -> Cow<'_, str> {
    match line.char_indices().nth(width) {
        Some(_) if width > 0 => {
            let end = line.char_indices().nth(width - 1).map_or(line.len(), |(end, _)| end);
            Cow::Owned(format!("{}…", &line[..end]))
        }
        _ => Cow::Borrowed(line),
    }
}

/// Styles the cells of a line that is already laid out, so that styling cannot disturb the widths.
fn painted(line: &str, cells: &[(String, Style)], output: &Output) -> String {
    let mut painted = String::with_capacity(line.len() + 16);
    let mut rest = line;
    for (text, style) in cells {
        // Nothing but spaces stands between two cells.
        let cell = rest.trim_start_matches(' ');
        painted.push_str(&rest[..rest.len() - cell.len()]);
        let text = text.trim_start_matches(' ');
        let Some(after) = cell.strip_prefix(text) else { break };
        painted.push_str(&output.paint(*style, text));
        rest = after;
    }
    painted.push_str(rest.trim_end());
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_a_terminal_ends_and_not_before() {
        assert_eq!(cut("four", 4), "four");
        assert_eq!(cut("fünfte", 5), "fünf…");
        assert_eq!(cut("x", 0), "x");
    }

    #[test]
    fn columns_are_aligned_and_no_cell_is_empty_or_cut() {
        let mut table = Table::new(&[("NAME", Align::Left), ("PID", Align::Right), ("NEXT", Align::Left)]);
        let plain = |text: &str| (text.to_owned(), Style::Plain);
        table.row([plain("a"), plain("4242"), plain("")]);
        table.row([plain("longer\x1b"), plain(""), plain(&"x".repeat(200))]);
        table.row([plain("  inner"), plain(""), plain("")]);
        let lines = table.lines();
        assert_eq!(lines[0], "NAME         PID  NEXT");
        assert_eq!(lines[1], "a           4242  -");
        assert_eq!(lines[3], "  inner        -  -");
        assert_eq!(lines[2], format!("longer\\x1b     -  {}", "x".repeat(200)));
    }
}
