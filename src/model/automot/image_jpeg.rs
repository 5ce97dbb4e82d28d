//! JPEG round trip of a frame.
//!
//! The AutoMoT release encodes and decodes the BEV encoder's frame (OpenCV's defaults: quality 95,
//! chroma at half size), because its training frames were read from files. Entropy coding is
//! lossless, so the round trip consists of color conversion, chroma downsampling, cosine transform,
//! rounding to the quantization tables, and the inverse steps, in the integer arithmetic of
//! libjpeg: no bit stream, no allocation.
//!
//! The release encodes the full frame and crops the decoded one. Blocks are independent, so rows
//! below the crop's last row of blocks are not needed (the release's 384 rows end at a block; the
//! last blocks of other crops are completed from the frame itself), except for one row of chroma:
//! the decoder interpolates chroma across blocks, so the crop's last row takes a quarter of its
//! chroma from the blocks below. A frame that is cropped before encoding would lose it.
//!
//! Libraries were compared on the golden frame at quality 95 on one core of an AMD EPYC with
//! Pillow's bytes of the upper 384 rows; ms per frame, best run (for libraries the 400 rows that
//! they need):
//!
//! | encoder and decoder | differing bytes | maximum difference | ms |
//! |---|---|---|---|
//! | this file | none | 0 | 6.5 |
//! | `mozjpeg` 0.10 both ways (C, no assembler) | none | 0 | 10.5 |
//! | `mozjpeg`, `zune-jpeg` 0.5 | 23 % | 4 | 8.9 |
//! | `jpeg-encoder` 0.7 (default tables, 4:2:0), `zune-jpeg` | 84 % | 74 | 7.7 |
//!
//! The bit-exact library is slower and allocates at every tick. `turbojpeg` was not tried: it needs
//! CMake, and an assembler to be fast.

use super::image::Size;

/// Side of a block in samples.
const BLOCK: usize = 8;

/// Luma and chroma tables of the standard (ITU-T T.81, annex K) at quality 50, row by row.
const TABLES: [[u16; 64]; 2] = [
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69,
        56, 14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81,
        104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ],
    [
        17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99,
        99, 47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    ],
];

/// JPEG round trip of frames of one size, limited to their upper rows.
pub(super) struct JpegRoundTrip {
    size: Size,
    rows: usize,
    tables: [Steps; 2],
    /// Luma; its sides are multiples of two blocks.
    luma: Plane,
    /// Blue and red difference at half size.
    chroma: [Plane; 2],
    /// Upsampled line of each.
    lines: [ChromaLine; 2],
}

/// An image with one channel.
struct Plane {
    width: usize,
    samples: Vec<u8>,
}

impl Plane {
    fn new(width: usize, height: usize) -> Self {
        Self { width, samples: vec![0; width * height] }
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.width..][..self.width]
    }
}

impl JpegRoundTrip {
    /// Creates a round trip for the upper `rows` rows of frames of `size`, at `quality` 1 to 100
    /// (95 in the release). Panics if `quality` or `rows` is out of range or `size` is empty.
    pub(super) fn new(size: Size, rows: usize, quality: u8) -> Self {
        assert!((1..=100).contains(&quality), "quality {quality}");
        assert!(size.rgb_bytes() > 0, "an image without pixels");
        assert!((1..=size.height).contains(&rows), "{rows} rows of {size:?}");
        let tables = TABLES.each_ref().map(|table| Steps::new(table, quality));
        // Chroma interpolation needs two rows after the last one.
        let [width, height] =
            [size.width, (rows + 2).min(size.height)].map(|side| side.div_ceil(2 * BLOCK));
        let chroma = || Plane::new(width * BLOCK, height * BLOCK);
        let luma = Plane::new(2 * width * BLOCK, 2 * height * BLOCK);
        let lines = [0, 1].map(|_| ChromaLine::new(size.width.div_ceil(2)));
        Self { size, rows, tables, luma, chroma: [chroma(), chroma()], lines }
    }

    /// Writes the upper part of `rgb`, `[height, width, 3]`, after the round trip to `decoded`,
    /// `[rows, width, 3]`. Panics if an image has another size.
    pub(super) fn apply(&mut self, rgb: &[u8], decoded: &mut [u8]) {
        assert_eq!(rgb.len(), self.size.rgb_bytes(), "the image is not {:?}", self.size);
        let decoded_bytes = 3 * self.rows * self.size.width;
        assert_eq!(decoded.len(), decoded_bytes, "the result is not {} rows", self.rows);
        self.split(rgb);
        quantize(&mut self.luma, &self.tables[0]);
        for chroma in &mut self.chroma {
            quantize(chroma, &self.tables[1]);
        }
        self.join(decoded);
    }

    /// Converts colors to luma and downsampled chroma; the image's edges
    /// are repeated to full blocks.
    fn split(&mut self, rgb: &[u8]) {
        let pixels = rgb.as_chunks::<3>().0;
        let Size { width, height } = self.size;
        let half_width = self.chroma[0].width;
        for row in 0..self.chroma[0].samples.len() / half_width {
            for column in 0..half_width {
                let mut sums = [0_i32; 2];
                for (below, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let [y, x] = [2 * row + below, 2 * column + right];
                    let pixel = pixels[y.min(height - 1) * width + x.min(width - 1)];
                    let [luma, chroma @ ..] = ycc_from_rgb(pixel);
                    self.luma.samples[y * 2 * half_width + x] = luma as u8;
                    sums = [sums[0] + chroma[0], sums[1] + chroma[1]];
                }
                // Rounds down and up alternately, which preserves the mean.
                let bias = 1 + (column % 2) as i32;
                for (plane, sum) in self.chroma.iter_mut().zip(sums) {
                    plane.samples[row * half_width + column] = ((sum + bias) >> 2) as u8;
                }
            }
        }
    }

    /// Converts luma and chroma to colors; chroma is interpolated from the four nearest samples.
    fn join(&mut self, decoded: &mut [u8]) {
        let Size { width, height } = self.size;
        // The decoder does not use the padding, because the size of the image is known.
        let last_row = height.div_ceil(2) - 1;
        for (y, line) in decoded.chunks_exact_mut(3 * width).enumerate() {
            let near = y / 2;
            let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(last_row) };
            for (plane, lines) in self.chroma.iter().zip(&mut self.lines) {
                lines.interpolate(plane.row(near), plane.row(far));
            }
            let [blue, red] = &self.lines;
            let chroma = blue.wide.iter().zip(&red.wide);
            let pixels = line.as_chunks_mut::<3>().0.iter_mut();
            for ((pixel, &luma), (&blue, &red)) in pixels.zip(self.luma.row(y)).zip(chroma) {
                *pixel = rgb_from_ycc([luma, blue, red].map(i32::from));
            }
        }
    }
}

/// Upsampling of one line of a chroma plane.
struct ChromaLine {
    /// Three parts near line and one part far line, with the first and last samples repeated.
    blended: Vec<u16>,
    /// Output with twice the number of samples.
    wide: Vec<u8>,
}

impl ChromaLine {
    fn new(samples: usize) -> Self {
        Self { blended: vec![0; samples + 2], wide: vec![0; 2 * samples] }
    }

    fn interpolate(&mut self, near: &[u8], far: &[u8]) {
        let samples = self.wide.len() / 2;
        let inner = &mut self.blended[1..=samples];
        for (blended, (&near, &far)) in inner.iter_mut().zip(near.iter().zip(far)) {
            *blended = 3 * u16::from(near) + u16::from(far);
        }
        self.blended[0] = self.blended[1];
        self.blended[samples + 1] = self.blended[samples];
        let [left, middle, right] = [0, 1, 2].map(|first| &self.blended[first..][..samples]);
        let neighbors = left.iter().zip(middle).zip(right);
        for (wide, ((&left, &middle), &right)) in
            self.wide.as_chunks_mut::<2>().0.iter_mut().zip(neighbors)
        {
            *wide = [(3 * middle + left + 8) >> 4, (3 * middle + right + 7) >> 4].map(|v| v as u8);
        }
    }
}

/// Fractional bits of the color weights.
const COLOR_BITS: u32 = 16;

const fn color(weight: f64) -> i32 {
    (weight * (1 << COLOR_BITS) as f64 + 0.5) as i32
}

const COLOR_HALF: i32 = 1 << (COLOR_BITS - 1);

fn ycc_from_rgb(rgb: [u8; 3]) -> [i32; 3] {
    let [r, g, b] = rgb.map(i32::from);
    let center = (128 << COLOR_BITS) + COLOR_HALF - 1;
    [
        (color(0.299) * r + color(0.587) * g + color(0.114) * b + COLOR_HALF) >> COLOR_BITS,
        (-color(0.168_735_892) * r - color(0.331_264_108) * g + color(0.5) * b + center)
            >> COLOR_BITS,
        (color(0.5) * r - color(0.418_687_589) * g - color(0.081_312_411) * b + center)
            >> COLOR_BITS,
    ]
}

fn rgb_from_ycc([y, cb, cr]: [i32; 3]) -> [u8; 3] {
    let [cb, cr] = [cb - 128, cr - 128];
    let round = |sum: i32| (sum + COLOR_HALF) >> COLOR_BITS;
    [
        y + round(color(1.402) * cr),
        y + round(-color(0.344_14) * cb - color(0.714_14) * cr),
        y + round(color(1.772) * cb),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}

/// Factor by which both passes of [`forward`] scale the coefficients.
const GAIN: i32 = 8;

/// A quantization table, repeated for every block of a [`Strip`].
struct Steps {
    steps: Strip,
    reciprocals: [[f32; STRIP]; BLOCK],
}

impl Steps {
    /// Returns the table at `quality`, with entries clamped to the range of the file format.
    fn new(table: &[u16; 64], quality: u8) -> Self {
        let quality = i32::from(quality);
        let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
        let step = |row: usize, column: usize| {
            ((i32::from(table[row * BLOCK + column % BLOCK]) * percent + 50) / 100).clamp(1, 255)
        };
        let steps: Strip =
            std::array::from_fn(|row| std::array::from_fn(|column| step(row, column)));
        Self { steps, reciprocals: steps.map(|row| row.map(reciprocal)) }
    }
}

/// Returns the factor for [`nearest_multiple`].
fn reciprocal(step: i32) -> f32 {
    ((GAIN * step) as f32).recip()
}

/// Returns the multiple of `step` that is nearest to a coefficient scaled by [`GAIN`].
#[inline(always)]
fn nearest_multiple(value: i32, step: i32, reciprocal: f32) -> i32 {
    // With the added half, a quotient is at least 1/(16 * 255) away from the next integer; the
    // rounding error is 2⁻²² of at most 2¹⁸ / 8.
    let dividend = (value.abs() + GAIN / 2 * step) as f32 + 0.5;
    let multiple = (dividend * reciprocal) as i32 * step;
    if value < 0 { -multiple } else { multiple }
}

/// Number of columns that are transformed together, for vectorization.
const STRIP: usize = 4 * BLOCK;

/// Horizontally adjacent blocks.
type Strip = [[i32; STRIP]; BLOCK];

/// Transforms every block of `plane`, quantizes it by `table` and transforms it back.
fn quantize(plane: &mut Plane, table: &Steps) {
    let mut strip: Strip = [[0; STRIP]; BLOCK];
    for band in plane.samples.chunks_exact_mut(BLOCK * plane.width) {
        for left in (0..plane.width).step_by(STRIP) {
            let columns = left..plane.width.min(left + STRIP);
            for (values, samples) in strip.iter_mut().zip(band.chunks_exact(plane.width)) {
                for (value, &sample) in values.iter_mut().zip(&samples[columns.clone()]) {
                    *value = i32::from(sample) - 128;
                }
            }
            transpose(&mut strip);
            transform_columns(&mut strip, |line| forward(line, PASS_BITS));
            transpose(&mut strip);
            transform_columns(&mut strip, |line| forward(line, -PASS_BITS));
            for (row, values) in strip.iter_mut().enumerate() {
                let steps = table.steps[row].iter().zip(&table.reciprocals[row]);
                for (value, (&step, &reciprocal)) in values.iter_mut().zip(steps) {
                    *value = nearest_multiple(*value, step, reciprocal);
                }
            }
            transform_columns(&mut strip, |line| backward(line, PASS_BITS));
            transpose(&mut strip);
            transform_columns(&mut strip, |line| backward(line, -PASS_BITS - 3));
            transpose(&mut strip);
            for (values, samples) in strip.iter().zip(band.chunks_exact_mut(plane.width)) {
                for (&value, sample) in values.iter().zip(&mut samples[columns.clone()]) {
                    *sample = (value + 128).clamp(0, 255) as u8;
                }
            }
        }
    }
}

/// Transforms the columns of a strip.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "a column is not a slice")]
fn transform_columns(strip: &mut Strip, transform: impl Fn([i32; BLOCK]) -> [i32; BLOCK]) {
    for column in 0..STRIP {
        let values = transform(std::array::from_fn(|row| strip[row][column]));
        for (row, value) in values.into_iter().enumerate() {
            strip[row][column] = value;
        }
    }
}

/// Transposes every block.
#[inline(always)]
fn transpose(strip: &mut Strip) {
    for left in (0..STRIP).step_by(BLOCK) {
        for row in 0..BLOCK {
            for column in 0..row {
                let above = strip[column][left + row];
                strip[column][left + row] = strip[row][left + column];
                strip[row][left + column] = above;
            }
        }
    }
}

/// Fractional bits of the transform's weights.
const DCT_BITS: i32 = 13;

/// Fractional bits that are kept between the two passes.
const PASS_BITS: i32 = 2;

const fn dct(weight: f64) -> i32 {
    (weight * (1 << DCT_BITS) as f64 + 0.5) as i32
}

/// Rounds `sum`, which has [`DCT_BITS`] fractional bits, to `keep` fractional bits.
#[inline(always)]
fn descale(sum: i32, keep: i32) -> i32 {
    let drop = DCT_BITS - keep;
    (sum + (1 << (drop - 1))) >> drop
}

/// Cosine transform of 8 values times √8 after Loeffler, Ligtenberg and Moschytz, with 12
/// multiplications. The result has `keep` more fractional bits than the input.
#[inline(always)]
fn forward(x: [i32; 8], keep: i32) -> [i32; 8] {
    let sum: [i32; 4] = std::array::from_fn(|index| x[index] + x[7 - index]);
    let difference: [i32; 4] = std::array::from_fn(|index| x[index] - x[7 - index]);
    let [outer, inner] = [sum[0] + sum[3], sum[1] + sum[2]];
    let [low, high] = rotate(sum[0] - sum[3], sum[1] - sum[2]);
    let [d0, d1, d2, d3] = difference;
    let [o3, o2, o1, o0] = odd([d3, d2, d1, d0]);
    [
        descale((outer + inner) << DCT_BITS, keep),
        descale(o0, keep),
        descale(low, keep),
        descale(o1, keep),
        descale((outer - inner) << DCT_BITS, keep),
        descale(o2, keep),
        descale(high, keep),
        descale(o3, keep),
    ]
}

/// Inverse of [`forward`], up to a factor of 8.
#[inline(always)]
fn backward(x: [i32; 8], keep: i32) -> [i32; 8] {
    let [low, high] = rotate(x[2], x[6]);
    let [plus, minus] = [(x[0] + x[4]) << DCT_BITS, (x[0] - x[4]) << DCT_BITS];
    let even = [plus + low, minus + high, minus - high, plus - low];
    let [o3, o2, o1, o0] = odd([x[7], x[5], x[3], x[1]]);
    let odd = [o0, o1, o2, o3];
    std::array::from_fn(|index| {
        let sum = match index {
            0..4 => even[index] + odd[index],
            _ => even[7 - index] - odd[7 - index],
        };
        descale(sum, keep)
    })
}

/// Rotates a pair by 3π/8 and scales it by √2: the even half, identical in both directions.
#[inline(always)]
fn rotate(a: i32, b: i32) -> [i32; 2] {
    let shared = (a + b) * dct(0.541_196_1);
    [shared + a * dct(0.765_366_865), shared - b * dct(1.847_759_065)]
}

/// The odd half, identical in both directions.
#[inline(always)]
fn odd([a, b, c, d]: [i32; 4]) -> [i32; 4] {
    let shared = (a + b + c + d) * dct(1.175_875_602);
    let ad = -(a + d) * dct(0.899_976_223);
    let bc = -(b + c) * dct(2.562_915_447);
    let ac = shared - (a + c) * dct(1.961_570_56);
    let bd = shared - (b + d) * dct(0.390_180_644);
    [
        a * dct(0.298_631_336) + ad + ac,
        b * dct(2.053_119_869) + bc + bd,
        c * dct(3.072_711_026) + bc + ac,
        d * dct(1.501_321_11) + ad + bd,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A drawing that uses the full range of every channel, and noise.
    fn images(size: Size) -> [Vec<u8>; 2] {
        let values = |value: fn([i64; 3]) -> i64| {
            let pixels =
                (0..size.height as i64).flat_map(|y| (0..size.width as i64).map(move |x| (x, y)));
            pixels
                .flat_map(|(x, y)| [0, 1, 2].map(|channel| value([x, y, channel]) as u8))
                .collect()
        };
        [
            values(|[x, y, c]| {
                (128 + (2 * x - 3 * y) * (c - 1) + (x / 5 + y / 7) % 3 * 40).clamp(0, 255)
            }),
            values(|[x, y, c]| (3 * x * x + 7 * y + 61 * c + x * y * (c + 1)) % 256),
        ]
    }

    /// FNV-1a hash.
    fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[track_caller]
    fn check(width: usize, height: usize, quality: u8, expected: [u64; 2]) {
        let size = Size { width, height };
        let found = images(size).map(|rgb| {
            let mut decoded = vec![0; rgb.len()];
            JpegRoundTrip::new(size, height, quality).apply(&rgb, &mut decoded);
            hash(&decoded)
        });
        assert_eq!(found, expected, "{size:?} at {quality}");
    }

    /// Hashes of the same images saved (`quality`, `subsampling=2`) and opened by Pillow 13.0.0
    /// with libjpeg-turbo 3.2.0: every byte is equal.
    #[test]
    fn round_trip_equals_libjpeg_turbo() {
        check(48, 32, 95, [0x64ae_bf9e_afa9_ede1, 0x733e_7b93_20f9_ce08]);
        check(48, 32, 50, [0x394d_0b98_a43e_181c, 0x3d7c_6216_1203_2cfb]);
        check(45, 37, 95, [0x564b_43e1_4f54_fe01, 0xf05d_9bd0_7698_3736]);
        check(45, 37, 50, [0x424c_7ba5_1ad8_e97c, 0x9d6f_d467_68a5_44a6]);
        check(17, 1, 95, [0x69d5_45d1_dad0_50ec, 0x8e24_34c7_07a7_3bb6]);
        check(17, 1, 50, [0x31b4_f363_fa9a_0705, 0xf0e7_dadb_20aa_9318]);
    }

    #[test]
    fn upper_part_equals_upper_part_of_full_frame() {
        let size = Size { width: 45, height: 70 };
        for rgb in images(size) {
            let mut whole = vec![0; rgb.len()];
            JpegRoundTrip::new(size, size.height, 95).apply(&rgb, &mut whole);
            for rows in [1, 14, 15, 16, 31, 32, 33, 69] {
                let mut part = vec![0; 3 * rows * size.width];
                JpegRoundTrip::new(size, rows, 95).apply(&rgb, &mut part);
                assert_eq!(part, whole[..part.len()], "{rows} rows");
            }
        }
    }

    #[test]
    fn division_by_reciprocal_is_exact() {
        for step in 1..=255 {
            for value in -17_000..17_000_i32 {
                let multiple = value.signum() * ((value.abs() + 4 * step) / (8 * step) * step);
                let found = nearest_multiple(value, step, reciprocal(step));
                assert_eq!(found, multiple, "{value} to multiples of {step}");
            }
        }
    }
}
