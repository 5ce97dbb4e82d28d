//! Who drives what: at most one process at a time, on one machine or on several with one folder.
//!
//! A claim is a file that is linked into place whole. Links are exclusive on local and network file
//! systems alike, and nothing else is relied on.
//!
//! ```text
//! claims/RouteScenario_1711_rep0.0    held by a process that died
//! claims/RouteScenario_1711_rep0.1    held by the one that took over
//! ```
//!
//! The claim of the highest generation counts, and generations have no gaps. Taking over from a dead
//! holder is linking the next generation, which only one of many can do; a claim is never replaced
//! and never moved, so nobody can take away one that came meanwhile. Claims vanish, newest first, once
//! there is a result, and a winner looks for the result before it drives.

use crate::scoring::{WriteError, write_new};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem_timing::wall_time_unix_s;

/// A process, told apart from every other that may write into the same folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Name of its host.
    pub host: String,
    /// Its number there.
    pub process: u32,
    /// When it was started, in the host's clock ticks after boot: numbers are used again.
    started: Option<u64>,
    /// Which machine it is, if the machine has a name of its own (`/etc/machine-id`).
    machine: Option<String>,
    /// Which of the machine's boots.
    boot: Option<String>,
    /// Where its number counts: containers on one machine have numbers of their own.
    namespace: Option<String>,
    /// When it claimed, seconds since the Unix epoch.
    since_unix_s: u64,
}

/// What is known of a holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Alive,
    Dead,
    Unknown,
}

impl Holder {
    /// This process, now.
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

    /// What `owner`, a process that runs, can know of this one.
    fn fate(&self, owner: &Self) -> Fate {
        if self.boot.is_none() || owner.boot.is_none() {
            return Fate::Unknown;
        }
        if self.boot != owner.boot {
            // A machine that was started again has no process of before. Others' are their own affair.
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

/// When a process that runs was started, clock ticks after boot; `None` if there is none, or it has
/// ended and only waits for its parent to ask how.
fn started(process: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything; the third is the state.
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let is_over = matches!(state, "Z" | "X" | "x");
    fields.nth(18).filter(|_| !is_over)?.parse().ok()
}

/// True for a process of another user where `/proc` shows only one's own.
#[cfg(target_os = "linux")]
fn is_hidden(process: u32) -> bool {
    let number = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let asked = number.map(rustix::process::test_kill_process);
    asked.is_some_and(|asked| asked == Err(rustix::io::Errno::PERM))
}

#[cfg(not(target_os = "linux"))]
fn is_hidden(_process: u32) -> bool {
    false
}

/// What a claim file holds.
#[derive(Serialize, Deserialize)]
struct ClaimFile {
    /// `None` once somebody said that its holder is dead.
    holder: Option<Holder>,
}

/// A claim of this process; dropping it gives the unit back.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    id: String,
    generation: u32,
}

/// What came of claiming.
#[derive(Debug)]
pub(super) enum ClaimOutcome {
    /// This process has it.
    Claimed(Claim),
    /// A process that runs on this machine has it.
    InProgress,
    /// A process that may run elsewhere has it; `None` if its claim can't be read.
    Elsewhere(Option<Holder>),
}

/// A claim could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be read.
    #[error("cannot read claim {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Claims the unit `id` in a folder of claims for `owner`, unless another holder is alive or may be.
///
/// # Errors
/// If a claim can't be read or written.
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
        // Another process was faster: look at its claim.
    }
}

/// Declares the claim of `id` void if its holder may be alive elsewhere. Returns whether it did.
///
/// # Errors
/// If a claim can't be read or written.
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

/// Removes every claim of a unit that has a result.
pub(super) fn clear(folder: &Path, id: &str) {
    let mut generation = 0;
    while path(folder, id, generation).exists() {
        generation += 1;
    }
    remove_down_from(folder, id, generation);
}

/// Newest first: what is left after a crash in between has no gap.
fn remove_down_from(folder: &Path, id: &str, generation: u32) {
    for generation in (0..=generation).rev() {
        // Somebody else may have removed it; one that stays is cleared when the result is met again.
        let _ = fs::remove_file(path(folder, id, generation));
    }
}

enum ClaimState {
    Held(Holder),
    Void,
    Unreadable,
}

/// The claim that counts, with its generation.
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
    /// Ends the claim of a unit whose result is written.
    pub(super) fn finish(self) {
        remove_down_from(&self.folder, &self.id, self.generation);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // If it was taken over, it stays: removing it would leave a gap below the newer one. A claim
        // that stays by mistake is that of a process that ends soon.
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

    fn leave_claim_of(folder: &Path, holder: &Holder, generation: u32) {
        let file = ClaimFile { holder: Some(holder.clone()) };
        assert!(write_new(&path(folder, ID, generation), &file).unwrap());
    }

    /// A process of this machine that has ended.
    fn dead() -> Holder {
        let owner = Holder::this_process();
        Holder { started: owner.started.map(|started| started.wrapping_sub(1)), ..owner }
    }

    #[test]
    fn a_unit_has_one_holder_until_it_is_given_back() {
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
    fn of_many_that_take_over_from_the_dead_one_wins() {
        for round in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            leave_claim_of(folder.path(), &dead(), 0);
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
    fn a_late_reader_of_a_dead_claim_cannot_take_the_one_that_came_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        leave_claim_of(folder.path(), &dead(), 0);
        let owner = Holder::this_process();
        let ClaimOutcome::Claimed(_claim) = claim(folder.path(), ID, &owner).unwrap() else {
            panic!()
        };
        // The late one saw generation 0 dead, and links generation 1.
        let late = ClaimFile { holder: Some(owner.clone()) };
        assert!(!write_new(&path(folder.path(), ID, 1), &late).unwrap());
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::InProgress));
    }

    #[test]
    fn what_may_live_elsewhere_is_taken_over_only_when_asked() {
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
        leave_claim_of(folder.path(), &other("b", "other", &names), 0);
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
    fn an_unreadable_claim_is_nobodys_to_judge() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path(), ID, 0), "{").unwrap();
        let owner = Holder::this_process();
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::Elsewhere(None)));
        assert!(take_over(folder.path(), ID, &owner).unwrap());
        assert!(matches!(claim(folder.path(), ID, &owner).unwrap(), ClaimOutcome::Claimed(_)));
    }
}
