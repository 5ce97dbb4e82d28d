//! GPUs that TensorRT compiles engines for.

use std::fmt;
use std::str::FromStr;

/// Compute capability of a GPU, or the GPU of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// The GPU of the building machine.
    Native,
    Sm75,
    Sm80,
    Sm86,
    Sm89,
    Sm120,
    Sm121,
}

impl Target {
    /// Targets that need no GPU for building.
    pub const AHEAD_OF_TIME: [Self; 6] =
        [Self::Sm75, Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm120, Self::Sm121];

    /// Returns the name used on the command line and in engine folders.
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

/// Error returned for a GPU that TensorRT-RTX does not compile for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "TensorRT-RTX compiles for {}, or `native` for the GPU of this machine, not for {text:?}{instead}",
    Target::AHEAD_OF_TIME.map(Target::name).join(", ")
)]
pub struct TargetError {
    pub text: String,
    /// Advice that starts with "; "; empty for unknown GPUs.
    pub instead: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    /// Parses `native` or `smNN`.
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
    fn target_names_round_trip() {
        for target in Target::AHEAD_OF_TIME.into_iter().chain([Target::Native]) {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn other_gpus_are_refused_with_alternatives() {
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
