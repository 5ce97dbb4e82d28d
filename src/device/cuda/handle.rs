//! The driver's objects, each destroyed once by whoever holds it.

#![expect(unsafe_code, reason = "destroys the driver's objects")]

use cudarc::driver::sys;

/// An owned object of the driver. Its context is current where it is dropped, and outlives it: the
/// structs that hold one see to both.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $destroy:path) => {
        $(#[$doc])*
        pub(super) struct $name($raw);

        // SAFETY: the driver's objects have no thread of their own: any thread that has the context
        // current may use them. Those that the driver does not guard itself (graphs) stand behind a
        // lock.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// Takes over what the driver has just made.
            pub(super) fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The driver's name for it, valid as long as this value.
            pub(super) fn raw(&self) -> $raw {
                self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the object came from the driver and is destroyed only here. What the driver
                // answers can be acted on by nobody: a lost device has destroyed it already.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}

handle!(
    /// An event.
    EventHandle,
    sys::CUevent,
    sys::cuEventDestroy_v2
);
handle!(
    /// A stream.
    StreamHandle,
    sys::CUstream,
    sys::cuStreamDestroy_v2
);
handle!(
    /// Captured work, as a description.
    GraphHandle,
    sys::CUgraph,
    sys::cuGraphDestroy
);
handle!(
    /// Captured work that can be launched.
    GraphExecHandle,
    sys::CUgraphExec,
    sys::cuGraphExecDestroy
);
handle!(
    /// A part of the device's multiprocessors.
    GreenHandle,
    sys::CUgreenCtx,
    sys::cuGreenCtxDestroy
);
handle!(
    /// One retain of the device's primary context, named by the device.
    PrimaryHandle,
    sys::CUdevice,
    sys::cuDevicePrimaryCtxRelease_v2
);
