//! Recovers truncated or damaged recordings.

use super::RecordingError;
use super::messages::Messages;
use super::reader::{Ticks, damaged, first_message, messages_of};
use super::writer::Output;
use mcap::Message;
use std::fs::{self, File, TryLockError};
use std::io::BufReader;
use std::path::Path;
use tandem_files::open_regular;
use tandem_scene::{FrameId, Observation};
use tandem_timing::Timestamp;

/// Result of recovering a recording.
pub struct Recovery {
    /// Number of recovered ticks.
    pub ticks: u64,
    /// Last recovered tick and its time.
    pub last: Option<(FrameId, Timestamp)>,
    /// Size of the new recording.
    pub bytes: u64,
    /// `None` if at most the index after the last tick was damaged.
    pub loss: Option<Loss>,
}

/// Part of a recording that was not kept.
pub struct Loss {
    pub reason: String,
    /// Number of bytes before the lost part.
    pub kept_bytes: u64,
    /// Size of the damaged recording.
    pub total_bytes: u64,
}

/// Writes the ticks of `partial` before its first damage atomically to `path`.
/// Messages are copied unchanged.
///
/// # Errors
/// If `partial` is missing, still being written, or damaged before the end of its plan, or
/// if `path` can't be written.
pub fn recover(partial: &Path, path: &Path) -> Result<Recovery, RecordingError> {
    let unreadable = |source| RecordingError::Open { path: partial.to_owned(), source };
    let file = open_regular(partial).map_err(unreadable)?;
    let total_bytes = file.metadata().map_err(unreadable)?.len();
    // Held until the end: the lock also prevents the writer of the new file from removing `partial`
    // as the leftover of a killed writer.
    if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
        return Err(RecordingError::InUse { path: partial.to_owned() });
    }
    if let (Ok(from), Ok(to)) = (fs::canonicalize(partial), fs::canonicalize(path))
        && from == to
    {
        let reason = "it is the recording to recover; name another file".to_owned();
        return Err(RecordingError::Write { path: path.to_owned(), reason });
    }
    let mut messages = messages_of(file);
    let (_, plan) = first_message(partial, &mut messages).map_err(|error| {
        RecordingError::Lost { path: partial.to_owned(), reason: reason_of(error) }
    })?;
    let mut output = Output::create(path)?;
    output.copy(&plan)?;
    let mut source = Source { path: partial, messages, ticks: Ticks::new(partial) };
    let (mut ticks, mut last, mut kept_bytes) = (0, None, source.messages.bytes_read());
    let damage = loop {
        match source.tick() {
            Ok(None) => break None,
            Err(error) => break Some(error),
            Ok(Some((observation, messages))) => {
                for message in messages {
                    output.copy(&message)?;
                }
                output.end_chunk()?;
                ticks += 1;
                last = Some((observation.frame, observation.time));
                kept_bytes = source.messages.bytes_read();
            }
        }
    };
    let bytes = output.finish()?;
    // Only an index follows the messages, and it was rebuilt.
    let is_of_index = |error: &RecordingError| {
        source.messages.are_complete() && matches!(error, RecordingError::File { .. })
    };
    let damage = damage.filter(|error| !is_of_index(error));
    let loss = damage.map(|error| Loss { reason: reason_of(error), kept_bytes, total_bytes });
    Ok(Recovery { ticks, last, bytes, loss })
}

/// Recording that may be damaged.
struct Source<'a> {
    path: &'a Path,
    messages: Messages<BufReader<File>>,
    ticks: Ticks,
}

impl Source<'_> {
    /// Returns the next tick with the messages since the last one; `None` at
    /// the end of a complete file.
    fn tick(&mut self) -> Result<Option<(Observation, Vec<Message<'static>>)>, RecordingError> {
        let mut messages = Vec::new();
        for message in self.messages.by_ref() {
            let message = message.map_err(|error| damaged(self.path, &error))?;
            let observation = self.ticks.take(&message)?;
            messages.push(message);
            if let Some(observation) = observation {
                return Ok(Some((observation, messages)));
            }
        }
        self.ticks.end().map(|()| None)
    }
}

/// Returns the reason of an error, without the file and the advice.
fn reason_of(error: RecordingError) -> String {
    match error {
        RecordingError::File { reason, .. } | RecordingError::Channel { reason, .. } => reason,
        RecordingError::Message { topic, reason, .. } => format!("{topic} message: {reason}"),
        other => other.to_string(),
    }
}
