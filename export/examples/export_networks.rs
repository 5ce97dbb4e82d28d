//! Exports a checkpoint folder: `export_networks CHECKPOINT OUT [options as JSON]`.

use std::path::Path;
use tandem_export::checkpoint::Checkpoint;
use tandem_export::folder::export_networks;
use tandem_export::networks::ExportOptions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [checkpoint, out, options @ ..] = &arguments[..] else {
        return Err("usage: export_networks CHECKPOINT OUT [options as JSON]".into());
    };
    let options = match options {
        [] => ExportOptions::default(),
        [options, ..] => serde_json::from_str(options)?,
    };
    let checkpoint = Checkpoint::open(Path::new(checkpoint))?;
    export_networks(&checkpoint, &options, Path::new(out), &mut |_| {})?;
    Ok(())
}
