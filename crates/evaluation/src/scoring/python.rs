//! Rounds and formats numbers as Python does, because Python writes the official result files.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Python number: integers stay integers, because `100` and `100.0` differ in files and messages.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    /// Returns the value as a float.
    pub fn value(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// Python's `round(self, digits)`: integers stay integers.
    pub(super) fn rounded(self, digits: usize) -> Self {
        match self {
            Self::Int(int) => Self::Int(int),
            Self::Float(float) => Self::Float(round(float, digits)),
        }
    }
}

impl fmt::Display for Number {
    /// Formats as Python's `str` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => f.write_str(&float_text(*float)),
        }
    }
}

/// Python's `round(value, digits)`: the decimal of the exact binary value, ties to even.
pub(super) fn round(value: f64, digits: usize) -> f64 {
    format!("{value:.digits$}").parse().expect("a formatted float parses back")
}

/// Python's `repr` of a float: shortest digits that read back, scientific outside 1e-4..1e16.
pub(super) fn float_text(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".into()
        } else {
            String::from(if value > 0.0 { "inf" } else { "-inf" })
        };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("LowerExp writes an exponent");
    let exponent: i32 = exponent.parse().expect("LowerExp writes a decimal exponent");
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let text = format!("{value}");
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_of_the_binary_value_round_to_even() {
        let cases = [(0.125, 2, 0.12), (0.375, 2, 0.38), (2.675, 2, 2.67), (2.5, 0, 2.0)];
        for (value, digits, expected) in cases {
            assert_eq!(round(value, digits), expected, "round({value}, {digits})");
        }
    }

    #[test]
    fn floats_are_formatted_as_in_python() {
        let cases = [
            (100.0, "100.0"),
            (-2.5, "-2.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (-0.0, "-0.0"),
        ];
        for (value, expected) in cases {
            assert_eq!(float_text(value), expected);
        }
    }
}
