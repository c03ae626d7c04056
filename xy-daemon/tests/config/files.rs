//! The directory and its files: which count, which names and owners are refused, and who gets a port.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{chown, symlink};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use xy_daemon::config::{Config, LoadError, LoadOptions, Trust, check_commands};

use crate::support::{Directory, chmod, errors, options};

const SOUND: &str = "Process(command: \"a\")";

#[test]
fn a_missing_directory_means_no_servers() {
    let root = tempfile::tempdir().expect("a temporary directory");
    for directory in [root.path().to_owned(), root.path().join("absent/xy")] {
        assert_eq!(Config::load(&directory, &options()).expect("nothing is wrong"), Config::default());
    }
}

#[test]
fn a_bad_file_leaves_the_others_alone() {
    let config = Directory::new()
        .write("servers/a.ron", SOUND)
        .write("servers/b.ron", "Process(")
        .write("servers/c.ron", SOUND)
        .load();
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(config.rejected.iter().map(|file| &file.name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn droppings_of_editors_and_other_endings_are_ignored() {
    let directory = Directory::new();
    for name in
        ["web.ron~", ".#web.ron", ".web.ron", "#web.ron#", "web.ron.bak", "web.ron.swp", "README", "web.RON"]
    {
        directory.write(&format!("servers/{name}"), "(((");
    }
    assert_eq!(directory.load(), Config::default());
}

#[test]
fn a_bad_name_is_refused_with_the_rule() {
    let config = Directory::new()
        .write("servers/My Web.ron", SOUND)
        .write("servers/-x.ron", SOUND)
        .write("servers/a.b.ron", SOUND)
        .load();
    let rule = "a name is 1 to 64 characters of `a-z`, `0-9`, `_` and `-` and does not begin with `-`";
    assert_eq!(
        errors(&config),
        format!(
            "servers/-x.ron: `-x` is not a server name; {rule}\n\
             servers/My Web.ron: `My Web` is not a server name; {rule}\n\
             servers/a.b.ron: `a.b` is not a server name; {rule}"
        )
    );
}

#[test]
fn what_is_no_readable_text_file_is_refused_for_its_own_reason() {
    let directory = Directory::new();
    fs::create_dir(directory.path("servers/directory.ron")).expect("a directory");
    symlink("nowhere", directory.path("servers/dangling.ron")).expect("a link");
    symlink("loop.ron", directory.path("servers/loop.ron")).expect("a link");
    mkfifo(&directory.path("servers/fifo.ron"), Mode::from_bits_truncate(0o600)).expect("a fifo");
    directory.write("servers/large.ron", format!("{SOUND}{}", " ".repeat(1 << 20)));
    directory.write("servers/binary.ron", b"Process(\n  \xc3\xa4\xff");
    assert_eq!(
        errors(&directory.load()),
        "servers/binary.ron:2:4: is not UTF-8 text\n\
         servers/dangling.ron: is a symbolic link to a file that does not exist\n\
         servers/directory.ron: is a directory, expected a file\n\
         servers/fifo.ron: is not a regular file\n\
         servers/large.ron: is larger than 1 MiB\n\
         servers/loop.ron: cannot be opened: too many levels of symbolic links"
    );
}

#[test]
fn a_file_of_exactly_one_mebibyte_is_read() {
    let text = format!("{SOUND}{}", " ".repeat((1 << 20) - SOUND.len()));
    assert_eq!(errors(&Directory::new().write("servers/web.ron", text).load()), "");
}

#[test]
fn an_unreadable_file_is_refused() {
    if Uid::effective().is_root() {
        // Root reads everything.
        return;
    }
    let directory = Directory::new();
    directory.write("servers/web.ron", SOUND);
    chmod(directory.path("servers/web.ron"), 0o000);
    assert_eq!(errors(&directory.load()), "servers/web.ron: cannot be opened: permission denied");
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_of_the_whole() {
    let directory = Directory::new();
    directory.write("file", "");
    let options = LoadOptions { servers: Some(directory.path("file")), ..options() };
    let error = Config::load(directory.root(), &options).expect_err("a file is no directory");
    assert!(matches!(error, LoadError::Directory { .. }), "{error:?}");
}

#[test]
fn a_link_to_a_sound_file_is_followed() {
    let directory = Directory::new();
    directory.write("elsewhere", SOUND);
    symlink("../elsewhere", directory.path("servers/web.ron")).expect("a link");
    assert_eq!(errors(&directory.load()), "");
}

#[test]
fn a_file_that_others_can_write_is_refused_even_behind_a_link() {
    let directory = Directory::new();
    directory.write("servers/web.ron", SOUND).write("elsewhere", SOUND);
    symlink("../elsewhere", directory.path("servers/link.ron")).expect("a link");
    chmod(directory.path("servers/web.ron"), 0o646);
    chmod(directory.path("elsewhere"), 0o646);
    let text = errors(&directory.load());
    let mut lines = text.lines();
    for name in ["link", "web"] {
        let line = lines.next().unwrap_or_default();
        assert!(
            line.starts_with(&format!("servers/{name}.ron: is writable by everybody; `chmod o-w ")),
            "{text}"
        );
    }
    let vouched = LoadOptions { trust: Trust::Unchecked, ..options() };
    let config = Config::load(directory.root(), &vouched).expect("sound settings");
    assert_eq!(errors(&config), "");
}

#[test]
fn a_link_into_a_shared_directory_is_refused() {
    let directory = Directory::new();
    fs::create_dir(directory.path("elsewhere")).expect("a directory");
    directory.write("elsewhere/web", SOUND);
    symlink("../elsewhere/web", directory.path("servers/web.ron")).expect("a link");
    chmod(directory.path("elsewhere"), 0o1777);
    let text = errors(&directory.load());
    assert!(text.starts_with("servers/web.ron: its directory is writable by everybody"), "{text}");
}

#[test]
fn settings_that_others_can_write_are_refused() {
    let directory = Directory::new();
    directory.write("xyd.ron", "()");
    chmod(directory.path("xyd.ron"), 0o666);
    let error = directory.try_load().expect_err("others can write it").to_string();
    assert!(error.starts_with("xyd.ron: is writable by everybody"), "{error}");
}

#[test]
fn a_directory_that_others_can_write_spoils_its_files() {
    let directory = Directory::new();
    directory.write("servers/web.ron", SOUND);
    for mode in [0o757, 0o1777] {
        chmod(directory.path("servers"), mode);
        let text = errors(&directory.load());
        assert!(
            text.starts_with("servers/web.ron: its directory is writable by everybody"),
            "{mode:o}: {text}"
        );
    }
}

#[test]
fn for_root_foreign_owners_shared_groups_and_open_parents_are_refused() {
    if !Uid::effective().is_root() {
        // Nobody else can give files away.
        return;
    }
    let directory = Directory::new();
    directory.write("servers/owner.ron", SOUND).write("servers/group.ron", SOUND);
    chown(directory.path("servers/owner.ron"), Some(12_345), None).expect("root may");
    chown(directory.path("servers/group.ron"), None, Some(12_345)).expect("root may");
    chmod(directory.path("servers/group.ron"), 0o664);
    let text = errors(&directory.load());
    assert!(text.contains("servers/group.ron: is writable by group 12345; `chmod g-w "), "{text}");
    assert!(
        text.contains("servers/owner.ron: belongs to user 12345, expected root or user 0; `chown 0 "),
        "{text}"
    );

    let parent = Directory::new();
    parent.write("servers/web.ron", SOUND);
    chmod(parent.root(), 0o777);
    let text = errors(&parent.load());
    assert!(
        text.starts_with("servers/web.ron: directory `") && text.contains("is writable by everybody"),
        "{text}"
    );
}

#[test]
fn at_boot_the_first_by_name_gets_a_port_that_two_want() {
    let config = Directory::new()
        .write("servers/b.ron", "Process(command: \"b\", port: 8421)")
        .write("servers/a.ron", "Process(command: \"a\", port: 8421)")
        .write("servers/c.ron", "Process(command: \"c\", port: 8422)")
        .load();
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(
        errors(&config),
        "servers/b.ron:1:29: port: port 8421 belongs to server `a`; give one of them another port"
    );
}

#[test]
fn a_directory_of_server_files_can_stand_anywhere() {
    let directory = Directory::new();
    fs::create_dir(directory.path("mine")).expect("a directory");
    chmod(directory.path("mine"), 0o755);
    directory.write("servers/a.ron", SOUND).write("mine/b.ron", SOUND).write("mine/c.ron", "");
    let options = LoadOptions { servers: Some(directory.path("mine")), ..options() };
    let config = Config::load(directory.root(), &options).expect("sound settings");
    assert_eq!(config.servers.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(errors(&config), "mine/c.ron: is empty, expected `Process(command: \"..\")`");
}

#[test]
fn environment_values_do_not_show_in_debug_output() {
    let config = Directory::new()
        .write("servers/web.ron", "Process(command: \"a\", env: {\"SECRET\": \"hunter2\"})")
        .load();
    let text = format!("{config:?}");
    assert!(text.contains("SECRET") && !text.contains("hunter2"), "{text}");
}

#[test]
fn programs_interpreters_and_directories_that_are_missing_are_told_without_a_rejection() {
    let directory = Directory::new();
    fs::create_dir(directory.path("bin")).expect("a directory");
    for (name, text, mode) in [
        ("sound", "#!/bin/sh\n", 0o755),
        ("by-env", "#!/usr/bin/env sound\n", 0o755),
        ("no-env", "#! /usr/bin/env no-such-node\n", 0o755),
        ("no-interpreter", "#!/no/such/interpreter -x\n", 0o755),
        ("plain", "#!/bin/sh\n", 0o644),
    ] {
        directory.write(&format!("bin/{name}"), text);
        chmod(directory.path("bin").join(name), mode);
    }
    let bin = directory.path("bin").display().to_string();
    let root = directory.root().display().to_string();
    let process = |keys: &str| format!("Process(working_dir: {root:?}, {keys})");
    for (name, keys) in [
        ("a", "command: \"sound\""),
        ("b", "command: \"by-env\""),
        ("c", "command: \"bin/sound\""),
        ("d", "command: \"no-such-program -x\""),
        ("e", "command: \"no-env\""),
        ("f", "command: \"no-interpreter\""),
        ("g", "command: \"plain\""),
        ("h", "command: \"bin/plain\""),
        ("i", "command: \"./absent\""),
        ("j", "command: \"./bin\""),
        ("k", "command: \"sound\", env: {\"PATH\": \"/no/such/path\"}"),
    ] {
        directory.write(&format!("servers/{name}.ron"), process(keys));
    }
    directory.write("servers/l.ron", "Process(command: \"sound\", working_dir: \"/no/such/directory\")");
    let config = directory.load();
    assert_eq!(errors(&config), "");
    let warnings = check_commands(&config, OsStr::new(&bin));
    let text = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(
        text,
        format!(
            "servers/d.ron: command: there is no program `no-such-program -x` in PATH; \
             arguments go into `args`; no shell splits the command\n\
             servers/e.ron: command: `{bin}/no-env` needs its interpreter: there is no program `no-such-node` in PATH\n\
             servers/f.ron: command: `{bin}/no-interpreter` needs its interpreter: there is no program \
             `/no/such/interpreter`\n\
             servers/g.ron: command: `{bin}/plain` is not executable\n\
             servers/h.ron: command: `{bin}/plain` is not executable\n\
             servers/i.ron: command: there is no program `{root}/./absent`\n\
             servers/j.ron: command: `{root}/./bin` is not a file\n\
             servers/k.ron: command: there is no program `sound` in PATH\n\
             servers/l.ron: working_dir: there is no directory `/no/such/directory`"
        )
    );
}
