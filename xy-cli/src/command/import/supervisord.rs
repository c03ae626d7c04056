//! supervisord's configuration: its programs, with what of them has a meaning here.

use std::path::{Path, PathBuf};

use glob::MatchOptions;
use nix::unistd::User;

use super::ini::{self, Section};
use super::server::{Server, plain_name, signal};
use super::{Import, Origin, text_of};

mod environment;
mod expand;

use self::expand::Expander;

/// What xy does for every server without being asked.
const IMPLIED: [&str; 3] = ["stopasgroup", "killasgroup", "redirect_stderr"];

/// What only supervisord's event listeners hear.
const EVENTS: [&str; 4] =
    ["stdout_events_enabled", "stderr_events_enabled", "stdout_capture_maxbytes", "stderr_capture_maxbytes"];

/// What is asked of `[supervisord]` for each program; the rest there is about supervisord itself.
const FOR_ALL: [&str; 4] = ["environment", "umask", "directory", "user"];

/// The most files that an `[include]` may lead to.
const MOST_FILES: usize = 256;

/// The most copies of one program.
const MOST_COPIES: u32 = 100;

/// One section, and the directory of the file that it is in.
#[derive(Debug)]
struct Placed {
    section: Section,
    here: PathBuf,
}

/// What programs have in common.
#[derive(Debug, Default)]
struct Shared {
    section: Section,
    /// Names of groups and of the programs in them.
    groups: Vec<(String, Vec<String>)>,
}

/// Reads the sections of an INI file and of those that it includes.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let mut import = Import::default();
    let mut placed: Vec<Placed> = ini::read(text)?
        .into_iter()
        .map(|section| Placed { section, here: origin.directory.clone() })
        .collect();
    if let Some(at) = placed.iter().position(|placed| placed.section.name == "include") {
        let include = placed.remove(at);
        included(&include, &mut placed, &mut import);
    }
    let find = |name: &str| placed.iter().find(|placed| placed.section.name == name);
    let mut shared = Shared::default();
    if let Some(supervisord) = find("supervisord") {
        shared.section = supervisord.section.clone();
    }
    for Placed { section, .. } in &placed {
        if let Some(group) = section.name.strip_prefix("group:") {
            let programs = section.get("programs").unwrap_or_default();
            let programs = programs.split([',', '\n']).map(|name| name.trim().to_owned());
            shared.groups.push((group.trim().to_owned(), programs.filter(|name| !name.is_empty()).collect()));
        }
    }
    let mut own = Vec::new();
    for placed in &placed {
        let section = &placed.section;
        match section.name.split_once(':') {
            Some(("program", name)) => read_program(name.trim(), placed, &shared, &mut import),
            Some(("group", _)) => {
                if let Some(priority) = section.get("priority").filter(|priority| *priority != "999") {
                    import.left(&section.name, format!("priority={priority}; see `depends_on`"));
                }
            }
            Some(("eventlistener", _)) => import.left(
                &section.name,
                "supervisord tells it of events; `xyctl events --follow --json` tells of them here",
            ),
            Some(("fcgi-program", _)) => import.left(
                &section.name,
                "supervisord opens its socket; let the program listen by itself, or a web server start it",
            ),
            None if section.name == "supervisord" => {
                let rest = section.values.iter().filter(|(key, _)| !FOR_ALL.contains(&key.as_str()));
                own.extend(rest.map(|(key, _)| format!("`{key}`")));
            }
            _ => own.push(format!("[{}]", section.name)),
        }
    }
    for (group, programs) in &shared.groups {
        for program in programs {
            if !import.names.contains_key(program) {
                let what = format!("the program `{program}`, which is no server here");
                import.left(&format!("group:{group}"), what);
            }
        }
    }
    if import.names.is_empty() && import.left.is_empty() {
        return Err("there is no `[program:..]` in it".to_owned());
    }
    if shared.section.get("user") == Some("root") {
        import.left_of_file("user=root of [supervisord]: its programs run as whoever runs xyd");
    }
    if !own.is_empty() {
        import.left_of_file(format!("what is about supervisord itself: {}", own.join(", ")));
    }
    Ok(import)
}

/// Adds the sections of included files.
fn included(include: &Placed, placed: &mut Vec<Placed>, import: &mut Import) {
    let mut expander = Expander::new("include", &include.here);
    let patterns = expander.expand(include.section.get("files").unwrap_or_default());
    expander.tell("include", import);
    for pattern in patterns.split_whitespace() {
        let files = files_of(&include.here, pattern);
        if files.is_empty() {
            import.left("include", format!("{pattern}, where no file is"));
        }
        for file in files {
            let shown = file.display();
            let sections =
                text_of(&file).map_err(|error| error.to_string()).and_then(|text| ini::read(&text));
            let here = file.parent().unwrap_or(Path::new("/")).to_owned();
            match sections {
                Ok(sections) => sections.into_iter().for_each(|section| add(placed, section, &here)),
                Err(error) => import.left("include", format!("{shown}: {error}")),
            }
        }
    }
}

/// Returns the files that a pattern such as `conf.d/*.conf` names, from `start` on unless it is a whole path, in the order
/// of their names.
fn files_of(start: &Path, pattern: &str) -> Vec<PathBuf> {
    // Where the file stands is no pattern, whatever its directories are called.
    let whole = Path::new(&glob::Pattern::escape(&start.to_string_lossy())).join(pattern);
    let rules = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(&whole.to_string_lossy(), rules).into_iter().flatten();
    found.filter_map(Result::ok).filter(|path| path.is_file()).take(MOST_FILES).collect()
}

/// Adds a section; of two with one name, the second goes on with the first.
fn add(placed: &mut Vec<Placed>, section: Section, here: &Path) {
    match placed.iter_mut().find(|placed| placed.section.name == section.name) {
        Some(Placed { section: first, .. }) => {
            for (key, value) in section.values {
                *first.set(&key) = value;
            }
        }
        None => placed.push(Placed { section, here: here.to_owned() }),
    }
}

fn read_program(name: &str, placed: &Placed, shared: &Shared, import: &mut Import) {
    let section = &placed.section;
    let group = shared.groups.iter().find(|(_, programs)| programs.iter().any(|program| program == name));
    let group = group.map(|(group, _)| group.as_str());
    let expander = || Expander::new(name, &placed.here).in_group(group);
    let number = |key: &str, import: &mut Import| -> Option<u32> {
        let mut expander = expander();
        let text = expander.expand(section.get(key)?);
        expander.tell(name, import);
        let number = text.parse().ok();
        if number.is_none() {
            import.left(name, format!("{key}={text}, which is no number"));
        }
        number
    };
    let copies = number("numprocs", import).unwrap_or(1);
    let first = number("numprocs_start", import).unwrap_or(0);
    if copies == 0 || copies > MOST_COPIES {
        return import.left(name, format!("numprocs={copies}, expected from 1 to {MOST_COPIES}"));
    }
    if copies == 1 {
        let mut expander = expander().of_process(first, copies);
        let process_name = section.get("process_name").map(|text| expander.expand(text));
        if let Some(server) = program(name, placed, shared, &mut expander, import) {
            expander.tell(name, import);
            if let Some(process_name) = process_name.filter(|process_name| process_name != name) {
                import
                    .left(name, format!("process_name={process_name}; here it has the name of the program"));
            }
            import.add(server);
        }
        return;
    }
    let mut one = expander().of_process(first, copies);
    let Some(server) = program(name, placed, shared, &mut one, import) else { return };
    if one.is_numbered() {
        // Each as it is there: `{instance}` has no leading zeros and counts from 1.
        for process in first..first + copies {
            let mut expander = expander().of_process(process, copies);
            let process_name = match section.get("process_name") {
                Some(text) => expander.expand(text),
                None => format!("{name}_{process}"),
            };
            if let Some(mut server) = program(name, placed, shared, &mut expander, import) {
                expander.tell(name, import);
                server.name = process_name;
                import.add_of(name, server);
            }
        }
        return;
    }
    one.tell(name, import);
    if let Some(text) = section.get("process_name") {
        let plain = plain_name(name);
        import.left(name, format!("process_name={text}; here they are `{plain}-1` to `{plain}-{copies}`"));
    }
    import.add(Server { instances: Some(copies), ..server });
}

/// Reads one program, or one of its processes.
fn program(
    name: &str,
    placed: &Placed,
    shared: &Shared,
    expander: &mut Expander<'_>,
    import: &mut Import,
) -> Option<Server> {
    let section = &placed.section;
    let Some(command) = section.get("command") else {
        import.left(name, "it has no `command`");
        return None;
    };
    let command = expander.expand(command);
    // supervisord runs no shell: words are words.
    let mut words = match shlex::split(&command) {
        Some(words) => words.into_iter(),
        None => {
            let hint = if command.contains(['"', '\'']) { "; ` ;` begins a comment" } else { "" };
            import.left(name, format!("its command has a quote without its end: {command}{hint}"));
            return None;
        }
    };
    let mut server = Server { name: name.to_owned(), command: words.next()?, ..Server::default() };
    server.args = words.collect();
    let mut of_all = |key: &str| {
        let text = section.get(key).or_else(|| shared.section.get(key))?;
        Some(expander.expand(text))
    };
    server.working_dir = of_all("directory").map(|text| placed.here.join(text).display().to_string());
    server.umask = of_all("umask");
    server.user = of_all("user").filter(|user| section.get("user").is_some() || user != "root");
    for text in [shared.section.get("environment"), section.get("environment")].into_iter().flatten() {
        match environment::read(text) {
            Some(variables) => {
                for (key, text) in variables {
                    let text = expander.expand(&text);
                    server.env.insert(key, text);
                }
            }
            None => import.left(name, format!("its environment, which is not KEY=\"value\",..: {text}")),
        }
    }
    server.tags.extend(
        shared
            .groups
            .iter()
            .filter(|(_, programs)| programs.iter().any(|program| program == name))
            .map(|(group, _)| plain_name(group)),
    );
    let mut value = |key: &str| section.get(key).map(|text| expander.expand(text));
    server.autostart = value("autostart").filter(|text| is(text, false)).map(|_| false);
    server.restart.policy = match value("autorestart").as_deref() {
        None | Some("unexpected") => None,
        Some(text) if is(text, true) => Some("Always"),
        Some(text) if is(text, false) => Some("Never"),
        Some(other) => {
            import.left(name, format!("autorestart={other}, which has no meaning"));
            None
        }
    };
    if let Some(text) = value("stopsignal") {
        match signal(&text) {
            Some(signal) => server.stop.signal = Some(signal),
            None => import.left(name, format!("stopsignal={text}; TERM is sent")),
        }
    }
    if let Some(text) = value("stopwaitsecs") {
        match text.parse() {
            Ok(seconds) => server.stop.grace = Some(seconds),
            Err(_) => import.left(name, format!("stopwaitsecs={text}, which is no number")),
        }
    }
    if let Some(user) = &server.user
        && !is_there(user)
    {
        import.left(
            name,
            format!("user={user}, whom this machine does not know; its file is refused until it does"),
        );
    }
    logs(name, section, &mut server, import);
    rest(name, section, &server, import);
    Some(server)
}

/// Whether there is a user of this name or number.
fn is_there(user: &str) -> bool {
    user.parse::<u32>().is_ok() || User::from_name(user).is_ok_and(|user| user.is_some())
}

/// Carries over how much is kept of the output, and says where it is.
fn logs(name: &str, section: &Section, server: &mut Server, import: &mut Import) {
    let is_file = |text: &str| {
        !text.starts_with("/dev/") && !text.starts_with("/proc/") && text != "AUTO" && text != "syslog"
    };
    let files: Vec<_> = ["stdout_logfile", "stderr_logfile"]
        .iter()
        .filter_map(|key| Some((*key, section.get(key)?)))
        .filter(|(_, text)| is_file(text) || *text == "/dev/null")
        .map(|(key, text)| format!("{key}={text}"))
        .collect();
    if !files.is_empty() {
        let plain = plain_name(name);
        import.left(name, format!("{}; `xyctl logs {plain}` shows its output", files.join(", ")));
    }
    if section.get("stdout_logfile").is_some_and(|text| !is_file(text)) {
        return;
    }
    let text = section.get("stdout_logfile_maxbytes").filter(|text| *text != "0");
    server.log.max_size = text.and_then(|text| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" => "",
            "KB" => "KiB",
            "MB" => "MiB",
            "GB" => "GiB",
            _ => "?",
        };
        let is_size = digits.parse::<u64>().is_ok_and(|size| size > 0) && unit != "?";
        if !is_size {
            import.left(name, format!("stdout_logfile_maxbytes={text}, which is no size"));
        }
        is_size.then(|| format!("{digits}{unit}"))
    });
    let keep = section.get("stdout_logfile_backups").and_then(|text| text.parse().ok());
    server.log.keep = keep.filter(|keep| (1..=1000).contains(keep));
}

/// Names what is left of a program.
fn rest(name: &str, section: &Section, server: &Server, import: &mut Import) {
    let is_on = |text: &str| !is(text, false);
    let events: Vec<_> = EVENTS
        .iter()
        .filter(|key| section.get(key).is_some_and(is_on))
        .map(|key| format!("`{key}`"))
        .collect();
    if !events.is_empty() {
        import.left(name, format!("{}, which are for supervisord's event listeners", events.join(", ")));
    }
    let is_written = |text: &str| section.get("stdout_logfile").is_some_and(|own| own == text);
    for (key, text) in &section.values {
        let what = match key.as_str() {
            "command"
            | "numprocs"
            | "numprocs_start"
            | "process_name"
            | "directory"
            | "user"
            | "umask"
            | "environment"
            | "autostart"
            | "autorestart"
            | "stopsignal"
            | "stopwaitsecs"
            | "stdout_logfile"
            | "stderr_logfile"
            | "stdout_logfile_maxbytes" => continue,
            key if IMPLIED.contains(&key) || EVENTS.contains(&key) => continue,
            // How much is kept is kept of both together.
            "stderr_logfile_maxbytes" | "stderr_logfile_backups" => continue,
            "stdout_logfile_backups" if server.log.keep.is_some() || is_written("/dev/stdout") => continue,
            "stdout_logfile_backups" => format!("stdout_logfile_backups={text}; see `log: (keep: ..)`"),
            // It is how long a program has to run before it counts as started.
            "startsecs" if text == "0" => continue,
            "startsecs" => format!("startsecs={text}; a probe says better when it is up, see `ready`"),
            "startretries" => format!("startretries={text}; see `restart: (max_retries_per_minute: ..)`"),
            "priority" if text == "999" => continue,
            "priority" => format!("priority={text}; see `depends_on`"),
            "exitcodes" if text == "0" => continue,
            "exitcodes" => format!("exitcodes={text}; only 0 is an expected end"),
            "serverurl" => format!("serverurl={text}, which is supervisord's"),
            key => format!("{key}={text}"),
        };
        import.left(name, what);
    }
}

fn is(text: &str, truth: bool) -> bool {
    let words: &[&str] = if truth { &["true", "yes", "on", "1"] } else { &["false", "no", "off", "0"] };
    words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_also_through_directories_that_match() {
        let directory = tempfile::tempdir().expect("a directory");
        let start = directory.path().join("[odd] *name");
        for file in ["b/x.conf", "a/x.conf", "a/y.txt", "c.conf", ".hidden.conf"] {
            let path = start.join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let found = |pattern: &str| -> Vec<PathBuf> {
            let files = files_of(&start, pattern).into_iter();
            files.map(|file| file.strip_prefix(&start).expect("in it").to_owned()).collect()
        };
        assert_eq!(found("*/*.conf"), [PathBuf::from("a/x.conf"), PathBuf::from("b/x.conf")]);
        assert_eq!(found("c.conf"), [PathBuf::from("c.conf")]);
        assert_eq!(found("*.conf"), [PathBuf::from("c.conf")]);
        assert_eq!(found("*"), [PathBuf::from("c.conf")]);
        assert_eq!(found("nothing/*"), Vec::<PathBuf>::new());
    }
}
