//! Driving efficiency: mean of a run's average speeds, in percent of the
//! surrounding traffic's speed.

use super::rule::Rule;
use serde_json::Value;
use tandem_files::shortened;

/// Values above this are dropped, percent.
const LARGEST_PERCENT: f64 = 1000.0;

/// Error returned when efficiency can't be computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EfficiencyError {
    #[error(
        "the minimum-speed message {message} contains no percentage: the result file was edited or \
         belongs to another benchmark"
    )]
    NoPercentage {
        /// The message as JSON, shortened.
        message: String,
    },
    /// All values were dropped, so that the official tool divides by zero.
    #[error(
        "all minimum-speed values of a route are above 1000 %, and the official rule divides by \
         the number of the others: use the corrected rule, which leaves the route out"
    )]
    AllDropped,
}

/// Computes the efficiency of one route from its minimum-speed messages,
/// percent; `None` without a value.
///
/// # Errors
/// If a message is not text with a percentage, or by the official rule if every value was dropped.
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

/// Returns the first number in `text` that starts a word and is directly
/// followed by a percent sign.
fn first_percentage(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_digit() && !text[..at].ends_with(is_word))
        .find_map(|at| {
            let digits = |from: usize| {
                from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
            };
            let point = digits(at);
            let end = if bytes.get(point) == Some(&b'.') { digits(point + 1) } else { point };
            (bytes.get(end) == Some(&b'%')).then(|| text[at..end].parse().ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_number_before_a_percent_sign_counts() {
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
