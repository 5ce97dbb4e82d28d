//! Owned handles of driver objects, destroyed on drop.

#![expect(unsafe_code, reason = "destroys driver objects")]

use cudarc::driver::sys;

/// Defines an owned handle of a driver object. The owner of a handle ensures that its context
/// outlives it and is current when it is dropped.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $destroy:path) => {
        $(#[$doc])*
        pub(super) struct $name($raw);

        // SAFETY: driver objects are not bound to a thread: any thread in which the context is
        // current may use them. Objects that the driver does not synchronize (graphs) are protected
        // by a lock.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// Takes ownership of a new driver object.
            pub(super) fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// Returns the driver's handle, valid as long as this value.
            pub(super) fn raw(&self) -> $raw {
                self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: `self.0` was created by the driver and is destroyed only here. The result
                // is ignored: a lost device has destroyed the object already.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}

handle!(
    /// Owned event.
    EventHandle,
    sys::CUevent,
    sys::cuEventDestroy_v2
);
handle!(
    /// Owned stream.
    StreamHandle,
    sys::CUstream,
    sys::cuStreamDestroy_v2
);
handle!(
    /// Owned graph before instantiation.
    GraphHandle,
    sys::CUgraph,
    sys::cuGraphDestroy
);
handle!(
    /// Owned instantiated graph.
    GraphExecHandle,
    sys::CUgraphExec,
    sys::cuGraphExecDestroy
);
handle!(
    /// Owned green context.
    GreenHandle,
    sys::CUgreenCtx,
    sys::cuGreenCtxDestroy
);
handle!(
    /// Retained reference to the primary context of a device.
    PrimaryHandle,
    sys::CUdevice,
    sys::cuDevicePrimaryCtxRelease_v2
);
