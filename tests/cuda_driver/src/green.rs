//! Green contexts: parts of the device's multiprocessors.

use crate::code::{Code, Outcome};
use crate::driver::Driver;
use std::collections::BTreeMap;

/// `CU_DEV_RESOURCE_TYPE_SM`.
const MULTIPROCESSORS: u32 = 1;

/// `CU_GREEN_CTX_DEFAULT_STREAM`.
const DEFAULT_STREAM: u32 = 1;

/// A set of multiprocessors (`CUdevResource`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: u32,
    /// Number of the split that created it; 0 for all multiprocessors of the device.
    pub(crate) split: u64,
    pub(crate) count: u32,
}

pub(crate) struct Green {
    /// Handle of the converted context.
    pub(crate) context: u64,
    pub(crate) is_converted: bool,
    /// Thread in which it is current, if any.
    pub(crate) current_in: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Resources {
    splits: u64,
    descriptions: BTreeMap<u64, Resource>,
}

impl Driver {
    /// `cuDeviceGetDevResource`.
    pub(crate) fn multiprocessors(&self, device: i32, kind: u32) -> Outcome<Resource> {
        self.checked_device(device)?;
        if kind != MULTIPROCESSORS {
            return Err(Code::INVALID_RESOURCE_TYPE);
        }
        Ok(Resource { kind, split: 0, count: self.config.multiprocessors })
    }

    /// Minimum size of a part, and the granularity of sizes. Manual, "Green Contexts".
    pub(crate) fn granularity(&self) -> (u32, u32) {
        match self.config.compute_capability.0 {
            0..=7 => (2, 2),
            8 => (4, 2),
            _ => (8, 8),
        }
    }

    /// `cuDevSmResourceSplitByCount`: returns up to `wanted` parts of at least `least` multiprocessors
    /// and the remainder.
    ///
    /// Manual: the input must not be an output of another split, and `least` is between 0 and the count
    /// of the input. Assumed: a part larger than the input returns an invalid configuration, and an
    /// empty remainder has no type.
    pub(crate) fn split(
        &mut self,
        input: Resource,
        wanted: u32,
        least: u32,
    ) -> Outcome<(Resource, u32, Resource)> {
        if input.kind != MULTIPROCESSORS {
            return Err(Code::INVALID_RESOURCE_TYPE);
        }
        if least > input.count {
            return Err(Code::INVALID_VALUE);
        }
        let (minimum, step) = self.granularity();
        let size = least.max(minimum).next_multiple_of(step);
        if input.split != 0 || size > input.count {
            return Err(Code::INVALID_RESOURCE_CONFIGURATION);
        }
        let parts = wanted.min(input.count / size);
        self.resources.splits += 1;
        let split = self.resources.splits;
        let part = Resource { kind: MULTIPROCESSORS, split, count: size };
        let left = input.count - parts * size;
        let kind = if left > 0 { MULTIPROCESSORS } else { 0 };
        Ok((part, parts, Resource { kind, split, count: left }))
    }

    /// `cuDevResourceGenerateDesc`: all resources must be outputs of the same split.
    pub(crate) fn describe(&mut self, resources: &[Resource]) -> Outcome<u64> {
        let first = resources.first().ok_or(Code::INVALID_VALUE)?;
        if resources.iter().any(|resource| resource.kind != MULTIPROCESSORS) {
            return Err(Code::INVALID_RESOURCE_TYPE);
        }
        if resources.iter().any(|resource| resource.split != first.split) {
            return Err(Code::INVALID_RESOURCE_CONFIGURATION);
        }
        let count = resources.iter().map(|resource| resource.count).sum();
        let handle = self.new_handle();
        self.resources.descriptions.insert(handle, Resource { count, ..*first });
        Ok(handle)
    }

    /// `cuGreenCtxCreate`: retains the primary context; the flag for a default stream is required.
    pub(crate) fn create_green(&mut self, described: u64, device: i32, flags: u32) -> Outcome<u64> {
        if !self.resources.descriptions.contains_key(&described) || flags != DEFAULT_STREAM {
            return Err(Code::INVALID_VALUE);
        }
        self.retain_primary(device)?;
        let (handle, context) = (self.new_handle(), self.new_handle());
        let green = Green { context, is_converted: false, current_in: None };
        self.contexts.green.insert(handle, green);
        Ok(handle)
    }

    fn green(&mut self, handle: u64) -> Outcome<&mut Green> {
        if !self.contexts.green.contains_key(&handle) {
            self.no_such("green context", handle);
            return Err(Code::CONTEXT_IS_DESTROYED);
        }
        Ok(self.contexts.green.get_mut(&handle).expect("checked above"))
    }

    /// Returns the handle of the converted context.
    pub(crate) fn green_context(&mut self, handle: u64) -> Outcome<u64> {
        Ok(self.green(handle)?.context)
    }

    /// `cuCtxFromGreenCtx`.
    pub(crate) fn convert_green(&mut self, handle: u64) -> Outcome<u64> {
        let green = self.green(handle)?;
        green.is_converted = true;
        Ok(green.context)
    }

    /// Manual, `cuGreenCtxDestroy`: its streams must be destroyed first, and later calls with them fail.
    /// Assumed: the same holds for its events, and for graphs captured on its streams.
    pub(crate) fn destroy_green(&mut self, handle: u64) -> Outcome {
        let context = self.green_context(handle)?;
        let streams = self.streams.values();
        let streams = streams.filter(|stream| stream.context == context && !stream.is_destroyed);
        let events = self.events.values().filter(|event| event.context == context);
        let execs = self.execs.values().filter(|exec| exec.context == context);
        let left = [
            (streams.count(), "streams"),
            (events.count(), "events"),
            (execs.count(), "graphs captured on its streams"),
        ];
        for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
            self.violation(format!("green context {handle:#x} is destroyed before {count} {what}"));
        }
        self.contexts.green.remove(&handle);
        self.destroy(handle);
        self.release_primary(0)
    }
}
