//! The exit codes: stable, so that scripts may rely on them.
//!
//! Those of `legation` itself lie from 110 on, so that `task run` can hand through what the task's own program
//! says.

/// Done.
pub const OK: u8 = 0;
/// Something unforeseen; the message says what.
pub const UNEXPECTED: u8 = 1;
/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;
/// Nobody answers at the address, or not as a Manager does.
pub const UNREACHABLE: u8 = 110;
/// The API key is missing, not accepted, or may not do this.
pub const NOT_ALLOWED: u8 = 111;
/// There is no such thing, or the API key may not see it.
pub const NOT_FOUND: u8 = 112;
/// The Manager refused because of a rule.
pub const REFUSED: u8 = 113;
/// The Manager cannot now; the same command may succeed later.
pub const UNAVAILABLE: u8 = 114;
/// It could hurt and nobody said yes.
pub const NOT_CONFIRMED: u8 = 115;
/// A settings file, key file or argument file is missing, unreadable or open to others.
pub const SETTINGS: u8 = 116;
/// `up`: the Manager or the delegate could not be started, or ended by itself.
pub const CHILD_DIED: u8 = 117;
/// `verify`: what was signed is not what is there.
pub const NOT_GENUINE: u8 = 118;
/// The task failed without an exit code of its own (an HTTP status of 400 or above, for example).
pub const TASK_FAILED: u8 = 120;
/// The task was cancelled.
pub const TASK_CANCELLED: u8 = 121;
/// The task's delegate is gone; what it did is not known.
pub const TASK_LOST: u8 = 122;
/// No delegate took the task.
pub const TASK_REJECTED: u8 = 123;
/// The task ran longer than its timeout, as timeout(1) says it.
pub const TASK_TIMED_OUT: u8 = 124;
/// Left by Ctrl-C while the task goes on.
pub const INTERRUPTED: u8 = 130;

/// The table at the end of `--help`.
pub const HELP: &str = "\
Exit codes:
    0  done
    1  something unforeseen
    2  the command line is wrong
  110  nobody answers at the address, or not as a Manager does
  111  the API key is missing, not accepted, or may not do this
  112  no such thing, or the API key may not see it
  113  the Manager refused because of a rule
  114  the Manager cannot now; try again later
  115  it could hurt and nobody said yes (--yes)
  116  a settings, key or argument file is missing, unreadable or open to others
  117  up: the Manager or the delegate could not be started or ended by itself
  118  verify: the file is not what the Manager signed
  130  left by Ctrl-C

task run and task logs --follow hand through the exit code of a failed task's program, or say:
  120  failed without an exit code    121  cancelled    122  lost    123  rejected    124  timed out

Settings come from flags, then LEGATION_URL, LEGATION_API_KEY and LEGATION_CA_FILE, then session.toml, which
login writes and logout removes, then cli.toml, both in $LEGATION_CONFIG_DIR, $XDG_CONFIG_HOME/legation or
~/.config/legation.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_once() {
        let codes = [
            OK,
            UNEXPECTED,
            USAGE,
            UNREACHABLE,
            NOT_ALLOWED,
            NOT_FOUND,
            REFUSED,
            UNAVAILABLE,
            NOT_CONFIRMED,
            SETTINGS,
            CHILD_DIED,
            NOT_GENUINE,
            TASK_FAILED,
            TASK_CANCELLED,
            TASK_LOST,
            TASK_REJECTED,
            TASK_TIMED_OUT,
            INTERRUPTED,
        ];
        for code in codes {
            assert_eq!(codes.iter().filter(|other| **other == code).count(), 1);
            assert!(HELP.split_whitespace().any(|word| word == code.to_string()), "{code}");
        }
    }
}
