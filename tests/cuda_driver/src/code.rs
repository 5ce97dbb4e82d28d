//! Result codes of the driver.
//!
//! CUDA Driver API, "Data types used by CUDA driver", enumeration `CUresult`.

/// A result code, as the driver returns it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub u32);

/// Result of a call. The code is never [`Code::SUCCESS`].
pub(crate) type Outcome<T = ()> = Result<T, Code>;

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Returns name and description of the code; `None` for a code that is not defined here.
            pub(crate) fn strings(self) -> Option<(&'static std::ffi::CStr, &'static std::ffi::CStr)> {
                let c = |text: &'static str| {
                    std::ffi::CStr::from_bytes_with_nul(text.as_bytes()).expect("ends with a zero")
                };
                match self.0 {
                    0 => Some((c("CUDA_SUCCESS\0"), c("no error\0"))),
                    $($number => {
                        Some((c(concat!("CUDA_ERROR_", stringify!($name), "\0")), c(concat!($text, "\0"))))
                    })*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1, "invalid argument";
    OUT_OF_MEMORY = 2, "out of memory";
    NOT_INITIALIZED = 3, "initialization error";
    DEVICE_UNAVAILABLE = 46, "device is busy or unavailable";
    NO_DEVICE = 100, "no device";
    INVALID_DEVICE = 101, "invalid device ordinal";
    INVALID_CONTEXT = 201, "invalid device context";
    ECC_UNCORRECTABLE = 214, "uncorrectable ECC error";
    INVALID_HANDLE = 400, "invalid resource handle";
    ILLEGAL_STATE = 401, "the operation cannot be performed in the present state";
    NOT_READY = 600, "device not ready";
    ILLEGAL_ADDRESS = 700, "an illegal memory access was encountered";
    CONTEXT_IS_DESTROYED = 709, "context is destroyed";
    LAUNCH_FAILED = 719, "unspecified launch failure";
    NOT_SUPPORTED = 801, "operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, "operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, "operation failed due to a previous error during capture";
    STREAM_CAPTURE_MERGE = 902, "operation would merge two capture sequences";
    STREAM_CAPTURE_UNMATCHED = 903, "the capture was not begun on this stream";
    STREAM_CAPTURE_UNJOINED = 904, "the capture contains a fork that was not joined";
    STREAM_CAPTURE_ISOLATION = 905, "the dependency would cross the boundary of the capture";
    CAPTURED_EVENT = 907, "operation not permitted on an event last recorded in a capture";
    STREAM_CAPTURE_WRONG_THREAD = 908, "a capture was ended on another thread than it began on";
    INVALID_RESOURCE_TYPE = 914, "invalid resource type";
    INVALID_RESOURCE_CONFIGURATION = 915, "invalid resource configuration";
    UNKNOWN = 999, "unknown error";
}

impl Code {
    /// Result of a call that succeeded.
    pub const SUCCESS: Self = Self(0);
}
