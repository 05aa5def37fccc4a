//! Exit codes; the numbers of sysexits.h where it has one that fits.

/// Stopped as asked.
pub const CLEAN: u8 = 0;
/// Something that should not happen: a panic, see [`when_unexpected`].
pub const UNEXPECTED: u8 = 1;
/// The configuration or the command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// What it needs on this machine is not there, such as its state directory (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The Manager refused the token or stopped this delegate (`EX_CONFIG`): starting again does not help.
pub const REFUSED: u8 = 78;

/// From now on a panic, wherever it is, ends the process with [`UNEXPECTED`] after the usual words on standard
/// error: half a delegate would be worse than one that is started again.
pub fn when_unexpected() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::exit(UNEXPECTED.into());
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Tells the test below that it is the process that panics.
    const CHILD: &str = "LEGATION_TEST_PANICS";

    #[test]
    fn a_panic_ends_with_the_code_that_is_promised() {
        if std::env::var_os(CHILD).is_some() {
            when_unexpected();
            panic!("on purpose");
        }
        let mut again = Command::new(std::env::current_exe().expect("a running test has a path"));
        let name = "exit::tests::a_panic_ends_with_the_code_that_is_promised";
        let output = again.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().expect("it starts");
        assert_eq!(output.status.code(), Some(UNEXPECTED.into()));
        assert!(String::from_utf8_lossy(&output.stderr).contains("on purpose"));
    }
}
