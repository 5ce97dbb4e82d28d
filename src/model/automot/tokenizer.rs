//! Byte-level BPE tokenizer of the checkpoint.
//!
//! Text is encoded without adding tokens; names of special tokens in the text are encoded as their
//! ids.

use std::path::{Path, PathBuf};
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

/// Ids of the special tokens of a prompt in the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecialTokens {
    /// `<|im_start|>`, start of a message or a decision.
    pub message_start: u32,
    /// `<|im_end|>`, end of a message or a decision.
    pub message_end: u32,
    /// `<|vision_start|>`, before the tokens of a frame.
    pub vision_start: u32,
    /// `<|vision_end|>`, after the tokens of a frame.
    pub vision_end: u32,
    /// `<|image_pad|>`, placeholder of one image token.
    pub image_pad: u32,
}

/// A loaded tokenizer.
pub struct Tokenizer {
    pipeline: PipelineTokenizer,
    options: EncodeOptions,
    special: SpecialTokens,
    /// Ids in the library's own type, before they are copied out.
    encoded: Vec<PipelineToken>,
}

/// Number of tokens of one text that are encoded without allocating.
const TEXT_CAPACITY: usize = 1024;

/// Error returned by a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot load tokenizer {path:?}")]
    Load {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A token of every AutoMoT checkpoint is not in the vocabulary.
    #[error("the tokenizer has no special token {name:?} and encodes it as the ids {found:?}")]
    NoSuchToken { name: &'static str, found: Vec<u32> },
    #[error("cannot encode a text of {bytes} bytes")]
    Encode {
        bytes: usize,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot decode {tokens} tokens")]
    Decode {
        tokens: usize,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Tokenizer {
    /// Reads a `tokenizer.json` of any Hugging Face version. Fails if the file cannot be read or
    /// lacks one of [`SpecialTokens`].
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        let load = |source| TokenizerError::Load { path: path.to_path_buf(), source };
        let json = tokenizers::canonicalize_file(path).map_err(|error| load(error.into()))?;
        let pipeline = tokenizers::from_json(&json).map_err(load)?;
        let options = EncodeOptions {
            padding: Override::Off,
            truncation: Override::Off,
            ..EncodeOptions::no_specials()
        };
        let id = |name| special_id(&pipeline, &options, name);
        let special = SpecialTokens {
            message_start: id("<|im_start|>")?,
            message_end: id("<|im_end|>")?,
            vision_start: id("<|vision_start|>")?,
            vision_end: id("<|vision_end|>")?,
            image_pad: id("<|image_pad|>")?,
        };
        Ok(Self { pipeline, options, special, encoded: Vec::with_capacity(TEXT_CAPACITY) })
    }

    /// Returns the ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Appends the ids of `text` to `ids`, without merging it with earlier text.
    pub fn encode_into(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.encoded.clear();
        self.pipeline
            .encode_into(text, &self.options, &mut self.encoded)
            .map_err(|source| TokenizerError::Encode { bytes: text.len(), source })?;
        ids.extend(self.encoded.iter().map(|token| token.id()));
        Ok(())
    }

    /// Returns the text of `ids`, with special tokens by name.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.pipeline
            .decode(ids, false)
            .map_err(|source| TokenizerError::Decode { tokens: ids.len(), source })
    }
}

/// Looks up a special token by encoding its name, which yields one id; an
/// unknown name yields several.
fn special_id(
    pipeline: &PipelineTokenizer,
    options: &EncodeOptions,
    name: &'static str,
) -> Result<u32, TokenizerError> {
    let mut found = Vec::new();
    pipeline
        .encode_into(name, options, &mut found)
        .map_err(|source| TokenizerError::Encode { bytes: name.len(), source })?;
    match found[..] {
        [token] => Ok(token.id()),
        _ => {
            let found = found.iter().map(|token| token.id()).collect();
            Err(TokenizerError::NoSuchToken { name, found })
        }
    }
}
