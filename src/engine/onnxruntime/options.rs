//! Session options that several modules set.

use super::error::SessionError;
use ort::session::builder::SessionBuilder;
use std::path::Path;

/// Makes the library write its optimized graph to `graph` and the weights to `weights` in its folder.
pub(super) fn with_optimized_model(
    builder: SessionBuilder,
    graph: &Path,
    weights: &str,
) -> Result<SessionBuilder, SessionError> {
    let builder = builder.with_optimized_model_path(graph)?;
    let entry = "session.optimized_model_external_initializers_file_name";
    Ok(builder.with_config_entry(entry, weights)?)
}
