//! Claims on units: each unit is driven by at most one process at a time, of all processes that use
//! the result folder, on one machine or several.
//!
//! A claim is a file that is written completely and then hard-linked to its name. Creating a link
//! is exclusive on local and network file systems; no other file-system guarantee is needed.
//!
//! ```text
//! claims/RouteScenario_1711_rep0.0    claim of a process that died
//! claims/RouteScenario_1711_rep0.1    claim of the process that took over
//! ```
//!
//! The claim of the highest generation is valid, and generations have no gaps. Taking over
//! from a dead process is creating the next generation, which succeeds for only one of several
//! processes. Claims are never replaced or moved, so a newer claim cannot be lost. Once a
//! result exists, claims are removed, newest first. A process that obtains a claim checks for
//! a result before it drives.

use crate::scoring::{WriteError, write_new};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem_timing::wall_time_unix_s;

/// Process that holds a claim, identified uniquely among all that may use the same folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    /// Process id on the host.
    pub process: u32,
    /// Start time in clock ticks after boot, because process ids are reused.
    started: Option<u64>,
    /// `/etc/machine-id`; `None` if it does not exist.
    machine: Option<String>,
    /// Id of the machine's current boot.
    boot: Option<String>,
    /// PID namespace, because containers on one machine have separate process ids.
    namespace: Option<String>,
    /// Time of the claim, seconds since the Unix epoch.
    since_unix_s: u64,
}

/// State of a holder's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Alive,
    Dead,
    Unknown,
}

impl Holder {
    /// Returns this process as holder, with the current time.
    pub fn this_process() -> Self {
        let line = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let process = std::process::id();
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        Self {
            host: line("/proc/sys/kernel/hostname").unwrap_or_else(|| "an unnamed host".to_owned()),
            process,
            started: started(process),
            machine: line("/etc/machine-id"),
            boot: line("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.map(|link| link.to_string_lossy().into_owned()),
            since_unix_s: wall_time_unix_s(),
        }
    }

    /// Returns the state of this process as far as `owner`, a running process, can determine it.
    fn fate(&self, owner: &Self) -> Fate {
        if self.boot.is_none() || owner.boot.is_none() {
            return Fate::Unknown;
        }
        if self.boot != owner.boot {
            // After a reboot of the same machine the process no longer exists. Processes on other
            // machines cannot be checked.
            let is_same_machine =
                self.machine.is_some() && self.machine == owner.machine && self.host == owner.host;
            return if is_same_machine { Fate::Dead } else { Fate::Unknown };
        }
        if self.namespace.is_none() || self.namespace != owner.namespace {
            return Fate::Unknown;
        }
        match started(self.process) {
            Some(started) if Some(started) == self.started => Fate::Alive,
            Some(_) => Fate::Dead,
            None if is_hidden(self.process) => Fate::Alive,
            None => Fate::Dead,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age_s = wall_time_unix_s().saturating_sub(self.since_unix_s);
        write!(f, "process {} on {}, for {} min", self.process, self.host, age_s / 60)
    }
}

/// Returns the start time of a running process, in clock ticks after boot; `None` if no process has
/// this id, or it is a zombie.
fn started(process: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may contain any
    // text; the third is the state.
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let has_ended = matches!(state, "Z" | "X" | "x");
    fields.nth(18).filter(|_| !has_ended)?.parse().ok()
}

/// True for a process of another user where `/proc` shows only the user's own processes.
#[cfg(target_os = "linux")]
fn is_hidden(process: u32) -> bool {
    let number = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let tested = number.map(rustix::process::test_kill_process);
    tested.is_some_and(|result| result == Err(rustix::io::Errno::PERM))
}

#[cfg(not(target_os = "linux"))]
fn is_hidden(_process: u32) -> bool {
    false
}

/// JSON content of a claim file.
#[derive(Serialize, Deserialize)]
struct ClaimFile {
    /// `None` for a claim that voids the previous generation.
    holder: Option<Holder>,
}

/// Claim of this process; dropping it releases the unit.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    id: String,
    generation: u32,
}

/// Result of an attempt to claim a unit.
#[derive(Debug)]
pub(super) enum ClaimOutcome {
    /// This process holds the claim.
    Claimed(Claim),
    /// A running process on this machine holds the claim.
    InProgress,
    /// A process that may run on another machine holds the claim; `None`
    /// if the claim can't be read.
    Elsewhere(Option<Holder>),
}

/// Error returned when a claim can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot read claim {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Claims the unit `id` in a folder of claims for `owner`, unless another
/// holder is or may be alive.
pub(super) fn claim(folder: &Path, id: &str, owner: &Holder) -> Result<ClaimOutcome, ClaimError> {
    loop {
        let newest = newest(folder, id)?;
        let generation = match newest {
            None => 0,
            Some((generation, ClaimState::Void)) => generation + 1,
            Some((_, ClaimState::Unreadable)) => return Ok(ClaimOutcome::Elsewhere(None)),
            Some((generation, ClaimState::Held(holder))) => match holder.fate(owner) {
                Fate::Alive => return Ok(ClaimOutcome::InProgress),
                Fate::Unknown => return Ok(ClaimOutcome::Elsewhere(Some(holder))),
                Fate::Dead => generation + 1,
            },
        };
        let holder = Holder { since_unix_s: wall_time_unix_s(), ..owner.clone() };
        if write_new(&path(folder, id, generation), &ClaimFile { holder: Some(holder) })? {
            return Ok(ClaimOutcome::Claimed(Claim {
                folder: folder.to_owned(),
                id: id.to_owned(),
                generation,
            }));
        }
        // Another process created this generation first: read its claim.
    }
}

/// Declares the claim of `id` void if its holder may be alive on another
/// machine. Returns true if it did.
pub(super) fn take_over(folder: &Path, id: &str, owner: &Holder) -> Result<bool, ClaimError> {
    let generation = match newest(folder, id)? {
        Some((generation, ClaimState::Unreadable)) => generation,
        Some((generation, ClaimState::Held(holder))) if holder.fate(owner) == Fate::Unknown => {
            generation
        }
        _ => return Ok(false),
    };
    Ok(write_new(&path(folder, id, generation + 1), &ClaimFile { holder: None })?)
}

/// Removes all claims of a unit that has a result.
pub(super) fn clear(folder: &Path, id: &str) {
    let mut generation = 0;
    while path(folder, id, generation).exists() {
        generation += 1;
    }
    remove_down_from(folder, id, generation);
}

/// Removes claims newest first, so that an interruption leaves no gap.
fn remove_down_from(folder: &Path, id: &str, generation: u32) {
    for generation in (0..=generation).rev() {
        // Another process may have removed it. A remaining claim is removed when
        // the result is found again.
        let _ = fs::remove_file(path(folder, id, generation));
    }
}

enum ClaimState {
    Held(Holder),
    Void,
    Unreadable,
}

/// Returns the newest claim, which is the valid one, with its generation.
fn newest(folder: &Path, id: &str) -> Result<Option<(u32, ClaimState)>, ClaimError> {
    let mut newest = None;
    for generation in 0.. {
        let path = path(folder, id, generation);
        match fs::read(&path) {
            Ok(text) => newest = Some((generation, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(source) => return Err(ClaimError::Read { path, source }),
        }
    }
    Ok(newest.map(|(generation, text)| {
        let state = match serde_json::from_slice(&text) {
            Ok(ClaimFile { holder: Some(holder) }) => ClaimState::Held(holder),
            Ok(ClaimFile { holder: None }) => ClaimState::Void,
            Err(_) => ClaimState::Unreadable,
        };
        (generation, state)
    }))
}

fn path(folder: &Path, id: &str, generation: u32) -> PathBuf {
    folder.join(format!("{id}.{generation}"))
}

impl Claim {
    /// Ends the claim after the unit's result was written.
    pub(super) fn finish(self) {
        remove_down_from(&self.folder, &self.id, self.generation);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A claim that was taken over is kept: removing it would leave a gap below the
        // newer one. If it is kept by mistake, its process ends soon and the claim
        // becomes that of a dead process.
        if !path(&self.folder, &self.id, self.generation + 1).exists() {
            let _ = fs::remove_file(path(&self.folder, &self.id, self.generation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ID: &str = "RouteScenario_1_rep0";

    fn files(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn write_claim_of(folder: &Path, holder: &Holder, generation: u32) {
        let file = ClaimFile { holder: Some(holder.clone()) };
        assert!(write_new(&path(folder, ID, generation), &file).unwrap());
    }

    /// Holder of a process on this machine that has ended.
    fn dead() -> Holder {
        let owner = Holder::this_process();
        Holder { started: owner.started.map(|started| started.wrapping_sub(1)), ..owner }
    }

    #[test]
    fn unit_has_one_holder_until_released() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Holder::this_process();
        let ClaimOutcome::Claimed(claimed) = claim(folder.path(), ID, &owner).unwrap() else {
            panic!()
        };
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::InProgress));
        drop(claimed);
        let ClaimOutcome::Claimed(claimed) = claim(folder.path(), ID, &owner).unwrap() else {
            panic!()
        };
        claimed.finish();
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn one_of_many_takes_over_from_a_dead_process() {
        for round in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            write_claim_of(folder.path(), &dead(), 0);
            let owner = Holder::this_process();
            let (start, winners) = (Barrier::new(8), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        if let ClaimOutcome::Claimed(claimed) =
                            claim(folder.path(), ID, &owner).unwrap()
                        {
                            winners.fetch_add(1, Ordering::Relaxed);
                            std::mem::forget(claimed);
                        }
                    });
                }
            });
            assert_eq!(winners.into_inner(), 1, "round {round}");
        }
    }

    #[test]
    fn late_reader_of_a_dead_claim_cannot_replace_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        write_claim_of(folder.path(), &dead(), 0);
        let owner = Holder::this_process();
        let ClaimOutcome::Claimed(_claim) = claim(folder.path(), ID, &owner).unwrap() else {
            panic!()
        };
        // The late reader read generation 0 as dead, and tries to link generation 1.
        let late = ClaimFile { holder: Some(owner.clone()) };
        assert!(!write_new(&path(folder.path(), ID, 1), &late).unwrap());
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::InProgress));
    }

    #[test]
    fn claims_of_other_machines_are_taken_over_only_on_request() {
        let owner = Holder::this_process();
        let other = |boot: &str, machine: &str, namespace: &str| Holder {
            boot: Some(boot.to_owned()),
            machine: Some(machine.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..owner.clone()
        };
        let here = Holder { machine: Some("m".to_owned()), ..owner.clone() };
        let (boot, names) = (owner.boot.clone().unwrap(), owner.namespace.clone().unwrap());
        assert_eq!(other("b", "other", &names).fate(&here), Fate::Unknown, "another machine");
        assert_eq!(other(&boot, "m", "pid:[1]").fate(&here), Fate::Unknown, "another container");
        assert_eq!(
            other("b", "m", &names).fate(&here),
            Fate::Dead,
            "before the machine's last boot"
        );
        assert_eq!(Holder { boot: None, ..owner.clone() }.fate(&owner), Fate::Unknown);
        assert_eq!(owner.fate(&owner), Fate::Alive);

        let folder = tempfile::tempdir().unwrap();
        write_claim_of(folder.path(), &other("b", "other", &names), 0);
        assert!(matches!(
            claim(folder.path(), ID, &owner).unwrap(),
            ClaimOutcome::Elsewhere(Some(_))
        ));
        assert!(take_over(folder.path(), ID, &owner).unwrap());
        assert!(!take_over(folder.path(), ID, &owner).unwrap(), "once");
        let ClaimOutcome::Claimed(claimed) = claim(folder.path(), ID, &owner).unwrap() else {
            panic!()
        };
        assert!(!take_over(folder.path(), ID, &owner).unwrap(), "never from the living");
        claimed.finish();
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn unreadable_claim_counts_as_held_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path(), ID, 0), "{").unwrap();
        let owner = Holder::this_process();
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::Elsewhere(None)));
        assert!(take_over(folder.path(), ID, &owner).unwrap());
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::Claimed(_)));
    }
}
