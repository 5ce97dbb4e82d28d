//! Scoring rules: the arithmetic of the official tools, or the same with their defects fixed.

use std::fmt;

/// Arithmetic by which scores are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rule {
    /// Arithmetic of the official tools, defects included. Comparable with published numbers.
    #[default]
    Official,
    /// With the defects of [`DEVIATIONS`] fixed.
    Corrected,
}

impl Rule {
    /// Returns `official` or `corrected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Corrected => "corrected",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Difference between the two rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deviation {
    /// Name of the score that differs.
    pub figure: &'static str,
    pub official: &'static str,
    pub corrected: &'static str,
}

/// All differences between the two rules.
pub const DEVIATIONS: [Deviation; 6] = [
    Deviation {
        figure: "driving score, success rate",
        official: "divided by 220; no score for sets of other than 220 routes; a mean over \
                   repetitions",
        corrected: "divided by the number of routes of the set",
    },
    Deviation {
        figure: "abilities",
        official: "routes without a record are left out of the denominators",
        corrected: "routes without a record count as failed",
    },
    Deviation {
        figure: "abilities",
        official: "a group without routes, or a traffic-sign route without a junction, is an error",
        corrected: "a group without routes has no value; a route without a junction must be \
                    driven to its end",
    },
    Deviation {
        figure: "efficiency",
        official: "a route whose values are all above 1000 % is an error",
        corrected: "such a route is left out, like one without values",
    },
    Deviation {
        figure: "smoothness",
        official: "bounds in rad/s are compared with degrees/s; the yaw acceleration is the yaw \
                   rate, not its derivative",
        corrected: "yaw rates are converted to rad/s and differentiated",
    },
    Deviation {
        figure: "smoothness",
        official: "samples in file order, jerks over a step of 0.1 s whatever the logging rate",
        corrected: "samples by step number, jerks over the step of the log (0.05 s a tick)",
    },
];
