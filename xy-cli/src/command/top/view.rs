//! Draws the full screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState};
use xy_daemon::protocol::method::{LogStream, ServerSummary, State};

use super::state::{Mode, Pane, Top};
use crate::command::list::{names, next};
use crate::output::event;
use crate::output::text::{neutral, neutral_line};
use crate::output::time::{self, Clock};

/// What the keys do.
const KEYS: &str =
    "↑↓ choose  s start  x stop  r restart  p pause  / filter  l log  e events  ? help  q quit";

const HELP: &str = "\
 ↑ k  ↓ j       choose a server
 s  x  r        start it, stop it, restart it
 p              pause it, or lift that
 /              filter by name; Enter keeps it, Esc lifts it
 l  e           its log, or the events of all
 PageUp PageDn  scroll the lower half
 q  Ctrl-C      quit; nothing is stopped by that";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, clock: &Clock, now_unix_ms: u64, is_colored: bool) {
    let paint = Paint { is_colored };
    let shown = top.shown();
    // The lower half gets more than half where there are few servers.
    let rows = u16::try_from(shown.len()).unwrap_or(u16::MAX).saturating_add(2);
    let upper = Constraint::Max(rows.max(4).min(frame.area().height / 2));
    let [head, table, pane, foot] =
        Layout::vertical([Constraint::Length(1), upper, Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    let running = shown.iter().filter(|server| server.state == State::Running).count();
    let title = format!("xyctl top  {}  {running} of {} running", clock.time(now_unix_ms), top.count());
    let filter = match (top.mode, top.filter.is_empty()) {
        (Mode::Filter, _) => format!("  filter: {}▏", neutral(&top.filter)),
        (_, false) => format!("  filter: {}", neutral(&top.filter)),
        _ => String::new(),
    };
    frame.render_widget(
        Line::styled(format!("{title}{filter}"), Style::new().add_modifier(Modifier::BOLD)),
        head,
    );
    servers(frame, table, top, &shown, paint);
    match top.pane {
        Pane::Log => log(frame, pane, top, paint),
        Pane::Events => events(frame, pane, top, clock, paint),
    }
    let foot_text = if top.message.is_empty() { KEYS.to_owned() } else { neutral(&top.message).into_owned() };
    frame.render_widget(Line::styled(foot_text, Style::new().add_modifier(Modifier::DIM)), foot);
    if top.mode == Mode::Help {
        help(frame);
    }
}

/// Colors, where they are wanted.
#[derive(Debug, Clone, Copy)]
struct Paint {
    is_colored: bool,
}

impl Paint {
    fn color(self, color: Color) -> Style {
        if self.is_colored { Style::new().fg(color) } else { Style::new() }
    }

    fn state(self, server: &ServerSummary) -> Style {
        match server.state {
            State::Running if server.ready => self.color(Color::Green),
            State::Running | State::Starting | State::Restarting | State::Stopping => {
                self.color(Color::Yellow)
            }
            State::Failed => self.color(Color::Red),
            State::Stopped => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

fn servers(frame: &mut Frame<'_>, area: Rect, top: &Top, shown: &[ServerSummary], paint: Paint) {
    let names = names(shown, true);
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default().clamp(4, 40);
    let rows = shown.iter().zip(&names).map(|(server, name)| {
        let load = top.usage.get(&server.name);
        let text = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
        Row::new([
            Cell::from(neutral(name).into_owned()),
            Cell::from(Span::styled(server.state.as_str(), paint.state(server))),
            text(server.pid.map(|pid| pid.to_string())),
            text(server.uptime_secs.map(|seconds| time::span(seconds).replace(' ', ""))),
            text(Some(server.restart_count.to_string())),
            text(load.map(|load| load.cpu_text())),
            text(load.map(|load| load.memory_text())),
            text(server.port.map(|port| port.to_string())),
            text(next(server).map(|next| neutral(&next).into_owned())),
        ])
    });
    let widths = [
        Constraint::Length(u16::try_from(width).unwrap_or(40)),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Min(4),
    ];
    let header = ["NAME", "STATE", "PID", "UP", "RESTARTS", "CPU", "MEM", "PORT", "NEXT"];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        // Seen without colors as well.
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol("> ");
    let mut state = TableState::default().with_selected(top.place());
    frame.render_stateful_widget(table, area, &mut state);
}

fn log(frame: &mut Frame<'_>, area: Rect, top: &mut Top, paint: Paint) {
    let title = match top.chosen() {
        Some(name) => format!(" log of {} ", neutral(&name)),
        None => " log ".to_owned(),
    };
    let lines = top.log.iter().map(|line| {
        let text = neutral_line(&line.line).replace('\t', "    ");
        match line.stream {
            LogStream::Out => Line::raw(text),
            LogStream::Err => Line::styled(text, paint.color(Color::Yellow)),
            LogStream::Xy => Line::styled(format!("-- {text} --"), Style::new().add_modifier(Modifier::DIM)),
        }
    });
    let lines = lines.collect();
    top.scroll = pane(frame, area, title, lines, top.scroll);
}

fn events(frame: &mut Frame<'_>, area: Rect, top: &mut Top, clock: &Clock, paint: Paint) {
    let lines = top.events.iter().map(|event| {
        let (what, is_bad) = event::words(event);
        let line =
            format!("{}  {:<12} {}", clock.time(event.at_unix_ms), neutral(&event.path), neutral(&what));
        Line::styled(line, if is_bad { paint.color(Color::Red) } else { Style::new() })
    });
    let lines = lines.collect();
    top.scroll = pane(frame, area, " events ".to_owned(), lines, top.scroll);
}

/// Draws the end of some lines, or what is before it by `scroll`; returns how far that is possible.
fn pane(frame: &mut Frame<'_>, area: Rect, title: String, lines: Vec<Line<'_>>, scroll: usize) -> usize {
    let height = usize::from(area.height.saturating_sub(1));
    let scroll = scroll.min(lines.len().saturating_sub(height));
    let end = lines.len() - scroll;
    let visible: Vec<Line<'_>> = lines.into_iter().take(end).skip(end.saturating_sub(height)).collect();
    let title = if scroll > 0 { format!("{title}(back {scroll}) ") } else { title };
    frame.render_widget(Paragraph::new(visible).block(Block::new().borders(Borders::TOP).title(title)), area);
    scroll
}

fn help(frame: &mut Frame<'_>) {
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let [area] =
        Layout::horizontal([Constraint::Max(64)]).flex(ratatui::layout::Flex::Center).areas(frame.area());
    let [area] =
        Layout::vertical([Constraint::Max(lines + 2)]).flex(ratatui::layout::Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" keys ")), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};

    use super::super::state::tests::{line, top};
    use super::*;

    fn drawn(top: &mut Top, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top, &Clock::utc(), 1000, false)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_table_the_log_and_the_keys_are_on_the_screen() {
        let mut top = top();
        top.add_line(line("hello\x1b[2J"));
        let screen = drawn(&mut top, 100, 20);
        for expected in [
            "xyctl top  00:00:01  3 of 3 running",
            "> api",
            "3m12s",
            " log of api ",
            "hello\\x1b[2J",
            "q quit",
        ] {
            assert!(screen.contains(expected), "{expected:?} is not on\n{screen}");
        }
    }

    #[test]
    fn a_tiny_screen_is_drawn_as_well() {
        for (width, height) in [(1, 1), (10, 3), (200, 4)] {
            drawn(&mut top(), width, height);
        }
    }

    #[test]
    fn scrolling_ends_at_the_first_line() {
        let mut top = top();
        for number in 0..100 {
            top.add_line(line(&format!("line {number}")));
        }
        assert!(drawn(&mut top, 80, 20).contains("line 99"));
        for _ in 0..100 {
            top.key(KeyEvent::from(KeyCode::PageUp));
        }
        let screen = drawn(&mut top, 80, 20);
        assert!(screen.contains("line 0 ") && !screen.contains("line 99"), "{screen}");
    }

    #[test]
    fn help_is_shown_until_the_next_key() {
        let mut top = top();
        top.key(KeyEvent::from(KeyCode::Char('?')));
        assert!(drawn(&mut top, 80, 24).contains("nothing is stopped by that"));
        top.key(KeyEvent::from(KeyCode::Char('x')));
        assert!(!drawn(&mut top, 80, 24).contains("nothing is stopped by that"));
    }
}
