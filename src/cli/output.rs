//! What the commands print: the one place that writes to standard output and standard error.
//!
//! A reader that has seen enough (`cloakroom schema | head -1`) is no failure: what is left is for nobody, and the command
//! ends as it would have ended.

use super::FAILED;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

/// Prints to standard output, as it stands.
///
/// # Errors
/// The exit code where the text cannot be written (a full disk): that was said.
pub(super) fn print(text: &str) -> Result<(), ExitCode> {
    let mut stdout = stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cloakroom: cannot print: {error}"));
            Err(ExitCode::from(FAILED))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// As [`print`], a line.
///
/// # Errors
/// As [`print`].
pub(super) fn print_line(line: &str) -> Result<(), ExitCode> {
    print(&format!("{line}\n"))
}

/// As [`print_line`], and then the command is done: its exit code.
pub(super) fn print_last(line: &str) -> ExitCode {
    print_line(line).err().unwrap_or(ExitCode::SUCCESS)
}

/// Prints a line to standard error. Where that cannot be, there is nobody left to tell.
pub(super) fn complain(line: &str) {
    let _nobody_reads_it = stderr().lock().write_all(format!("{line}\n").as_bytes());
}
