//! The checkpoint's byte-level BPE tokenizer.
//!
//! A piece of text is encoded as it stands: nothing is put around it, but the names of special
//! tokens inside it become their ids.

use std::path::{Path, PathBuf};
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

/// Ids of the special tokens that a prompt is made of, as the checkpoint numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecialTokens {
    /// `<|im_start|>`, opens a message and a decision.
    pub message_start: u32,
    /// `<|im_end|>`, closes a message and a decision.
    pub message_end: u32,
    /// `<|vision_start|>`, stands before the tokens of a frame.
    pub vision_start: u32,
    /// `<|vision_end|>`, stands behind the tokens of a frame.
    pub vision_end: u32,
    /// `<|image_pad|>`, the place of one image token.
    pub image_pad: u32,
}

/// A loaded tokenizer.
pub struct Tokenizer {
    pipeline: PipelineTokenizer,
    options: EncodeOptions,
    special: SpecialTokens,
    /// The library's ids are a type of its own; here they wait to be copied out.
    encoded: Vec<PipelineToken>,
}

/// Tokens of one piece of text that are encoded without allocating.
const PIECE_CAPACITY: usize = 1024;

/// Why a tokenizer could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is missing, not JSON, or names a component that this build lacks.
    #[error("cannot load tokenizer {path:?}")]
    Load {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A token that every AutoMoT checkpoint has is not in the vocabulary.
    #[error("the tokenizer has no special token {name:?}, it reads it as the ids {found:?}")]
    NoSuchToken {
        /// Its name.
        name: &'static str,
        /// What its name is encoded to instead.
        found: Vec<u32>,
    },
    /// The library refused a text.
    #[error("cannot encode a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library refused a list of ids.
    #[error("cannot decode {tokens} tokens")]
    Decode {
        /// Length of the list.
        tokens: usize,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Tokenizer {
    /// Reads a `tokenizer.json` of any version that Hugging Face has written.
    ///
    /// # Errors
    /// If the file can't be read or lacks one of [`SpecialTokens`].
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
        Ok(Self { pipeline, options, special, encoded: Vec::with_capacity(PIECE_CAPACITY) })
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Appends the ids of `text` to `ids`. Does not merge across the border with what is there.
    ///
    /// # Errors
    /// If the library refuses the text.
    pub fn encode_into(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.encoded.clear();
        self.pipeline
            .encode_into(text, &self.options, &mut self.encoded)
            .map_err(|source| TokenizerError::Encode { bytes: text.len(), source })?;
        ids.extend(self.encoded.iter().map(|token| token.id()));
        Ok(())
    }

    /// The text of `ids`, special tokens by name.
    ///
    /// # Errors
    /// If the library refuses the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.pipeline
            .decode(ids, false)
            .map_err(|source| TokenizerError::Decode { tokens: ids.len(), source })
    }
}

/// Looks `name` up by encoding it: a special token is one id, an unknown name falls apart.
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
