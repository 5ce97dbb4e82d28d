//! What an engine is compiled for.

use std::fmt;
use std::str::FromStr;

/// A kind of GPU by its compute capability, or the GPU of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// The GPU of the machine that builds.
    Native,
    /// Compute capability 7.5.
    Sm75,
    /// Compute capability 8.0.
    Sm80,
    /// Compute capability 8.6.
    Sm86,
    /// Compute capability 8.9.
    Sm89,
    /// Compute capability 12.0.
    Sm120,
    /// Compute capability 12.1.
    Sm121,
}

impl Target {
    /// Every target that can be named without its GPU.
    pub const AHEAD_OF_TIME: [Self; 6] =
        [Self::Sm75, Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm120, Self::Sm121];

    /// As it is written on the command line and in engine folders.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Sm75 => "sm75",
            Self::Sm80 => "sm80",
            Self::Sm86 => "sm86",
            Self::Sm89 => "sm89",
            Self::Sm120 => "sm120",
            Self::Sm121 => "sm121",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// TensorRT-RTX cannot compile for this.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "TensorRT-RTX compiles for {}, or `native` for the GPU of this machine, not for {text:?}{instead}",
    Target::AHEAD_OF_TIME.map(Target::name).join(", ")
)]
pub struct TargetError {
    /// What was asked for.
    pub text: String,
    /// What to use for it, from "; " on; empty if it names no GPU that we know.
    pub instead: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads `native` or `smNN`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let known = Self::AHEAD_OF_TIME.into_iter().chain([Self::Native]);
        if let Some(target) = known.into_iter().find(|target| target.name() == text) {
            return Ok(target);
        }
        let instead = match text {
            "sm90" | "sm90a" | "sm100" | "sm100a" | "sm103" | "sm103a" => {
                "; for this data-center GPU build with TensorRT 11 on a machine that has one \
                 (feature tensorrt-enterprise, target native) or use ONNX Runtime's CUDA provider"
            }
            "sm87" | "sm110" | "sm110a" => {
                "; for this embedded GPU build with TensorRT 11 on the board itself (feature \
                 tensorrt-enterprise, target native)"
            }
            _ => "",
        };
        Err(TargetError { text: text.to_owned(), instead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_read_as_it_is_written() {
        for target in Target::AHEAD_OF_TIME.into_iter().chain([Target::Native]) {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn other_gpus_are_refused_with_the_list_and_what_serves_them() {
        let instead = [
            ("sm90", "ONNX Runtime's CUDA provider"),
            ("sm100", "TensorRT 11"),
            ("sm87", "on the board itself"),
            ("sm110", "on the board itself"),
        ];
        for (text, way) in instead {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(way) && error.contains("sm75, sm80, sm86"), "{error}");
        }
        for text in ["", "SM89", "sm8.9", "89", "sm89 ", "sm89,sm120", "sm70"] {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!(error.instead, "");
            assert!(error.to_string().ends_with(&format!("not for {text:?}")), "{error}");
        }
    }
}
