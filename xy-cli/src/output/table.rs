//! Tables without lines, aligned by content; cut only at the edge of a terminal.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use unicode_width::UnicodeWidthStr as _;

use super::{Output, Style};
use crate::error::CommandError;
use crate::output::text::neutral;

/// What stands for nothing, so that every line has as many words as columns.
const EMPTY: &str = "-";

/// Between two columns.
const GAP: usize = 2;

/// A table under construction. All its text is in one piece, which a thousand rows are not slowed down by.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    text: String,
    /// Row after row.
    cells: Vec<Cell>,
}

/// A cell, whose text begins where that of the one before ends.
#[derive(Debug, Clone, Copy)]
struct Cell {
    end: usize,
    width: usize,
    style: Style,
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
        Self { columns: columns.to_vec(), text: String::new(), cells: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns; control characters in them are neutralized, and spaces before
    /// them are kept.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        cells.into_iter().for_each(|(text, style)| self.cell(text, style));
    }

    /// Adds the next cell of a row, in the same way; the row ends with its last column.
    pub(crate) fn cell(&mut self, text: impl Display, style: Style) {
        let start = self.text.len();
        // Writing to a string cannot fail.
        _ = write!(self.text, "{text}");
        let mut written = &self.text[start..];
        let is_graphic = |byte: &u8| byte.is_ascii_graphic();
        if written.is_empty() || !written.as_bytes().iter().all(is_graphic) {
            let raw = self.text.split_off(start);
            let indent = raw.len() - raw.trim_start_matches(' ').len();
            let shown = neutral(raw.trim());
            if shown.is_empty() {
                self.text.push_str(EMPTY);
            } else {
                self.text.extend(std::iter::repeat_n(' ', indent));
                self.text.push_str(&shown);
            }
            written = &self.text[start..];
        }
        // Nothing else is as wide as it is long.
        let width = if written.is_ascii() { written.len() } else { written.width() };
        self.cells.push(Cell { end: self.text.len(), width, style });
    }

    /// Writes the table, each line after `indent`.
    pub(crate) fn write(&self, indent: &str, output: &mut Output) -> Result<(), CommandError> {
        let width = output.width().map(|width| width.saturating_sub(indent.len()));
        self.lines(|line, cells| {
            let line = width.map_or(Cow::Borrowed(line), |width| cut(line, width));
            let line = if output.is_colored() { painted(&line, cells, output).into() } else { line };
            if indent.is_empty() { output.line(&line) } else { output.line(&format!("{indent}{line}")) }
        })
    }

    /// Lays out one line after the other, the header first, and hands on each with its cells.
    fn lines<E>(&self, mut line: impl FnMut(&str, &[(&str, Style)]) -> Result<(), E>) -> Result<(), E> {
        let widths = self.widths();
        let mut laid_out = String::with_capacity(widths.iter().map(|width| width + GAP).sum());
        let mut cells: Vec<_> = self.columns.iter().map(|(title, _)| (*title, Style::Bold)).collect();
        let title_widths: Vec<usize> = cells.iter().map(|(title, _)| title.width()).collect();
        self.lay_out(&mut laid_out, cells.iter().map(|cell| cell.0).zip(title_widths), &widths);
        line(&laid_out, &cells)?;
        let mut start = 0;
        for row in self.cells.chunks(self.columns.len().max(1)) {
            cells.clear();
            for cell in row {
                cells.push((&self.text[start..cell.end], cell.style));
                start = cell.end;
            }
            laid_out.clear();
            let texts = cells.iter().map(|cell| cell.0).zip(row.iter().map(|cell| cell.width));
            self.lay_out(&mut laid_out, texts, &widths);
            line(&laid_out, &cells)?;
        }
        Ok(())
    }

    /// Returns how wide each column is.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(title, _)| title.width()).collect();
        for row in self.cells.chunks(self.columns.len().max(1)) {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = cell.width.max(*widest);
            }
        }
        widths
    }

    /// Lays a line of texts and their widths out in columns of these widths.
    fn lay_out<'a>(
        &self,
        line: &mut String,
        cells: impl Iterator<Item = (&'a str, usize)>,
        widths: &[usize],
    ) {
        let mut due = 0;
        for (((text, width), column), (_, align)) in cells.zip(widths).zip(&self.columns) {
            let space = column.saturating_sub(width);
            let (before, after) = if *align == Align::Right { (space, 0) } else { (0, space) };
            // Spaces are written before the next cell only, so that no line ends in any.
            line.extend(std::iter::repeat_n(' ', due + before));
            line.push_str(text);
            due = after + GAP;
        }
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
fn painted(line: &str, cells: &[(&str, Style)], output: &Output) -> String {
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
        let mut lines = Vec::new();
        let collected: Result<(), ()> = table.lines(|line, cells| {
            assert_eq!(cells.len(), 3, "{line}");
            lines.push(line.to_owned());
            Ok(())
        });
        collected.expect("nothing fails");
        assert_eq!(lines[0], "NAME         PID  NEXT");
        assert_eq!(lines[1], "a           4242  -");
        assert_eq!(lines[3], "  inner        -  -");
        assert_eq!(lines[2], format!("longer\\x1b     -  {}", "x".repeat(200)));
    }
}
