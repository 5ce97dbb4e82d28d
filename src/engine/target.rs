//! Targets that engines are built for, and the back ends that build them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Device that an engine is built for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A CPU with the features of the building machine's.
    Cpu,
    /// An NVIDIA GPU of this compute capability, times ten: 89 is 8.9.
    Sm(u16),
    /// The GPU of the building machine.
    Native,
}

/// Error returned when a text does not name a target.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a target; targets are cpu, native, and compute capabilities: sm75, sm80, sm86, \
     sm89, sm120, sm121 with back end tensorrt-rtx"
)]
pub struct UnknownTarget(String);

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "native" => Ok(Self::Native),
            _ => {
                let digits = match text.strip_prefix("sm") {
                    Some(digits) => digits.to_owned(),
                    None if text.contains('.') => text.replacen('.', "", 1),
                    None => return Err(UnknownTarget(text.to_owned())),
                };
                let is_number = digits.chars().all(|digit| digit.is_ascii_digit());
                let number = digits.parse().ok().filter(|_| is_number && digits.len() >= 2);
                number.map(Self::Sm).ok_or_else(|| UnknownTarget(text.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for Target {
    type Error = UnknownTarget;

    fn try_from(text: String) -> Result<Self, UnknownTarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Sm(capability) => write!(f, "sm{capability}"),
            Self::Native => write!(f, "native"),
        }
    }
}

/// Compute capabilities, times ten, that TensorRT-RTX builds for on a machine without the GPU.
pub const TENSORRT_RTX_CAPABILITIES: [u16; 6] = [75, 80, 86, 89, 120, 121];

/// Library that builds and runs engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    #[serde(rename = "onnxruntime")]
    OnnxRuntime,
    /// TensorRT-RTX, for RTX cards.
    TensorrtRtx,
    /// TensorRT, for data-center and embedded GPUs.
    Tensorrt,
}

/// Error returned when a back end does not build for the requested targets.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(
        "tensorrt-rtx does not build for {target}, only for {}; use --backend tensorrt (TensorRT 11, \
         built on such a machine), or ONNX Runtime's CUDA provider there",
        known_capabilities()
    )]
    NotRtx { target: Target },
    #[error("{backend} builds for {builds}, not for {target}; {instead}")]
    Other { backend: BackendKind, builds: &'static str, target: Target, instead: &'static str },
    #[error("{backend} cannot build one engine for {targets}")]
    Combination { backend: BackendKind, targets: String },
}

fn known_capabilities() -> String {
    let names = TENSORRT_RTX_CAPABILITIES.map(|capability| Target::Sm(capability).to_string());
    format!("{} and native", names.join(", "))
}

impl BackendKind {
    /// Returns the name used on the command line and in result files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::TensorrtRtx => "tensorrt-rtx",
            Self::Tensorrt => "tensorrt",
        }
    }

    /// Checks that this library can build one engine for all of `targets`. Fails if it does not
    /// support one of them, or not their combination.
    pub fn check_targets(self, targets: &[Target]) -> Result<(), TargetError> {
        let other = |target, builds, instead| {
            Err(TargetError::Other { backend: self, builds, target, instead })
        };
        for &target in targets {
            match (self, target) {
                (Self::OnnxRuntime, Target::Cpu) => {}
                (Self::OnnxRuntime, _) => {
                    return other(target, "cpu", "for a GPU, use --backend tensorrt-rtx");
                }
                (_, Target::Cpu) => {
                    return other(target, "GPUs", "for a CPU, use --backend onnxruntime");
                }
                (_, Target::Native) => {}
                (Self::TensorrtRtx, Target::Sm(capability)) => {
                    if !TENSORRT_RTX_CAPABILITIES.contains(&capability) {
                        return Err(TargetError::NotRtx { target });
                    }
                }
                (Self::Tensorrt, Target::Sm(_)) => {
                    return other(
                        target,
                        "native only",
                        "build on the machine with that GPU, with --target native",
                    );
                }
            }
        }
        let twice = (1..targets.len()).any(|at| targets[..at].contains(&targets[at]));
        let native_among_others = targets.len() > 1 && targets.contains(&Target::Native);
        if targets.is_empty() || twice || native_among_others {
            let targets = match targets {
                [] => "no target".to_owned(),
                _ => comma_separated(targets),
            };
            return Err(TargetError::Combination { backend: self, targets });
        }
        Ok(())
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Formats targets as the option `--target` takes them.
pub fn comma_separated(targets: &[Target]) -> String {
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(",")
}

/// Lists the architecture and vector extensions of this CPU, on which optimized graphs depend.
pub(super) fn cpu_features() -> String {
    let mut features = vec![std::env::consts::ARCH];
    let mut add = |name, is_supported: bool| {
        if is_supported {
            features.push(name);
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        add("avx", std::arch::is_x86_feature_detected!("avx"));
        add("avx2", std::arch::is_x86_feature_detected!("avx2"));
        add("fma", std::arch::is_x86_feature_detected!("fma"));
        add("avx512f", std::arch::is_x86_feature_detected!("avx512f"));
        add("avx512bw", std::arch::is_x86_feature_detected!("avx512bw"));
        add("avx512dq", std::arch::is_x86_feature_detected!("avx512dq"));
        add("avx512vl", std::arch::is_x86_feature_detected!("avx512vl"));
    }
    #[cfg(target_arch = "aarch64")]
    {
        add("neon", std::arch::is_aarch64_feature_detected!("neon"));
        add("dotprod", std::arch::is_aarch64_feature_detected!("dotprod"));
        add("fp16", std::arch::is_aarch64_feature_detected!("fp16"));
        add("bf16", std::arch::is_aarch64_feature_detected!("bf16"));
        add("i8mm", std::arch::is_aarch64_feature_detected!("i8mm"));
        add("sve", std::arch::is_aarch64_feature_detected!("sve"));
    }
    features.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<Target> {
        text.split(',').map(|word| word.parse().unwrap()).collect()
    }

    fn refused(backend: BackendKind, text: &str) -> String {
        backend.check_targets(&targets(text)).unwrap_err().to_string()
    }

    #[test]
    fn target_names_round_trip() {
        for text in ["cpu", "native", "sm75", "sm121"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("9.0".parse::<Target>().unwrap(), Target::Sm(90));
        for text in ["", "gpu", "sm", "sm8", "sm+89", "8.", "sm8x", "89"] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("sm121"), "{text:?}: {error}");
        }
    }

    #[test]
    fn hopper_and_orin_errors_name_alternatives() {
        for target in ["sm90", "8.7"] {
            let error = refused(BackendKind::TensorrtRtx, target);
            for word in ["sm86", "TensorRT 11", "CUDA provider"] {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn back_ends_reject_targets_of_others() {
        assert!(BackendKind::OnnxRuntime.check_targets(&targets("cpu")).is_ok());
        assert!(BackendKind::TensorrtRtx.check_targets(&targets("sm86,sm89,sm120")).is_ok());
        assert!(BackendKind::Tensorrt.check_targets(&targets("native")).is_ok());
        assert!(refused(BackendKind::OnnxRuntime, "sm89").contains("tensorrt-rtx"));
        assert!(refused(BackendKind::TensorrtRtx, "cpu").contains("--backend onnxruntime"));
        assert!(refused(BackendKind::Tensorrt, "sm90").contains("--target native"));
        assert!(refused(BackendKind::TensorrtRtx, "sm89,sm89").contains("sm89,sm89"));
        assert!(refused(BackendKind::TensorrtRtx, "native,sm89").contains("native,sm89"));
    }
}
