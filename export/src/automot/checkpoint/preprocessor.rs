//! Preprocessing of frames for the vision tower according to the checkpoint's files.
//!
//! tandem converts a pixel `p` to `p/127.5 - 1` and cuts patches of the sizes of the vision tower.
//! Other settings are refused. The bounds on the number of pixels of a frame are returned: frames
//! within them are not resized.

use super::config::VisionConfig;
use super::ignored_keys;
use crate::checkpoint::{CheckpointError, Fields};
use std::path::Path;

/// Default bounds on the number of pixels of a frame: those of the processor's class.
const DEFAULT_PIXELS: [usize; 2] = [56 * 56, 28 * 28 * 1280];

/// Names of the supported processors.
const PROCESSORS: [&str; 4] = [
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen3VLImageProcessor",
    "Qwen3VLImageProcessorFast",
];

/// Returns the minimum and maximum number of pixels of a frame that is not resized; `None` if no file
/// describes the preprocessing.
pub(super) fn read(
    dir: &Path,
    vision: &VisionConfig,
) -> Result<Option<[usize; 2]>, CheckpointError> {
    let own_file = Fields::read(&dir.join("preprocessor_config.json"))?;
    // Newer writers store the settings of all processors in one file.
    let shared_file = match Fields::read(&dir.join("processor_config.json"))? {
        Some(fields) if fields.has("image_processor") => Some(fields.object("image_processor")?),
        _ => None,
    };
    let mut pixels: Option<[usize; 2]> = None;
    for fields in [own_file, shared_file].into_iter().flatten() {
        let [least, most] = check(&fields, vision)?;
        pixels =
            Some(pixels.map_or([least, most], |known| [known[0].max(least), known[1].min(most)]));
    }
    Ok(pixels)
}

fn check(fields: &Fields, vision: &VisionConfig) -> Result<[usize; 2], CheckpointError> {
    let class = fields.text_or("image_processor_type", PROCESSORS[0])?;
    if !PROCESSORS.contains(&class.as_str()) {
        return Err(fields.invalid("image_processor_type", format!("one of {PROCESSORS:?}")));
    }
    for key in ["do_rescale", "do_normalize"] {
        if !fields.flag_or(key, true)? {
            return Err(fields.invalid(key, "true: pixels become p/127.5 - 1".into()));
        }
    }
    for key in ["do_center_crop", "do_pad"] {
        if fields.flag_or(key, false)? {
            return Err(fields.invalid(key, "false: frames are neither cropped nor padded".into()));
        }
    }
    if (fields.number_or("rescale_factor", 1.0 / 255.0)? * 255.0 - 1.0).abs() > 1e-6 {
        return Err(fields.invalid("rescale_factor", "1/255: pixels become p/127.5 - 1".into()));
    }
    for key in ["image_mean", "image_std"] {
        if fields.numbers(key, vision.in_channels)? != vec![0.5; vision.in_channels] {
            let expected =
                format!("{:?}: pixels become p/127.5 - 1", vec![0.5; vision.in_channels]);
            return Err(fields.invalid(key, expected));
        }
    }
    for (key, found, expected) in [
        ("patch_size", fields.count("patch_size")?, vision.patch_size),
        (
            "temporal_patch_size",
            fields.count_or("temporal_patch_size", 2)?,
            vision.temporal_patch_size,
        ),
        ("merge_size", fields.count_or("merge_size", 2)?, vision.spatial_merge_size),
    ] {
        if found != expected {
            return Err(fields.invalid(key, format!("{expected}, as in vision_config")));
        }
    }
    let pixels = pixel_bounds(fields)?;
    fields.finish(ignored_keys::PREPROCESSOR)?;
    Ok(pixels)
}

/// Reads the bounds. The two older keys take precedence over the newer object, as in the processor.
fn pixel_bounds(fields: &Fields) -> Result<[usize; 2], CheckpointError> {
    let size = if fields.has("size") {
        let size = fields.object("size")?;
        let bounds = [
            size.pixels_or("shortest_edge", DEFAULT_PIXELS[0])?,
            size.pixels_or("longest_edge", DEFAULT_PIXELS[1])?,
        ];
        size.finish(&[])?;
        bounds
    } else {
        DEFAULT_PIXELS
    };
    let bounds =
        [fields.pixels_or("min_pixels", size[0])?, fields.pixels_or("max_pixels", size[1])?];
    if bounds[0] > bounds[1] {
        let key = if fields.has("min_pixels") { "min_pixels" } else { "size" };
        return Err(fields.invalid(key, format!("at most {} pixels", bounds[1])));
    }
    Ok(bounds)
}
