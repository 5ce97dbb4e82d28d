//! Driving efficiency: the mean of a run's average speeds, in percent of the traffic's.

use super::rule::Rule;
use serde_json::Value;
use tandem_files::shortened;

/// Values above this are dropped, percent.
const LARGEST_PERCENT: f64 = 1000.0;

/// Efficiency can't be computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EfficiencyError {
    /// A message of minimum speed has no percentage in it.
    #[error(
        "the minimum-speed message {message} holds no percentage: the result file was edited or \
         is of another benchmark"
    )]
    NoPercentage {
        /// The message, as JSON has it.
        message: String,
    },
    /// The official tool divides by zero.
    #[error(
        "all minimum-speed values of a route are above 1000 %, and the official rule divides by the \
         number of others: use the corrected rule, which leaves the route out"
    )]
    AllDropped,
}

/// Efficiency of one route from its minimum-speed messages, percent; `None` without a value. Whatever
/// is not text holds no percentage.
///
/// # Errors
/// If a message holds no percentage, or by the official rule if every value was dropped.
pub fn route_efficiency<'a>(
    messages: impl IntoIterator<Item = &'a Value>,
    rule: Rule,
) -> Result<Option<f64>, EfficiencyError> {
    let mut sum = 0.0;
    let (mut found, mut kept) = (0_u32, 0_u32);
    for message in messages {
        let percent = message.as_str().and_then(first_percentage);
        let percent =
            percent.ok_or_else(|| EfficiencyError::NoPercentage { message: shortened(message) })?;
        found += 1;
        if percent <= LARGEST_PERCENT {
            sum += percent;
            kept += 1;
        }
    }
    if kept > 0 {
        Ok(Some(sum / f64::from(kept)))
    } else if found > 0 && rule == Rule::Official {
        Err(EfficiencyError::AllDropped)
    } else {
        Ok(None)
    }
}

/// The first number in `text` that starts a word and is directly followed by a percent sign.
fn first_percentage(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_digit() && !text[..at].ends_with(is_word))
        .find_map(|at| {
            let digits = |from: usize| {
                from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
            };
            let whole = digits(at);
            let end = if bytes.get(whole) == Some(&b'.') { digits(whole + 1) } else { whole };
            (bytes.get(end) == Some(&b'%')).then(|| text[at..end].parse().ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_before_a_percent_sign_counts() {
        let cases = [
            ("Average speed is 100% of", Some(100.0)),
            ("12 then 34.5% and 99%", Some(34.5)),
            ("7.% of", Some(7.0)),
            ("x1.5%", Some(5.0)),
            ("ä5% ≈6%", Some(6.0)),
            ("12 %", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(first_percentage(text), expected, "{text:?}");
        }
    }
}
