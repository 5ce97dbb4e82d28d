//! The primary context, and the current context of each thread.

use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::green::Green;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Contexts {
    /// Handle of the primary context and the number of times that it is retained.
    primary: Option<(u64, u32)>,
    /// Green contexts that exist.
    pub(crate) green: BTreeMap<u64, Green>,
}

impl Driver {
    fn device(&self, device: i32) -> Outcome {
        if device == 0 { Ok(()) } else { Err(Code::INVALID_DEVICE) }
    }

    /// Checks the ordinal, for `cuDeviceGet` and every call that names a device.
    pub(crate) fn checked_device(&self, ordinal: i32) -> Outcome<i32> {
        self.device(ordinal).map(|()| ordinal)
    }

    /// `cuDeviceGetAttribute`, for the attributes that tandem reads.
    pub(crate) fn attribute(&mut self, attribute: u32, device: i32) -> Outcome<i32> {
        self.device(device)?;
        let (major, minor) = self.config.compute_capability;
        let value = match attribute {
            16 => self.config.multiprocessors,
            75 => major,
            76 => minor,
            _ => {
                self.violation(format!("the fake driver has no device attribute {attribute}"));
                return Err(Code::INVALID_VALUE);
            }
        };
        Ok(value as i32)
    }

    /// Manual, `cuDevicePrimaryCtxRetain`: unlike `cuCtxCreate` it does not make the context current.
    pub(crate) fn retain_primary(&mut self, device: i32) -> Outcome<u64> {
        self.device(device)?;
        let (handle, retained) = self.contexts.primary.unwrap_or_else(|| (self.new_handle(), 0));
        self.contexts.primary = Some((handle, retained + 1));
        Ok(handle)
    }

    /// Manual, `cuDevicePrimaryCtxRelease`: returns an invalid context if it was not retained. The
    /// last release resets the context. Assumed: no objects of it may exist then.
    pub(crate) fn release_primary(&mut self, device: i32) -> Outcome {
        self.device(device)?;
        let (handle, retained) = self.contexts.primary.ok_or(Code::INVALID_CONTEXT)?;
        self.contexts.primary = (retained > 1).then_some((handle, retained - 1));
        if self.contexts.primary.is_none() {
            self.reset();
        }
        Ok(())
    }

    fn reset(&mut self) {
        let streams = self.streams.values().filter(|stream| !stream.is_destroyed).count();
        let left = [
            (streams, "streams"),
            (self.events.len(), "events"),
            (self.graphs.len(), "graphs"),
            (self.execs.len(), "executable graphs"),
            (self.memory.live(), "blocks of memory"),
        ];
        for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
            self.violation(format!("the context is released while it has {count} {what}"));
        }
        let handles = self.streams.keys().chain(self.events.keys());
        let handles = handles.chain(self.graphs.keys()).chain(self.execs.keys()).copied();
        self.destroyed.extend(handles.collect::<Vec<_>>());
        self.streams.clear();
        self.events.clear();
        self.graphs.clear();
        self.execs.clear();
    }

    fn is_alive(&self, context: u64) -> bool {
        self.contexts.primary.is_some_and(|(handle, _)| handle == context)
            || self.contexts.green.values().any(|green| green.context == context)
    }

    pub(crate) fn must_be_alive(&self, context: u64) -> Outcome {
        if self.is_alive(context) { Ok(()) } else { Err(Code::CONTEXT_IS_DESTROYED) }
    }

    /// Returns the current context of this thread.
    pub(crate) fn current_context(&self) -> Outcome<u64> {
        let current = self.threads[&self.thread].current;
        if current == 0 {
            return Err(Code::INVALID_CONTEXT);
        }
        self.must_be_alive(current)?;
        Ok(current)
    }

    /// Manual, `cuCtxSetCurrent`; `cuCtxFromGreenCtx`: a green context must be converted first;
    /// `cuGreenCtxCreate`: it "can be current to only one thread at a time".
    pub(crate) fn set_current(&mut self, context: u64) -> Outcome {
        if context != 0 && !self.is_alive(context) {
            return Err(Code::INVALID_CONTEXT);
        }
        let thread = self.thread;
        for green in self.contexts.green.values_mut() {
            if green.context == context {
                if !green.is_converted {
                    return Err(Code::INVALID_CONTEXT);
                }
                if green.current_in.is_some_and(|other| other != thread) {
                    self.violation("a green context is current in another thread".into());
                    return Err(Code::INVALID_CONTEXT);
                }
                green.current_in = Some(thread);
            } else if green.current_in == Some(thread) {
                green.current_in = None;
            }
        }
        self.threads.get_mut(&thread).expect("entered at each call").current = context;
        Ok(())
    }

    /// `cuMemGetInfo`: free and total memory, bytes.
    pub(crate) fn memory_info(&mut self) -> Outcome<(u64, u64)> {
        self.current_context()?;
        Ok(self.memory.free_and_total())
    }

    pub(crate) fn allocate(&mut self, bytes: u64) -> Outcome<u64> {
        self.current_context()?;
        self.unsafe_call()?;
        self.memory.allocate_device(bytes)
    }

    pub(crate) fn allocate_host(&mut self, bytes: u64) -> Outcome<u64> {
        self.current_context()?;
        self.unsafe_call()?;
        self.memory.allocate_pinned(bytes)
    }

    pub(crate) fn free(&mut self, address: u64, is_pinned: bool) -> Outcome {
        self.current_context()?;
        self.unsafe_call()?;
        let by = self.author(0);
        self.memory.free(address, is_pinned, by, &self.host, &mut self.report)
    }
}
