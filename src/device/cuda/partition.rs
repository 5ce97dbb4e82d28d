//! Streams of the two experts, with separate multiprocessors (green contexts) or with priorities.

#![expect(unsafe_code, reason = "calls the driver")]

use super::clock;
use super::context::{Context, message};
use super::event_context::EventContext;
use super::handle::{GreenHandle, StreamHandle};
use super::stream::{CudaStream, RawStream};
use crate::device::{DeviceError, ExpertStreams, Sharing};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevResource, CUdevResourceType};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

/// Creates the two streams, on a partitioned device if `fast_share` is set
/// and partitioning is possible.
pub(super) fn streams(
    context: &Arc<Context>,
    fast_share: Option<f64>,
) -> Result<ExpertStreams, DeviceError> {
    context.bind()?;
    let (least, greatest) =
        context.check("querying stream priorities", result::stream::get_priority_range())?;
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
                let raw = StreamHandle::new(context.check("creating a stream", raw)?);
                Ok(RawStream::new(raw, Arc::clone(context.events()), context))
            };
            (stream(greatest)?, stream(least)?, Sharing::Priorities { instead })
        }
    };
    Ok(ExpertStreams {
        fast: Arc::new(CudaStream::new(fast, context)),
        slow: Arc::new(CudaStream::new(slow, context)),
        sharing,
    })
}

/// Priorities of the two streams. They also order resources shared by a
/// partitioned device, such as copies.
#[derive(Clone, Copy)]
struct Priorities {
    fast: i32,
    slow: i32,
}

/// Creates two green contexts that together have every multiprocessor, with one stream
/// each; the primary context then has no working stream. Fails with the reason why the
/// device cannot be partitioned.
fn split(
    context: &Arc<Context>,
    share: f64,
    priorities: Priorities,
) -> Result<(RawStream, RawStream, Sharing), String> {
    let all = multiprocessors(context.device()).map_err(message)?;
    let total = count(&all);
    let requested = fast_multiprocessors(share, total).ok_or_else(|| {
        format!("a share of {share} of {total} multiprocessors leaves one stream without any")
    })?;
    let (fast, slow) = divide(&all, requested).map_err(message)?;
    if count(&slow) == 0 {
        return Err(format!(
            "a share of {share} is rounded up to {} of {total} multiprocessors, which leaves the slow \
             stream without any",
            count(&fast)
        ));
    }
    let sharing = Sharing::Partitions { fast: count(&fast), slow: count(&slow) };
    let fast = green_stream(context, fast, priorities.fast).map_err(message)?;
    let slow = green_stream(context, slow, priorities.slow).map_err(message)?;
    for stream in [&fast, &slow] {
        try_events(stream).map_err(|error| {
            format!("events cannot be recorded on its streams: {}", message(error))
        })?;
    }
    Ok((fast, slow, sharing))
}

/// Returns the number of multiprocessors to request, rounded up; `None`
/// if a stream would have none.
fn fast_multiprocessors(share: f64, total: u32) -> Option<u32> {
    let requested = (share * f64::from(total)).ceil();
    (requested >= 1.0 && requested < f64::from(total)).then_some(requested as u32)
}

/// Returns all multiprocessors of a device.
fn multiprocessors(device: sys::CUdevice) -> Result<CUdevResource, DriverError> {
    // Zeroed, because a driver older than the declarations does not write their newest field.
    let mut all = MaybeUninit::zeroed();
    let kind = CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
    // SAFETY: `device` was returned by the driver, and `all` is writable.
    unsafe { sys::cuDeviceGetDevResource(device, all.as_mut_ptr(), kind) }.result()?;
    // SAFETY: the driver reported success, so `all` is initialized.
    Ok(unsafe { all.assume_init() })
}

/// Returns the number of multiprocessors of a resource.
fn count(resource: &CUdevResource) -> u32 {
    if resource.type_ != CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM {
        return 0;
    }
    // SAFETY: `type_` identifies this field as the initialized one.
    unsafe { resource.__bindgen_anon_1.sm }.smCount
}

/// Divides multiprocessors into a part of at least `requested`, rounded up to the architecture's
/// granularity, and the rest.
fn divide(
    all: &CUdevResource,
    requested: u32,
) -> Result<(CUdevResource, CUdevResource), DriverError> {
    let (mut part, mut rest) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    let mut parts = 1;
    // SAFETY: `part` has room for the one requested part, and `rest` is writable.
    unsafe {
        sys::cuDevSmResourceSplitByCount(
            part.as_mut_ptr(),
            &raw mut parts,
            all,
            rest.as_mut_ptr(),
            0,
            requested,
        )
    }
    .result()?;
    if parts == 0 {
        return Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION));
    }
    // SAFETY: the driver reported one part, so `part` is initialized.
    let part = unsafe { part.assume_init() };
    // SAFETY: the driver wrote `rest` or left its zeros, which are a resource without a type.
    Ok((part, unsafe { rest.assume_init() }))
}

/// Creates a stream with its own multiprocessors.
fn green_stream(
    context: &Arc<Context>,
    mut resource: CUdevResource,
    priority: i32,
) -> Result<RawStream, DriverError> {
    let mut description = ptr::null_mut();
    // SAFETY: `resource` is one resource returned by the driver, and `description` is writable.
    unsafe { sys::cuDevResourceGenerateDesc(&raw mut description, &raw mut resource, 1) }
        .result()?;
    let mut green = ptr::null_mut();
    let flags = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;
    // SAFETY: `description` was just created for this device, and `green` is writable.
    unsafe { sys::cuGreenCtxCreate(&raw mut green, description, context.device(), flags) }
        .result()?;
    let green = GreenHandle::new(green);
    let of = green.raw();
    let stream = || {
        let mut stream = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the green context `of` is alive and outlives the stream (`RawStream`,
        // `EventContext`).
        unsafe { sys::cuGreenCtxStreamCreate(&raw mut stream, of, flags, priority) }.result()?;
        Ok(StreamHandle::new(stream))
    };
    let idle = stream()?;
    let events = EventContext::green(green, idle, context.raw())?;
    Ok(RawStream::new(stream()?, Arc::new(events), context))
}

/// Checks that events can be recorded on a stream and read by the clock.
fn try_events(stream: &RawStream) -> Result<(), DriverError> {
    let event = stream.event_context().create_event()?;
    clock::record(&event, stream.handle())?;
    // SAFETY: `event` is alive and was recorded.
    unsafe { result::event::synchronize(event.raw()) }?;
    stream.event_context().time_of(&event).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_rounded_up_and_leaves_no_stream_empty() {
        assert_eq!(fast_multiprocessors(0.25, 132), Some(33));
        assert_eq!(fast_multiprocessors(0.1, 132), Some(14));
        assert_eq!(fast_multiprocessors(1e-9, 132), Some(1));
        for share in [0.0, -1.0, 1.0, 1.5, 0.999, f64::NAN, f64::INFINITY] {
            assert_eq!(fast_multiprocessors(share, 132), None, "{share}");
        }
    }
}
