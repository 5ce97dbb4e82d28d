//! Worker processes: this program again, started with `--worker`.

use super::{ending, print};
use anyhow::Context;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tandem_evaluation::campaign::{BoxError, SupervisorError, Worker};

/// The command that starts a worker: this very program, even if its file was replaced since it was
/// started, with the same arguments.
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

/// Says why this program cannot be started again, as far as that is known.
pub(super) fn explained(error: SupervisorError) -> anyhow::Error {
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

/// Becomes a worker: from now on this process ends soon after the one that started it, or when that
/// one closes its standard input.
pub(super) fn become_worker() -> anyhow::Result<Worker> {
    let cancel = Arc::new(AtomicBool::new(false));
    // Ctrl-C reaches every process of the terminal; the one that started this one ends it.
    ending::set_on_signal(&cancel)?;
    Ok(Worker::start(cancel, print::line, || ending::exit_soon())?)
}
