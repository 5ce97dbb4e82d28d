//! Worker processes: this program, started with `--worker`.

use super::{ending, print};
use anyhow::Context;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tandem_evaluation::campaign::{BoxError, SupervisorError, Worker};

/// Returns the command that starts a worker: the program that is running, even if its file was
/// replaced since, with the same arguments.
pub(super) fn command() -> Result<Command, BoxError> {
    let mut command = this_program()?;
    command.args(std::env::args_os().skip(1)).arg("--worker");
    Ok(command)
}

fn this_program() -> anyhow::Result<Command> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        const THIS_PROGRAM: &str = "/proc/self/exe";
        std::fs::symlink_metadata(THIS_PROGRAM).with_context(|| {
            format!("cannot find this program as {THIS_PROGRAM}: /proc must be mounted")
        })?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg0("tandem");
        Ok(command)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let path = std::env::current_exe().context("cannot find this program to start workers")?;
        Ok(Command::new(path))
    }
}

/// Adds the reason why a worker could not be started, if it is a missing `/proc`.
pub(super) fn with_reason(error: SupervisorError) -> anyhow::Error {
    match error {
        SupervisorError::Start(source)
            if cfg!(target_os = "linux") && !std::path::Path::new("/proc/self/exe").exists() =>
        {
            anyhow::Error::new(source).context(
                "cannot start a worker process: this program is found as /proc/self/exe, and /proc \
                 is not mounted",
            )
        }
        other => other.into(),
    }
}

/// Makes this process a worker, which exits soon after its parent exits or closes its standard
/// input.
pub(super) fn become_worker() -> anyhow::Result<Worker> {
    let cancel = Arc::new(AtomicBool::new(false));
    // Ctrl-C reaches every process of the terminal; the parent process ends its workers.
    ending::set_on_signal(&cancel)?;
    Ok(Worker::start(cancel, print::line, || ending::exit_soon())?)
}
