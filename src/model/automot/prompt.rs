//! Exact text of the prompt, and text of decisions.
//!
//! A prompt has three parts that are tokenized separately: [`PREFIX`], the frames, and the
//! instruction with [`INSTRUCTION_END`]. Numbers are 32-bit floats widened to 64 bits and printed
//! as by C's `%.6f` and `%.2f`, so negative zero is `-0.000000`.

use super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use std::fmt::{self, Write};

/// System message and start of the user message.
pub const PREFIX: &str =
    "<|im_start|>system\nYou are a mature and professional driver.<|im_end|>\n<|im_start|>user\n";

/// End of the instruction, without whitespace before or after.
pub const INSTRUCTION_END: &str = "<|im_end|>";

/// Maximum length of an instruction with numbers below 10⁹ in magnitude, bytes.
pub const INSTRUCTION_CAPACITY: usize = 320;

/// Numbers in the instruction, as 32-bit floats.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DrivingState {
    /// Reading of the speedometer.
    pub speed_mps: f32,
    /// Target point in the ego frame (x forward, y right), meters.
    pub target_m: [f32; 2],
    /// Following target point.
    pub next_target_m: [f32; 2],
}

/// Replaces `text` by the instruction for `state` with [`INSTRUCTION_END`]. Does not allocate if
/// `text` has a capacity of [`INSTRUCTION_CAPACITY`] bytes.
pub fn write_instruction(state: &DrivingState, text: &mut String) {
    let [x1, y1] = state.target_m.map(|value| Fixed(value, 6));
    let [x2, y2] = state.next_target_m.map(|value| Fixed(value, 6));
    let speed = Fixed(state.speed_mps, 2);
    text.clear();
    write!(
        text,
        "Your current and next target point is ({x1}, {y1}), ({x2}, {y2}), and your current \
         velocity is {speed} m/s. Predict the driving actions ( now, +1s, +2s) and plan the \
         trajectory for the next 3 seconds.{INSTRUCTION_END}"
    )
    .expect("writing to a string can't fail");
}

/// A number, displayed as by C with the given number of decimals.
struct Fixed(f32, usize);

impl fmt::Display for Fixed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, decimals) = *self;
        if value.is_nan() {
            return formatter.write_str("nan");
        }
        write!(formatter, "{:.decimals$}", f64::from(value))
    }
}

/// Removes leading whitespace and leading tags of the training data from `text`.
pub fn strip_tags(text: &str) -> &str {
    let mut rest = text.trim_start();
    while let Some(shorter) =
        ["<image>", "<lidar>", "<front>", "<bev>"].iter().find_map(|tag| rest.strip_prefix(tag))
    {
        rest = shorter.trim_start();
    }
    rest
}

/// Returns the messages in decision tokens: each extends from a start token to the first end token
/// (inclusive), the next start token (exclusive) or the end of `ids`.
pub fn decision_spans(
    ids: &[u32],
    special: SpecialTokens,
) -> impl Iterator<Item = &[u32]> + use<'_> {
    let mut rest = ids;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|&id| id == special.message_start)?;
        let span = &rest[start..];
        let body = &span[1..];
        let length = body
            .iter()
            .position(|&id| id == special.message_start || id == special.message_end)
            .map_or(span.len(), |stop| stop + 1 + usize::from(body[stop] == special.message_end));
        let (span, after) = span.split_at(length);
        rest = after;
        Some(span)
    })
}

/// Returns the text of the first message in decision tokens, or of all tokens without a message.
pub fn decision_text(ids: &[u32], tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
    tokenizer.decode(decision_spans(ids, tokenizer.special()).next().unwrap_or(ids))
}

/// Returns the decisions for now, in one second and in two seconds; `None`
/// where the text ends early.
pub fn parse_decisions(text: &str) -> [Option<String>; 3] {
    if text.is_empty() {
        return [None, None, None];
    }
    let bare = text.replace("<|im_start|>", "").replace("<|im_end|>", "");
    let mut decisions = bare.split(',').map(|decision| decision.trim().to_owned());
    std::array::from_fn(|_| decisions.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f32, decimals: usize, printed: &str) {
        assert_eq!(Fixed(value, decimals).to_string(), printed);
    }

    #[test]
    fn numbers_print_as_in_c() {
        check(-0.0, 6, "-0.000000");
        check(-2e-7, 6, "-0.000000");
        check(0.125, 2, "0.12"); // An exact tie goes to the even digit.
        check(0.375, 2, "0.38");
        check(5.125, 2, "5.12");
        check(0.1, 6, "0.100000");
        check(100.1, 6, "100.099998");
        check(f32::NAN, 6, "nan");
        check(f32::NEG_INFINITY, 6, "-inf");
    }

    #[test]
    fn longest_instruction_fits_its_capacity() {
        let far = [-999_999_984.0; 2];
        let state = DrivingState { speed_mps: far[0], target_m: far, next_target_m: far };
        let mut text = String::with_capacity(INSTRUCTION_CAPACITY);
        write_instruction(&state, &mut text);
        assert!(text.len() <= INSTRUCTION_CAPACITY, "{} bytes", text.len());
    }
}
