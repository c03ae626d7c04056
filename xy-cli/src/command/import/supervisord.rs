//! supervisord's configuration: its programs, with what of them has a meaning here.

use std::collections::BTreeMap;

use configparser::ini::{Ini, IniDefault};

use super::server::{Server, plain_name, signal};
use super::{Import, Origin};

/// The values of one section.
type Section = BTreeMap<String, Option<String>>;

/// What xy does for every server without being asked.
const IMPLIED: [&str; 3] = ["stopasgroup", "killasgroup", "redirect_stderr"];

/// Reads the sections of an INI file.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Import, String> {
    let mut defaults = IniDefault::default();
    defaults.case_sensitive = true;
    defaults.multiline = true;
    defaults.comment_symbols = vec![';', '#'];
    // As in supervisord, a comment behind a value needs a blank before it, which is looked for below.
    defaults.inline_comment_symbols = Some(vec![]);
    defaults.delimiters = vec!['='];
    let mut ini = Ini::new_from_defaults(defaults);
    let sections: BTreeMap<String, Section> = ini
        .read(text.to_owned())?
        .into_iter()
        .map(|(name, section)| (name, section.into_iter().collect()))
        .collect();
    let mut import = Import::default();
    for (name, section) in &sections {
        match name.split_once(':') {
            Some(("program", program)) => read_program(program.trim(), section, origin, &mut import),
            Some(("group", group)) => {
                let programs = value(section, "programs").unwrap_or_default();
                import.left(
                    name,
                    format!("the group `{group}` of {programs}; its servers stand by themselves"),
                );
            }
            Some((kind @ ("eventlistener" | "fcgi-program"), _)) => {
                import.left(name, format!("a {kind} needs supervisord itself"));
            }
            _ if name == "include" => {
                let files = value(section, "files").unwrap_or_default();
                import.left(name, format!("import these files as well: {files}"));
            }
            // How supervisord itself is reached, and where it logs.
            _ => {}
        }
    }
    if import.servers.is_empty() && import.left.is_empty() {
        return Err("there is no `[program:..]` in it".to_owned());
    }
    Ok(import)
}

fn value(section: &Section, key: &str) -> Option<String> {
    let text = section.get(key)?.as_deref()?;
    let end = text.find(" ;").or_else(|| text.find("\t;")).unwrap_or(text.len());
    let text = text[..end].trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_program(name: &str, section: &Section, origin: &Origin, import: &mut Import) {
    let number = |key: &str| value(section, key).and_then(|text| text.parse::<u64>().ok());
    let Some(command) = value(section, "command") else {
        return import.left(name, "it has no `command`");
    };
    let copies =
        number("numprocs").filter(|copies| *copies > 1).and_then(|copies| u32::try_from(copies).ok());
    let expand = |text: &str, import: &mut Import| expand(text, name, origin, copies.is_some(), import);
    let command = expand(&command, import);
    // supervisord runs no shell: words are words.
    let mut server = match shlex::split(&command).map(Vec::into_iter) {
        Some(mut words) => match words.next() {
            Some(command) => Server { command, args: words.collect(), ..Server::default() },
            None => return import.left(name, "its `command` is empty"),
        },
        None => return import.left(name, format!("its command has a quote without its end: {command}")),
    };
    server.name = name.to_owned();
    server.instances = copies;
    server.working_dir = value(section, "directory").map(|text| expand(&text, import));
    server.user = value(section, "user");
    server.umask = value(section, "umask");
    if let Some(text) = value(section, "environment") {
        match environment(&text) {
            Some(variables) => {
                for (key, text) in variables {
                    let text = expand(&text, import);
                    server.env.insert(key, text);
                }
            }
            None => import.left(name, format!("its environment, which is not KEY=\"value\",..: {text}")),
        }
    }
    server.autostart = value(section, "autostart").filter(|text| is(text, false)).map(|_| false);
    server.restart.policy = match value(section, "autorestart").as_deref() {
        None | Some("unexpected") => None,
        Some(text) if is(text, true) => Some("Always"),
        Some(text) if is(text, false) => Some("Never"),
        Some(other) => {
            import.left(name, format!("autorestart={other}, which has no meaning"));
            None
        }
    };
    if let Some(text) = value(section, "stopsignal") {
        match signal(&text) {
            Some(signal) => server.stop.signal = Some(signal),
            None => import.left(name, format!("stopsignal={text}; TERM is sent")),
        }
    }
    server.stop.grace = number("stopwaitsecs");
    for (key, text) in section {
        let text = text.as_deref().unwrap_or_default().trim();
        let what = match key.as_str() {
            "command" | "numprocs" | "directory" | "user" | "umask" | "environment" | "autostart"
            | "autorestart" | "stopsignal" | "stopwaitsecs" => continue,
            key if IMPLIED.contains(&key) => continue,
            "stdout_logfile" | "stderr_logfile" => {
                format!("{key}={text}; `xyctl logs {}` shows its output", plain_name(name))
            }
            "process_name" if copies.is_none() => continue,
            "startsecs" => format!("startsecs={text}; a probe says better when it is up, see `ready`"),
            "startretries" => format!("startretries={text}; see `restart: (max_retries_per_minute: ..)`"),
            "priority" => format!("priority={text}; see `depends_on`"),
            "exitcodes" if text == "0" => continue,
            "exitcodes" => format!("exitcodes={text}; only 0 is an expected end"),
            key => format!("{key}={text}"),
        };
        import.left(name, what);
    }
    import.add(server);
}

fn is(text: &str, truth: bool) -> bool {
    let words: &[&str] = if truth { &["true", "yes", "on", "1"] } else { &["false", "no", "off", "0"] };
    words.contains(&text.to_ascii_lowercase().as_str())
}

/// Fills in `%(name)s`.
fn expand(text: &str, name: &str, origin: &Origin, is_numbered: bool, import: &mut Import) -> String {
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
        let end = rest.find(')').map(|close| {
            let kind = rest[close + 1..].find(|c: char| c.is_ascii_alphabetic());
            (close, close + 1 + kind.unwrap_or(0) + 1)
        });
        let Some((close, end)) = end.filter(|(_, end)| rest.starts_with("%(") && *end <= rest.len()) else {
            out.push('%');
            rest = &rest[1..];
            continue;
        };
        let whole = &rest[..end];
        match &rest[2..close] {
            "here" => out.push_str(&origin.directory.display().to_string()),
            "program_name" | "group_name" => out.push_str(name),
            "process_num" if is_numbered => {
                import.left(name, format!("{whole} counts from 0 there, `{{instance}}` from 1 here"));
                out.push_str("{instance}");
            }
            "process_num" => out.push('0'),
            variable if variable.starts_with("ENV_") => match std::env::var(&variable[4..]) {
                Ok(value) => out.push_str(&value),
                Err(_) => {
                    import.left(name, format!("{whole}: the variable is not set here"));
                    out.push_str(whole);
                }
            },
            _ => {
                import.left(name, format!("{whole} is passed as it is written"));
                out.push_str(whole);
            }
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Reads `KEY="value",OTHER=value`.
fn environment(text: &str) -> Option<Vec<(String, String)>> {
    let mut variables = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| *c == '"' || *c == '\'');
        let (value, after) = match quote {
            Some(quote) => after[1..].split_once(quote)?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        variables.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(variables)
}
