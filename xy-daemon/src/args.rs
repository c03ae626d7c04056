//! The command line of `xyd`.

use std::path::PathBuf;

use clap::Parser;

/// Keeps servers running and restarts those that crash.
///
/// Reads one file per server and exposes them over a local socket; `xyctl` is the other end. Runs in the foreground,
/// logs to stderr, reloads on SIGHUP and ends everything on SIGTERM and SIGINT.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "xyd",
    version,
    after_help = "Exit codes: 0 success, 3 configuration invalid, 64 usage, 70 internal error, 75 another instance runs."
)]
pub struct Arguments {
    /// The configuration directory, with `xyd.ron` and `servers/NAME.ron`
    ///
    /// The default is `$XDG_CONFIG_HOME/xy`, else `~/.config/xy`.
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,

    /// The local socket to listen on
    ///
    /// The default is `$XY_SOCKET`, else `xyd.sock` in the runtime directory.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Check the configuration, print every mistake, and exit
    #[arg(long)]
    pub check: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_is_optional_and_read() {
        let bare = Arguments::try_parse_from(["xyd"]).expect("no option is required");
        assert_eq!(bare, Arguments { config: None, socket: None, check: false });
        let full = Arguments::try_parse_from(["xyd", "--config", "/c", "--socket", "/s", "--check"])
            .expect("all options are known");
        assert_eq!(full, Arguments { config: Some("/c".into()), socket: Some("/s".into()), check: true });
    }

    #[test]
    fn unknown_options_and_operands_are_usage_errors() {
        for line in [["xyd", "--confg"], ["xyd", "dir"]] {
            let error = Arguments::try_parse_from(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
