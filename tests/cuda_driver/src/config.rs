//! Settings of the fake driver, read from the environment of the test process.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `CUDA_STANDIN_SCHEDULE` | `late` or `random` | `late` |
//! | `CUDA_STANDIN_SEED` | seed of the random schedule | 0 |
//! | `CUDA_STANDIN_REPORT` | file that violations and called functions are appended to | none |
//! | `CUDA_STANDIN_FAIL` | `FUNCTION:N:CODE,…`: the N-th call of FUNCTION returns CODE | none |
//! | `CUDA_STANDIN_FAULT` | `N:CODE`: the N-th executed copy or memset fails with CODE | none |
//! | `CUDA_STANDIN_LOST` | `N:CODE`: the device is lost at the N-th call | none |
//! | `CUDA_STANDIN_MEMORY` | bytes of device memory | 8 GiB |
//! | `CUDA_STANDIN_MULTIPROCESSORS` | number of multiprocessors | 132 |
//! | `CUDA_STANDIN_COMPUTE_CAPABILITY` | `MAJOR.MINOR` | 9.0 |
//! | `CUDA_STANDIN_DEVICES` | number of devices, 0 or 1 | 1 |
//! | `CUDA_STANDIN_DRIVER` | version of CUDA, as `cuDriverGetVersion` returns it | 13000 |

use crate::code::Code;

/// Schedule of enqueued work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Schedule {
    /// Work runs only when something waits for it, and only the work that the wait requires.
    Late,
    /// Work may run at any call, on streams that a seeded generator chooses.
    Random(u64),
}

/// A failure of the N-th call of a function.
#[derive(Clone, Debug)]
pub(crate) struct FailingCall {
    pub(crate) function: String,
    pub(crate) number: u64,
    pub(crate) code: Code,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) schedule: Schedule,
    pub(crate) report: Option<std::path::PathBuf>,
    pub(crate) failing_calls: Vec<FailingCall>,
    pub(crate) fault: Option<(u64, Code)>,
    pub(crate) lost: Option<(u64, Code)>,
    pub(crate) memory_bytes: u64,
    pub(crate) multiprocessors: u32,
    pub(crate) compute_capability: (u32, u32),
    pub(crate) devices: i32,
    pub(crate) driver_version: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schedule: Schedule::Late,
            report: None,
            failing_calls: Vec::new(),
            fault: None,
            lost: None,
            memory_bytes: 8 << 30,
            multiprocessors: 132,
            compute_capability: (9, 0),
            devices: 1,
            driver_version: 13_000,
        }
    }
}

impl Config {
    /// Reads the settings of this process. Panics if the value of a variable is not valid, because the
    /// test that set it is wrong.
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(&|name| {
            #[expect(
                clippy::disallowed_methods,
                reason = "a test process configures the fake driver by it"
            )]
            std::env::var(format!("CUDA_STANDIN_{name}")).ok()
        })
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let default = Self::default();
        let number = |name: &str, default: u64| match variable(name) {
            Some(text) => parsed(name, &text),
            None => default,
        };
        let numbered_code = |name: &str| {
            variable(name).map(|text| {
                let (number, code) = split(name, &text, ':');
                (parsed(name, number), Code(parsed(name, code)))
            })
        };
        let schedule = match variable("SCHEDULE").as_deref() {
            None | Some("late") => Schedule::Late,
            Some("random") => Schedule::Random(number("SEED", 0)),
            Some(other) => panic!("CUDA_STANDIN_SCHEDULE is {other:?}, not `late` or `random`"),
        };
        let failing_calls = variable("FAIL").unwrap_or_default();
        let failing_calls = failing_calls.split(',').filter(|item| !item.is_empty()).map(|item| {
            let (function, rest) = split("FAIL", item, ':');
            let (number, code) = split("FAIL", rest, ':');
            FailingCall {
                function: function.to_owned(),
                number: parsed("FAIL", number),
                code: Code(parsed("FAIL", code)),
            }
        });
        let compute_capability = variable("COMPUTE_CAPABILITY").map(|text| {
            let (major, minor) = split("COMPUTE_CAPABILITY", &text, '.');
            (parsed("COMPUTE_CAPABILITY", major), parsed("COMPUTE_CAPABILITY", minor))
        });
        Self {
            schedule,
            report: variable("REPORT").map(Into::into),
            failing_calls: failing_calls.collect(),
            fault: numbered_code("FAULT"),
            lost: numbered_code("LOST"),
            memory_bytes: number("MEMORY", default.memory_bytes),
            multiprocessors: number("MULTIPROCESSORS", default.multiprocessors.into()) as u32,
            compute_capability: compute_capability.unwrap_or(default.compute_capability),
            devices: number("DEVICES", default.devices as u64) as i32,
            driver_version: number("DRIVER", default.driver_version as u64) as i32,
        }
    }
}

fn split<'a>(name: &str, text: &'a str, at: char) -> (&'a str, &'a str) {
    text.split_once(at).unwrap_or_else(|| panic!("CUDA_STANDIN_{name}: {text:?} has no {at:?}"))
}

fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("CUDA_STANDIN_{name}: {text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read() {
        let config = Config::from_variables(&|name| {
            let value = match name {
                "SCHEDULE" => "random",
                "SEED" => "7",
                "FAIL" => "cuMemAlloc_v2:3:2,cuStreamCreate:1:999",
                "FAULT" => "5:700",
                "COMPUTE_CAPABILITY" => "8.6",
                _ => return None,
            };
            Some(value.to_owned())
        });
        assert_eq!(config.schedule, Schedule::Random(7));
        assert_eq!(config.failing_calls.len(), 2);
        assert_eq!(config.failing_calls[0].code, Code::OUT_OF_MEMORY);
        assert_eq!(config.fault, Some((5, Code::ILLEGAL_ADDRESS)));
        assert_eq!(config.compute_capability, (8, 6));
        assert_eq!(config.multiprocessors, 132);
    }
}
