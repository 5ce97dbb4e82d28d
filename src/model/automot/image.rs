//! Preprocessing of camera frames for the two vision networks.
//!
//! The vision tower receives a frame resized to half its size and cut into patches; the BEV encoder
//! receives the upper left part. The AutoMoT release converts frames to floats in between, which
//! reproduces every byte and is therefore omitted here.

use super::image_jpeg::JpegRoundTrip;

/// Size of an image in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl Size {
    /// Returns the number of bytes of an RGB image of this size.
    pub fn rgb_bytes(self) -> usize {
        3 * self.width * self.height
    }
}

/// Fractional bits of the filter's weights, as in Pillow: sums of bytes times weights (which
/// may exceed 1) fit 32 bits.
const WEIGHT_BITS: u32 = 22;

/// Half the width of the filter in output pixels.
const LANCZOS_SUPPORT: f64 = 3.0;

/// Resizes images from one size to another, bit-exact with Pillow's `LANCZOS`.
///
/// A horizontal and a vertical pass with an intermediate image of bytes. From 1024 × 512 to 512 ×
/// 256 it has 13 taps for 1.2 million values, 15 million multiplications.
pub struct Resizer {
    from: Size,
    to: Size,
    across: Vec<Taps>,
    down: Vec<Taps>,
    weights: Vec<i32>,
    /// `[from.height, to.width, 3]`, bytes.
    narrow: Vec<u8>,
    /// `[to.width * 3]`, sums of one row.
    sums: Vec<i32>,
}

/// Inputs of an output pixel: `count` pixels from index `first`, with weights from index `weight`.
#[derive(Clone, Copy)]
struct Taps {
    first: usize,
    count: usize,
    weight: usize,
}

impl Resizer {
    /// Creates a resizer for images of size `from`. Panics if a size is zero.
    pub fn new(from: Size, to: Size) -> Self {
        assert!(from.rgb_bytes() > 0 && to.rgb_bytes() > 0, "an image without pixels");
        let mut weights = Vec::new();
        let across = lanczos_taps(from.width, to.width, &mut weights);
        let down = lanczos_taps(from.height, to.height, &mut weights);
        Self {
            from,
            to,
            across,
            down,
            weights,
            narrow: vec![0; 3 * to.width * from.height],
            sums: vec![0; 3 * to.width],
        }
    }

    /// Resizes `rgb`, `[from.height, from.width, 3]`, into `resized`, `[to.height, to.width, 3]`.
    /// Panics if an image has another size.
    pub fn resize(&mut self, rgb: &[u8], resized: &mut [u8]) {
        assert_eq!(rgb.len(), self.from.rgb_bytes(), "the image is not {:?}", self.from);
        assert_eq!(resized.len(), self.to.rgb_bytes(), "the result is not {:?}", self.to);
        let from_row = 3 * self.from.width;
        let to_row = 3 * self.to.width;
        for (row, narrow) in rgb.chunks_exact(from_row).zip(self.narrow.chunks_exact_mut(to_row)) {
            for (taps, pixel) in self.across.iter().zip(narrow.as_chunks_mut::<3>().0) {
                let weights = &self.weights[taps.weight..][..taps.count];
                let pixels = &row.as_chunks::<3>().0[taps.first..][..taps.count];
                let mut sums = [HALF; 3];
                for (&[r, g, b], &weight) in pixels.iter().zip(weights) {
                    sums[0] += i32::from(r) * weight;
                    sums[1] += i32::from(g) * weight;
                    sums[2] += i32::from(b) * weight;
                }
                *pixel = sums.map(to_byte);
            }
        }
        for (taps, resized) in self.down.iter().zip(resized.chunks_exact_mut(to_row)) {
            self.sums.fill(HALF);
            let weights = &self.weights[taps.weight..][..taps.count];
            let rows = self.narrow[taps.first * to_row..].chunks_exact(to_row);
            for (row, &weight) in rows.zip(weights) {
                for (sum, &byte) in self.sums.iter_mut().zip(row) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for (byte, &sum) in resized.iter_mut().zip(&self.sums) {
                *byte = to_byte(sum);
            }
        }
    }
}

/// One half in fixed point, so that dropping the fractional bits rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Returns the taps of every output pixel along one axis and appends their weights to `weights`.
fn lanczos_taps(from: usize, to: usize, weights: &mut Vec<i32>) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = LANCZOS_SUPPORT * stretch;
    (0..to)
        .map(|output| {
            let center = (output as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as isize).max(0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw = |input: usize| lanczos((input as f64 - center + 0.5) / stretch);
            let total: f64 = (first..end).map(raw).sum();
            let taps = Taps { first, count: end - first, weight: weights.len() };
            weights
                .extend((first..end).map(|input| {
                    (raw(input) / total * f64::from(1 << WEIGHT_BITS)).round() as i32
                }));
            taps
        })
        .collect()
}

/// Evaluates the windowed sinc.
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let angle = x * std::f64::consts::PI;
        if angle == 0.0 { 1.0 } else { angle.sin() / angle }
    };
    if (-LANCZOS_SUPPORT..LANCZOS_SUPPORT).contains(&x) {
        sinc(x) * sinc(x / LANCZOS_SUPPORT)
    } else {
        0.0
    }
}

/// Patch layout of the vision tower, with the names of `preprocessor_config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatchLayout {
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Number of frames in a patch, for which a single frame is repeated.
    pub temporal_patch_size: usize,
    /// Side of the block of patches that is merged to one image token, patches.
    pub merge_size: usize,
}

impl Default for PatchLayout {
    /// Returns the values of Qwen3-VL.
    fn default() -> Self {
        Self { patch_size: 16, temporal_patch_size: 2, merge_size: 2 }
    }
}

impl PatchLayout {
    /// Returns the number of patches of a frame.
    pub fn patches(&self, size: Size) -> usize {
        (size.width / self.patch_size) * (size.height / self.patch_size)
    }

    /// Returns the number of values of a patch: channels × frames × rows × columns.
    pub fn patch_values(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Returns the rows and columns of image tokens of a frame.
    pub fn token_grid(&self, size: Size) -> [usize; 2] {
        let token = self.patch_size * self.merge_size;
        [size.height / token, size.width / token]
    }

    /// Converts `rgb`, `[height, width, 3]`, to `patches`, f32 `[patches, 3 * frames * rows *
    /// columns]` in −1 to 1. Patches are ordered by block (row of blocks, column of blocks, row
    /// inside, column inside), so that consecutive patches are merged to a token; a patch is
    /// ordered by channel. Panics if the image does not have `size`, `size` is not divisible into
    /// blocks, or `patches` has another length.
    pub fn write_patches(&self, rgb: &[u8], size: Size, patches: &mut [f32]) {
        let token = self.patch_size * self.merge_size;
        assert_eq!(rgb.len(), size.rgb_bytes(), "the image is not {size:?}");
        assert!(
            size.width.is_multiple_of(token) && size.height.is_multiple_of(token),
            "{size:?} is not divisible into blocks of {token} pixels"
        );
        assert_eq!(patches.len(), self.patches(size) * self.patch_values(), "patches of {size:?}");
        let [block_rows, block_columns] = self.token_grid(size);
        let mut patches = patches.chunks_exact_mut(self.patch_values());
        for block_row in 0..block_rows {
            for block_column in 0..block_columns {
                for row in 0..self.merge_size {
                    for column in 0..self.merge_size {
                        let top = (block_row * self.merge_size + row) * self.patch_size;
                        let left = (block_column * self.merge_size + column) * self.patch_size;
                        let patch = patches.next().expect("the length was checked");
                        self.write_patch(rgb, size, [top, left], patch);
                    }
                }
            }
        }
    }

    /// Writes the patch whose upper left pixel is at row `top` and column `left`.
    fn write_patch(&self, rgb: &[u8], size: Size, [top, left]: [usize; 2], patch: &mut [f32]) {
        let plane_len = self.patch_size * self.patch_size;
        for (channel, frames) in
            patch.chunks_exact_mut(self.temporal_patch_size * plane_len).enumerate()
        {
            let (first, repeated) = frames.split_at_mut(plane_len);
            for (row, values) in first.chunks_exact_mut(self.patch_size).enumerate() {
                let start = (top + row) * size.width + left;
                let pixels = &rgb.as_chunks::<3>().0[start..start + self.patch_size];
                for (value, pixel) in values.iter_mut().zip(pixels) {
                    *value = normalize(pixel[channel]);
                }
            }
            for frame in repeated.chunks_exact_mut(plane_len) {
                frame.copy_from_slice(first);
            }
        }
    }
}

/// Combines rescaling by 1/255 and normalization with mean 0.5 and deviation
/// 0.5, as the processor does.
fn normalize(byte: u8) -> f32 {
    (f32::from(byte) - 127.5) / 127.5
}

/// Copies the upper left part of `rgb`, `[height, width, 3]`, to `cropped`,
/// `[part.height, part.width, 3]`.
fn crop(rgb: &[u8], size: Size, part: Size, cropped: &mut [u8]) {
    assert_eq!(rgb.len(), size.rgb_bytes(), "the image is not {size:?}");
    assert!(part.width <= size.width && part.height <= size.height, "{part:?} of {size:?}");
    assert_eq!(cropped.len(), part.rgb_bytes(), "the part is not {part:?}");
    let rows = rgb.chunks_exact(3 * size.width);
    for (row, cropped) in rows.zip(cropped.chunks_exact_mut(3 * part.width)) {
        cropped.copy_from_slice(&row[..3 * part.width]);
    }
}

/// Preprocessing parameters of the BEV encoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BevFrameConfig {
    /// Size of the camera image (`camera_width`, `camera_height` of `bev_config.json`).
    pub camera: Size,
    /// Size of the upper left part that the encoder receives (`cropped_width`, `cropped_height`).
    pub cropped: Size,
    /// Quality of the JPEG round trip, 95 in the release; `None` disables it.
    pub jpeg_quality: Option<u8>,
}

/// Preprocesses frames for the BEV encoder.
pub struct BevFrame {
    config: BevFrameConfig,
    jpeg: Option<JpegRoundTrip>,
    /// `[cropped.height, camera.width, 3]`, output of the JPEG round trip.
    decoded: Vec<u8>,
    /// `[cropped.height, cropped.width, 3]`, if the part is narrower than the camera image.
    cropped: Vec<u8>,
}

impl BevFrame {
    /// Allocates the buffers. Panics if the part is larger than the camera image or
    /// the quality is not 1 to 100.
    pub fn new(config: BevFrameConfig) -> Self {
        let BevFrameConfig { camera, cropped, jpeg_quality } = config;
        assert!(cropped.width <= camera.width, "{cropped:?} of {camera:?}");
        let jpeg = jpeg_quality.map(|quality| JpegRoundTrip::new(camera, cropped.height, quality));
        let decoded = jpeg.as_ref().map_or(0, |_| 3 * camera.width * cropped.height);
        let narrow = if cropped.width < camera.width { cropped.rgb_bytes() } else { 0 };
        Self { config, jpeg, decoded: vec![0; decoded], cropped: vec![0; narrow] }
    }

    /// Returns the encoder's image of `rgb`, `[camera.height, camera.width, 3]`: u8
    /// `[cropped.height, cropped.width, 3]`, a slice of `rgb` if possible. Panics
    /// if `rgb` has another size.
    pub fn picture<'a>(&'a mut self, rgb: &'a [u8]) -> &'a [u8] {
        let BevFrameConfig { camera, cropped, .. } = self.config;
        assert_eq!(rgb.len(), camera.rgb_bytes(), "the image is not {camera:?}");
        let upper = Size { width: camera.width, height: cropped.height };
        let rows = match &mut self.jpeg {
            Some(jpeg) => {
                jpeg.apply(rgb, &mut self.decoded);
                &self.decoded
            }
            None => &rgb[..upper.rgb_bytes()],
        };
        if cropped.width == camera.width {
            return rows;
        }
        crop(rows, upper, cropped, &mut self.cropped);
        &self.cropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_image_stays_uniform() {
        let mut resizer =
            Resizer::new(Size { width: 40, height: 22 }, Size { width: 20, height: 11 });
        let mut resized = vec![0; 3 * 20 * 11];
        resizer.resize(&[200; 3 * 40 * 22], &mut resized);
        assert!(resized.iter().all(|&byte| byte == 200));
    }

    #[test]
    fn bytes_are_normalized_to_minus_one_to_one() {
        assert_eq!(normalize(0), -1.0);
        assert_eq!(normalize(255), 1.0);
    }

    #[test]
    fn bev_frame_is_upper_left_part_with_and_without_jpeg() {
        let camera = Size { width: 32, height: 32 };
        let cropped = Size { width: 20, height: 16 };
        let rgb: Vec<u8> = (0..camera.rgb_bytes()).map(|index| (index / 96 * 8) as u8).collect();
        let pixels = [None, Some(95)].map(|jpeg_quality| {
            BevFrame::new(BevFrameConfig { camera, cropped, jpeg_quality }).picture(&rgb).to_vec()
        });
        assert_eq!(pixels[0][3 * 20], 8, "the second row");
        for (plain, lossy) in pixels[0].iter().zip(&pixels[1]) {
            assert!(plain.abs_diff(*lossy) <= 4, "{plain} became {lossy}");
        }
    }

    #[test]
    fn full_width_part_is_not_copied() {
        let camera = Size { width: 32, height: 32 };
        let cropped = Size { width: 32, height: 16 };
        let rgb = vec![7; camera.rgb_bytes()];
        let mut frame = BevFrame::new(BevFrameConfig { camera, cropped, jpeg_quality: None });
        let image = frame.picture(&rgb);
        assert_eq!((image.as_ptr(), image.len()), (rgb.as_ptr(), cropped.rgb_bytes()));
    }
}
