//! The two lanes: each with multiprocessors of its own (green contexts), or by priority.

#![expect(unsafe_code, reason = "calls the driver")]

use super::clock;
use super::context::{Context, message};
use super::event_context::EventContext;
use super::handle::{GreenHandle, StreamHandle};
use super::stream::{CudaStream, RawStream};
use crate::device::{DeviceError, Lanes, Sharing};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevResource, CUdevResourceType};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

/// The two lanes, split if `fast_share` asks for it and the device can be.
pub(super) fn lanes(context: &Arc<Context>, fast_share: Option<f64>) -> Result<Lanes, DeviceError> {
    context.bind()?;
    let (least, greatest) =
        context.check("asking for priorities", result::stream::get_priority_range())?;
    let split = match fast_share {
        None => Err(None),
        Some(share) => {
            split(context, share, Priorities { fast: greatest, slow: least }).map_err(Some)
        }
    };
    let (fast, slow, sharing) = match split {
        Ok(split) => split,
        Err(instead) => {
            let stream = |priority| {
                let kind = result::stream::StreamKind::NonBlocking;
                let raw = result::stream::create_with_priority(kind, priority);
                let raw = StreamHandle::new(context.check("making a stream", raw)?);
                Ok(RawStream::new(raw, Arc::clone(context.events()), context))
            };
            (stream(greatest)?, stream(least)?, Sharing::Priorities { instead })
        }
    };
    Ok(Lanes {
        fast: Arc::new(CudaStream::new(fast, context)),
        slow: Arc::new(CudaStream::new(slow, context)),
        sharing,
    })
}

/// Priorities of the two streams, which also order what they do not have for themselves: copies.
#[derive(Clone, Copy)]
struct Priorities {
    fast: i32,
    slow: i32,
}

/// Two green contexts that together have every multiprocessor, with a stream each; the primary
/// context then has no stream that work goes to. Fails with the reason why the device stays whole.
fn split(
    context: &Arc<Context>,
    share: f64,
    priorities: Priorities,
) -> Result<(RawStream, RawStream, Sharing), String> {
    let all = multiprocessors(context.device()).map_err(message)?;
    let total = count(&all);
    let asked = fast_multiprocessors(share, total).ok_or_else(|| {
        format!("a share of {share} of {total} multiprocessors leaves a lane without")
    })?;
    let (fast, slow) = divide(&all, asked).map_err(message)?;
    if count(&slow) == 0 {
        return Err(format!(
            "a share of {share} is rounded up to {} of {total} multiprocessors, which leaves the slow \
             lane without",
            count(&fast)
        ));
    }
    let sharing = Sharing::Partitions { fast: count(&fast), slow: count(&slow) };
    let fast = green_stream(context, fast, priorities.fast).map_err(message)?;
    let slow = green_stream(context, slow, priorities.slow).map_err(message)?;
    for stream in [&fast, &slow] {
        try_events(stream)
            .map_err(|error| format!("its streams do not take events: {}", message(error)))?;
    }
    Ok((fast, slow, sharing))
}

/// Multiprocessors to ask for, rounded up; `None` if one of the lanes would have none.
fn fast_multiprocessors(share: f64, total: u32) -> Option<u32> {
    let asked = (share * f64::from(total)).ceil();
    (asked >= 1.0 && asked < f64::from(total)).then_some(asked as u32)
}

/// All multiprocessors of a device.
fn multiprocessors(device: sys::CUdevice) -> Result<CUdevResource, DriverError> {
    // Zeroed: a driver older than the declarations leaves their newest field as it is.
    let mut all = MaybeUninit::zeroed();
    let kind = CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
    // SAFETY: the device came from the driver, and there is room for the answer.
    unsafe { sys::cuDeviceGetDevResource(device, all.as_mut_ptr(), kind) }.result()?;
    // SAFETY: the driver reported that it wrote the answer.
    Ok(unsafe { all.assume_init() })
}

/// How many multiprocessors a resource has.
fn count(resource: &CUdevResource) -> u32 {
    if resource.type_ != CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM {
        return 0;
    }
    // SAFETY: the type says that this is the field that was written.
    unsafe { resource.__bindgen_anon_1.sm }.smCount
}

/// Divides multiprocessors into at least `asked`, as the architecture's granularity has it, and the
/// rest.
fn divide(all: &CUdevResource, asked: u32) -> Result<(CUdevResource, CUdevResource), DriverError> {
    let (mut part, mut rest) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    let mut parts = 1;
    // SAFETY: there is room for one part and the rest, which is as many as are asked for.
    unsafe {
        sys::cuDevSmResourceSplitByCount(
            part.as_mut_ptr(),
            &raw mut parts,
            all,
            rest.as_mut_ptr(),
            0,
            asked,
        )
    }
    .result()?;
    if parts == 0 {
        return Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION));
    }
    // SAFETY: the driver reported one part, which it wrote.
    let part = unsafe { part.assume_init() };
    // SAFETY: the driver wrote the rest, or left the zeros, which are a resource of no type.
    Ok((part, unsafe { rest.assume_init() }))
}

/// A stream with multiprocessors of its own.
fn green_stream(
    context: &Arc<Context>,
    mut resource: CUdevResource,
    priority: i32,
) -> Result<RawStream, DriverError> {
    let mut description = ptr::null_mut();
    // SAFETY: one resource, as the driver gave it; the description belongs to the driver.
    unsafe { sys::cuDevResourceGenerateDesc(&raw mut description, &raw mut resource, 1) }
        .result()?;
    let mut green = ptr::null_mut();
    let flags = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;
    // SAFETY: the description was just made, for this device.
    unsafe { sys::cuGreenCtxCreate(&raw mut green, description, context.device(), flags) }
        .result()?;
    let green = GreenHandle::new(green);
    let of = green.raw();
    let stream = || {
        let mut stream = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the green context is alive, and outlives the stream (`RawStream`, `EventContext`).
        unsafe { sys::cuGreenCtxStreamCreate(&raw mut stream, of, flags, priority) }.result()?;
        Ok(StreamHandle::new(stream))
    };
    let idle = stream()?;
    let home = EventContext::green(green, idle, context.raw())?;
    Ok(RawStream::new(stream()?, Arc::new(home), context))
}

/// Whether a stream takes events of its context, and the clock can read them.
fn try_events(stream: &RawStream) -> Result<(), DriverError> {
    let event = stream.home().create_event()?;
    clock::record(&event, stream.handle())?;
    // SAFETY: the event is alive and was recorded on a stream without other work.
    unsafe { result::event::synchronize(event.raw()) }?;
    stream.home().time_of(&event).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_leaves_both_lanes_something() {
        assert_eq!(fast_multiprocessors(0.25, 132), Some(33));
        assert_eq!(fast_multiprocessors(0.1, 132), Some(14));
        assert_eq!(fast_multiprocessors(1e-9, 132), Some(1));
        for share in [0.0, -1.0, 1.0, 1.5, 0.999, f64::NAN, f64::INFINITY] {
            assert_eq!(fast_multiprocessors(share, 132), None, "{share}");
        }
    }
}
