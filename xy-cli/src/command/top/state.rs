//! What the full screen shows and what a key does; pure.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use xy_daemon::protocol::method::{Event, LogLine, ServerSummary, ServerUsage};

use crate::command::list::{Load, loads};

/// How many lines of a log and how many events are held.
const HELD: usize = 2_000;

/// How far a page scrolls.
const PAGE: usize = 10;

/// Something to do with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
}

impl Action {
    /// Says what is being done.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "starting",
            Self::Stop => "stopping",
            Self::Restart => "restarting",
            Self::Pause => "pausing",
            Self::Resume => "resuming",
        }
    }

    /// Says what was done.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }
}

/// What a key asks of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reaction {
    None,
    Act(Action, String),
    Quit,
}

/// What the lower half shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pane {
    #[default]
    Log,
    Events,
}

/// What keys mean at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Choose,
    /// They are the letters of the filter.
    Filter,
    Help,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Top {
    servers: Vec<ServerSummary>,
    pub(super) usage: BTreeMap<String, Load>,
    chosen: Option<String>,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) pane: Pane,
    pub(super) log: VecDeque<LogLine>,
    pub(super) events: VecDeque<Event>,
    /// How many lines the lower half is scrolled back.
    pub(super) scroll: usize,
    pub(super) message: String,
}

impl Top {
    /// Takes what the daemon says now.
    pub(super) fn set_servers(&mut self, servers: Vec<ServerSummary>, usage: Vec<ServerUsage>) {
        self.usage = loads(usage, Some(&self.usage));
        self.servers = servers;
        self.keep_chosen(0);
    }

    /// Returns the servers that the filter leaves.
    pub(super) fn shown(&self) -> Vec<ServerSummary> {
        self.servers.iter().filter(|server| server.name.contains(&self.filter)).cloned().collect()
    }

    /// Returns how many servers there are.
    pub(super) fn count(&self) -> usize {
        self.servers.len()
    }

    /// Returns where the chosen server is among those shown.
    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen.as_deref()?;
        self.shown().iter().position(|server| server.name == chosen)
    }

    /// Returns the chosen server.
    pub(super) fn chosen(&self) -> Option<String> {
        self.chosen.clone()
    }

    pub(super) fn add_event(&mut self, event: Event) {
        push(&mut self.events, event);
    }

    pub(super) fn add_line(&mut self, line: LogLine) {
        push(&mut self.log, line);
        // What is read stays in its place while more comes.
        if self.scroll > 0 && self.pane == Pane::Log {
            self.scroll += 1;
        }
    }

    pub(super) fn clear_log(&mut self) {
        self.log.clear();
        self.scroll = 0;
    }

    pub(super) fn say(&mut self, text: String) {
        self.message = text;
    }

    /// Chooses the one that is so many further, and somebody else if who was chosen is not shown any more.
    fn keep_chosen(&mut self, by: isize) {
        let shown = self.shown();
        let place = self.place().unwrap_or(0);
        let place = place.saturating_add_signed(by).min(shown.len().saturating_sub(1));
        self.chosen = shown.get(place).map(|server| server.name.clone());
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Reaction {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (self.mode, key.code) {
            (_, KeyCode::Char('c')) if is_control => return Reaction::Quit,
            (Mode::Help, _) => self.mode = Mode::Choose,
            (Mode::Filter, KeyCode::Enter) => self.mode = Mode::Choose,
            (Mode::Filter, KeyCode::Esc) => {
                self.filter.clear();
                self.mode = Mode::Choose;
            }
            (Mode::Filter, KeyCode::Backspace) => drop(self.filter.pop()),
            (Mode::Filter, KeyCode::Char(letter)) if !is_control => self.filter.push(letter),
            (_, KeyCode::Up) | (Mode::Choose, KeyCode::Char('k')) => self.keep_chosen(-1),
            (_, KeyCode::Down) | (Mode::Choose, KeyCode::Char('j')) => self.keep_chosen(1),
            (_, KeyCode::PageUp) => self.scroll += PAGE,
            (_, KeyCode::PageDown) => self.scroll = self.scroll.saturating_sub(PAGE),
            (Mode::Filter, _) => {}
            (Mode::Choose, KeyCode::Char('q')) => return Reaction::Quit,
            (Mode::Choose, KeyCode::Char('/')) => self.mode = Mode::Filter,
            (Mode::Choose, KeyCode::Esc) => self.filter.clear(),
            (Mode::Choose, KeyCode::Char('?' | 'h')) => self.mode = Mode::Help,
            (Mode::Choose, KeyCode::Char('l')) => (self.pane, self.scroll) = (Pane::Log, 0),
            (Mode::Choose, KeyCode::Char('e')) => (self.pane, self.scroll) = (Pane::Events, 0),
            (Mode::Choose, KeyCode::Char('s')) => return self.act(Action::Start),
            (Mode::Choose, KeyCode::Char('x')) => return self.act(Action::Stop),
            (Mode::Choose, KeyCode::Char('r')) => return self.act(Action::Restart),
            (Mode::Choose, KeyCode::Char('p')) => {
                let is_paused = self.place().is_some_and(|place| self.shown()[place].paused);
                return self.act(if is_paused { Action::Resume } else { Action::Pause });
            }
            (Mode::Choose, _) => {}
        }
        self.keep_chosen(0);
        Reaction::None
    }

    fn act(&self, action: Action) -> Reaction {
        self.chosen.clone().map_or(Reaction::None, |name| Reaction::Act(action, name))
    }
}

fn push<T>(held: &mut VecDeque<T>, one: T) {
    if held.len() == HELD {
        held.pop_front();
    }
    held.push_back(one);
}

#[cfg(test)]
pub(super) mod tests {
    use xy_daemon::protocol::method::{LogStream, State, Wanted};

    use super::*;

    pub(in super::super) fn server(name: &str, paused: bool) -> ServerSummary {
        ServerSummary {
            name: name.to_owned(),
            group: false,
            state: State::Running,
            ready: true,
            unproven: false,
            wanted: Wanted::Up,
            paused,
            pid: Some(4242),
            port: Some(80),
            uptime_secs: Some(192),
            restart_count: 0,
            last_exit: None,
            next: None,
            tags: Vec::new(),
        }
    }

    pub(in super::super) fn line(text: &str) -> LogLine {
        LogLine {
            name: "web".to_owned(),
            stream: LogStream::Out,
            line: text.to_owned(),
            line_base64: None,
            ts_unix_ms: 0,
            number: 1,
            partial: false,
        }
    }

    pub(in super::super) fn top() -> Top {
        let mut top = Top::default();
        top.set_servers(vec![server("api", false), server("db", true), server("web", false)], Vec::new());
        top
    }

    fn typed(top: &mut Top, keys: &str) -> Reaction {
        keys.chars().map(|key| top.key(KeyEvent::from(KeyCode::Char(key)))).last().unwrap_or(Reaction::None)
    }

    #[test]
    fn keys_choose_a_server_and_act_on_it() {
        let mut top = top();
        assert_eq!(typed(&mut top, "s"), Reaction::Act(Action::Start, "api".to_owned()));
        assert_eq!(typed(&mut top, "jx"), Reaction::Act(Action::Stop, "db".to_owned()));
        assert_eq!(typed(&mut top, "p"), Reaction::Act(Action::Resume, "db".to_owned()));
        assert_eq!(typed(&mut top, "jjjr"), Reaction::Act(Action::Restart, "web".to_owned()));
        assert_eq!(typed(&mut top, "kkkkp"), Reaction::Act(Action::Pause, "api".to_owned()));
        assert_eq!(typed(&mut top, "q"), Reaction::Quit);
    }

    #[test]
    fn a_filter_takes_letters_until_it_is_entered_or_left() {
        let mut top = top();
        // `q`, `s` and `x` are letters of a name here.
        assert_eq!(typed(&mut top, "/web"), Reaction::None);
        assert_eq!((top.shown().len(), top.chosen().as_deref()), (1, Some("web")));
        top.key(KeyEvent::from(KeyCode::Enter));
        assert_eq!(typed(&mut top, "x"), Reaction::Act(Action::Stop, "web".to_owned()));
        top.key(KeyEvent::from(KeyCode::Esc));
        assert_eq!((top.shown().len(), top.chosen().as_deref()), (3, Some("web")));
        assert_eq!(typed(&mut top, "/sxq"), Reaction::None);
        assert_eq!((top.shown().len(), top.chosen()), (0, None));
    }

    #[test]
    fn who_is_chosen_stays_so_while_others_come_and_go() {
        let mut top = top();
        typed(&mut top, "jj");
        top.set_servers(vec![server("aaa", false), server("web", false)], Vec::new());
        assert_eq!(top.chosen().as_deref(), Some("web"));
        top.set_servers(vec![server("aaa", false)], Vec::new());
        assert_eq!(top.chosen().as_deref(), Some("aaa"));
        top.set_servers(Vec::new(), Vec::new());
        assert_eq!(top.chosen(), None);
    }

    #[test]
    fn what_is_held_is_bounded_and_what_is_read_stays_in_its_place() {
        let mut top = top();
        top.key(KeyEvent::from(KeyCode::PageUp));
        top.add_line(line("one"));
        assert_eq!(top.scroll, PAGE + 1);
        for _ in 0..HELD {
            top.add_line(line("more"));
        }
        assert_eq!(top.log.len(), HELD);
    }
}
