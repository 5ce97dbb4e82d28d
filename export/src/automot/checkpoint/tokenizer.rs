//! Checks that the checkpoint's tokenizer matches its configuration.
//!
//! Only ids are compared. The tokenizer library validates the rest.

use super::config::AutomotConfig;
use crate::checkpoint::{CheckpointError, Fields, read_small_file};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tandem_files::shortened;

/// File name of the tokenizer of a checkpoint.
pub(super) const FILE: &str = "tokenizer.json";

/// The keys of `tokenizer.json` that are read.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: BTreeMap<String, u32>,
}

/// Checks the ids of `tokenizer.json`, if the file exists, and of `tokenizer_config.json` and
/// `added_tokens.json`, which add tokens.
pub(super) fn check(dir: &Path, config: &AutomotConfig) -> Result<(), CheckpointError> {
    let path = dir.join(FILE);
    let Some(text) = read_small_file(&path)? else { return Ok(()) };
    let tokenizer: Tokenizer = serde_json::from_slice(&text)
        .map_err(|source| CheckpointError::NotJson { path: path.clone(), source })?;
    let refuse = |problem: String| Err(CheckpointError::Tokenizer { path: path.clone(), problem });

    let added: BTreeMap<&str, u32> =
        tokenizer.added_tokens.iter().map(|token| (token.content.as_str(), token.id)).collect();
    let id_of =
        |content: &str| added.get(content).or_else(|| tokenizer.model.vocab.get(content)).copied();
    let rows = config.text.vocab_size;
    let ids = added.iter().map(|(content, id)| (*content, *id));
    let ids = ids.chain(tokenizer.model.vocab.iter().map(|(token, id)| (token.as_str(), *id)));
    if let Some((content, id)) = ids.max_by_key(|(_, id)| *id)
        && id as usize >= rows
    {
        let content = shortened(content);
        return refuse(format!("token {content:?} has the id {id}, the embedding has {rows} rows"));
    }
    let tokens = &config.tokens;
    for (content, key, expected) in [
        ("<|image_pad|>", "image_token_id", tokens.image_pad),
        ("<|vision_start|>", "vision_start_token_id", tokens.vision_start),
        ("<|vision_end|>", "vision_end_token_id", tokens.vision_end),
    ] {
        match id_of(content) {
            Some(found) if found == expected => {}
            Some(found) => {
                return refuse(format!(
                    "token {content:?} has the id {found}, config.json has {key} {expected}"
                ));
            }
            None => return refuse(format!("token {content:?} is missing")),
        }
    }
    for (file, content, id) in additions(dir)? {
        if id_of(&content) != Some(id) {
            let found =
                id_of(&content).map_or("no id".to_owned(), |found| format!("the id {found}"));
            return refuse(format!("token {content:?} has {found}, {file} has the id {id}"));
        }
    }
    Ok(())
}

/// Reads tokens that other files add: file, content, id.
fn additions(dir: &Path) -> Result<Vec<(&'static str, String, u32)>, CheckpointError> {
    let mut tokens = Vec::new();
    let file = "tokenizer_config.json";
    let fields = Fields::read(&dir.join(file))?;
    if let Some(fields) = &fields {
        // Both override how tokenizer.json splits text.
        for key in ["add_prefix_space", "split_special_tokens"] {
            if fields.flag_or(key, false)? {
                return Err(fields.invalid(key, "false, the only supported value".into()));
            }
        }
    }
    if let Some(fields) = fields
        && fields.has("added_tokens_decoder")
    {
        let decoder = fields.object("added_tokens_decoder")?;
        for key in decoder.keys() {
            let id = key.parse().ok();
            let id = id.ok_or_else(|| decoder.invalid(&key, "an id as the key".into()))?;
            tokens.push((file, decoder.object(&key)?.text_or("content", "")?, id));
        }
    }
    let file = "added_tokens.json";
    if let Some(fields) = Fields::read(&dir.join(file))? {
        for content in fields.keys() {
            let id = fields.token(&content)?;
            tokens.push((file, content, id));
        }
    }
    Ok(tokens)
}
