//! Which arithmetic: the official tools' own, or the same with their defects put right.

use std::fmt;

/// Which arithmetic scores are computed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rule {
    /// As the official tools compute, defects included: what published numbers are comparable with.
    #[default]
    Official,
    /// With the defects of [`DEVIATIONS`] put right.
    Corrected,
}

impl Rule {
    /// `official` or `corrected`.
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

/// A point in which the two rules differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deviation {
    /// Which figure.
    pub figure: &'static str,
    /// What the official tools do.
    pub official: &'static str,
    /// What [`Rule::Corrected`] does.
    pub corrected: &'static str,
}

/// Every point in which the two rules differ.
pub const DEVIATIONS: [Deviation; 6] = [
    Deviation {
        figure: "driving score, success rate",
        official: "divided by 220; no figure for sets of other than 220 routes, a mean over \
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
        corrected: "a group without routes has no value; without a junction the whole route is \
                    before it",
    },
    Deviation {
        figure: "efficiency",
        official: "a route whose values are all above 1000 % is an error",
        corrected: "such a route is left out, as one without values is",
    },
    Deviation {
        figure: "smoothness",
        official: "bounds of rad/s are held against degrees/s; the yaw acceleration is the yaw \
                   rate, not its derivative",
        corrected: "yaw rates are converted to rad/s and differentiated",
    },
    Deviation {
        figure: "smoothness",
        official: "samples in file order, jerks over a step of 0.1 s whatever the logging rate",
        corrected: "samples by step number, jerks over the step of the log (0.05 s a tick)",
    },
];
