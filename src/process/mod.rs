//! Starts external programs in a controlled environment.
//!
//! A program runs in a folder that its caller created for it, is searched only in absolute folders of
//! `PATH`, and does not receive environment variables through which code is loaded. It has a time limit
//! and is killed when this process ends for any reason.

use crate::timing::Stopwatch;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// Poll period while a program runs.
const POLL: Duration = Duration::from_millis(20);

/// Longest wait for the output of a program that has ended: another program may have its pipes open.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

/// Program on this machine.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

/// Exit status and output of a program that ended within its time limit.
#[derive(Debug)]
pub struct ProgramOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Error returned when a program could not be started or did not end in time.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("cannot start {}: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("{} did not end within {} s and was killed", path.display(), limit.as_secs())]
    TimedOut { path: PathBuf, limit: Duration },
}

impl Program {
    /// Finds `name` in the absolute folders of `PATH`. Relative folders depend on the current folder,
    /// which may contain files of other users.
    pub fn find(name: &str) -> Option<Self> {
        let path = search_path()?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find_map(|path| {
            let is_program = path.is_file() && is_executable(&path);
            is_program.then_some(Self { path })
        })
    }

    /// Refers to the program in the file `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Runs the program in `folder`, which should be empty and private, without standard input.
    /// After `limit` it is killed with all processes that it started. `waiting` is called while it
    /// runs, with the elapsed time. Fails if it cannot be started, or does not end in time.
    pub fn run(
        &self,
        arguments: &[&OsStr],
        folder: &Path,
        limit: Duration,
        waiting: &mut dyn FnMut(Duration),
    ) -> Result<ProgramOutput, ProgramError> {
        let refused = |source| ProgramError::Start { path: self.path.clone(), source };
        if !self.path.is_file() {
            return Err(refused(io::ErrorKind::NotFound.into()));
        }
        let mut command = supervised(&self.path, arguments);
        clean(&mut command);
        command
            .current_dir(folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(refused)?;
        let lifeline = child.stdin.take();
        let stdout = collect(child.stdout.take()).map_err(refused)?;
        let stderr = collect(child.stderr.take()).map_err(refused)?;
        let watch = Stopwatch::start();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(refused)? {
                break status;
            }
            let passed = watch.elapsed();
            if passed >= limit {
                drop(lifeline);
                // Fails if the program has just ended by itself.
                let _ = child.kill();
                child.wait().map_err(refused)?;
                return Err(ProgramError::TimedOut { path: self.path.clone(), limit });
            }
            waiting(passed);
            watch.sleep_until(passed + POLL);
        };
        drop(lifeline);
        Ok(ProgramOutput { status, stdout: text_of(&stdout), stderr: text_of(&stderr) })
    }
}

/// Runs `program` in a new process group that is killed when the write end of its standard input
/// closes: when the run is over, or when this process ends, by any signal. A background shell in the
/// group waits for that; the program replaces the other shell.
#[cfg(unix)]
fn supervised(program: &Path, arguments: &[&OsStr]) -> Command {
    use std::os::unix::process::CommandExt;
    const SCRIPT: &str = "exec 3<&0 </dev/null\n\
                          { read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 &\n\
                          exec \"$@\" 3<&-";
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(SCRIPT).arg("sh").arg(program).args(arguments).process_group(0);
    command
}

#[cfg(not(unix))]
fn supervised(program: &Path, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Variables through which loaders and shells load code, and the prefix of Python's variables.
const CODE_VARIABLES: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "ENV", "BASH_ENV"];
const PYTHON_VARIABLES: &str = "PYTHON";

fn loads_code(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with(PYTHON_VARIABLES) || CODE_VARIABLES.contains(&&*name)
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| loads_code(name)) {
        command.env_remove(name);
    }
    if let Some(path) = search_path() {
        command.env("PATH", path);
    }
}

/// Returns `PATH` without its relative folders.
#[expect(clippy::disallowed_methods, reason = "programs are found in the environment's folders")]
fn search_path() -> Option<OsString> {
    let path = std::env::var_os("PATH")?;
    let absolute = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    std::env::join_paths(absolute).ok()
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    true
}

/// Reads a pipe to its end on a separate thread, so that the program never blocks on a full pipe.
fn collect(pipe: Option<impl Read + Send + 'static>) -> io::Result<Receiver<Vec<u8>>> {
    let (send, receive) = sync_channel(1);
    let mut pipe = pipe.expect("the command was configured with this pipe");
    thread::Builder::new().name("program output".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        // After an error, the bytes read so far are returned.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(bytes);
    })?;
    Ok(receive)
}

fn text_of(output: &Receiver<Vec<u8>>) -> String {
    let bytes = output.recv_timeout(OUTPUT_PATIENCE).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    const MINUTE: Duration = Duration::from_secs(60);

    fn sh() -> Program {
        Program::find("sh").expect("every system has a shell")
    }

    fn run(script: &str, folder: &Path, limit: Duration) -> Result<ProgramOutput, ProgramError> {
        sh().run(&["-c".as_ref(), script.as_ref()], folder, limit, &mut |_| {})
    }

    #[test]
    fn output_and_exit_status_are_returned() {
        let folder = tempfile::tempdir().unwrap();
        let ended = run("echo out; echo err >&2; exit 3", folder.path(), MINUTE).unwrap();
        assert_eq!((&*ended.stdout, &*ended.stderr), ("out\n", "err\n"));
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn program_gets_its_folder_and_no_code_loading_variables() {
        let folder = tempfile::tempdir().unwrap();
        let ended = run("pwd -P; env", folder.path(), MINUTE).unwrap();
        let place = folder.path().canonicalize().unwrap();
        assert_eq!(ended.stdout.lines().next(), place.to_str());
        for line in ended.stdout.lines().skip(1) {
            let name = line.split('=').next().unwrap();
            assert!(!loads_code(name.as_ref()), "{line}");
        }
        for name in ["PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "LD_PRELOAD"] {
            assert!(loads_code(name.as_ref()), "{name}");
        }
        for name in ["PIP_INDEX_URL", "HOME", "HTTPS_PROXY", "LD_LIBRARY_PATH"] {
            assert!(!loads_code(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn search_path_has_only_absolute_folders() {
        let path = search_path().unwrap();
        assert!(std::env::split_paths(&path).all(|folder| folder.is_absolute()));
    }

    #[test]
    fn program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 1000 & echo $! > child; echo $$ > program; wait";
        let started = folder.path().join("program");
        // The callback blocks until both processes run, before the limit is checked again.
        let error = sh()
            .run(
                &["-c".as_ref(), script.as_ref()],
                folder.path(),
                Duration::from_secs(2),
                &mut |_| {
                    while !started.exists() {
                        thread::sleep(POLL);
                    }
                },
            )
            .unwrap_err();
        assert!(matches!(error, ProgramError::TimedOut { .. }), "{error}");
        for name in ["child", "program"] {
            let id = fs::read_to_string(folder.path().join(name)).unwrap();
            gone(id.trim());
        }
    }

    /// Waits until the process has ended; zombies count as ended.
    fn gone(id: &str) {
        let watch = Stopwatch::start();
        let runs = || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
        };
        while runs() {
            assert!(watch.elapsed() < MINUTE, "process {id} is still running");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn missing_program_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::at(folder.path().join("nothing"));
        let error = program.run(&[], folder.path(), MINUTE, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("cannot start") && error.contains("nothing"), "{error}");
    }
}
