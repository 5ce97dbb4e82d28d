//! AutoMoT's parts outside the networks compared with golden vectors of the AutoMoT release.
//!
//! The folder is `tests/data/automot`, or `TANDEM_GOLDEN_DIR`: any set of the same layout, of any
//! sizes.

use glam::DVec3;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::control::gnss;
use tandem::control::{
    PathCurve, PathFollower, PathFollowerConfig, RecoveryConfig, StateFilter, StateFilterConfig,
    VehicleState, predict_motion,
};
use tandem::model::automot::{image, lidar, planner, prompt, tokenizer, tokens};
use tandem::scene::{
    Command, GeoReference, Gnss, LidarSpec, Pose, RoadOption, Trajectory, wrap_angle,
};

#[expect(clippy::disallowed_methods, reason = "a test takes its folders from the environment")]
fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var(variable)
        .map_or_else(|_| Path::new(tandem_testkit::ROOT).join(default), PathBuf::from)
}

fn golden_folder() -> PathBuf {
    folder("TANDEM_GOLDEN_DIR", "tests/data/automot")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&read(&golden_folder().join(name))).unwrap()
}

/// Bytes of a safetensors file.
struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        Self(read(&golden_folder().join(name)))
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    fn elements<T: bytemuck::Pod>(&self, name: &str, dtype: Dtype) -> Vec<T> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.elements(name, Dtype::F64)
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.elements(name, Dtype::F32)
    }

    fn i64(&self, name: &str) -> Vec<i64> {
        self.elements(name, Dtype::I64)
    }

    fn u8(&self, name: &str) -> Vec<u8> {
        self.elements(name, Dtype::U8)
    }

    /// Rows of `N` numbers, f32 or f64.
    fn rows<const N: usize>(&self, name: &str) -> Vec<[f64; N]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let flat = match file.tensor(name).unwrap().dtype() {
            Dtype::F32 => self.f32(name).into_iter().map(f64::from).collect(),
            _ => self.f64(name),
        };
        assert_eq!(flat.len() % N, 0, "{name}");
        flat.as_chunks::<N>().0.to_vec()
    }
}

/// Compares numbers; fails at the first that differs by more than `tolerance`.
#[track_caller]
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        // This comparison is false for NaN.
        let is_close = (found - expected).abs() <= tolerance;
        assert!(is_close, "{what}[{index}]: found {found}, expected {expected} ± {tolerance}");
    }
}

fn tolerance(file: &str) -> f64 {
    json("index.json")["suggested_tolerance"][file]["atol"].as_f64().unwrap()
}

fn numbers<T: TryFrom<i64>>(value: &Value) -> Vec<T> {
    let number = |value: &Value| T::try_from(value.as_i64().unwrap()).ok().unwrap();
    value.as_array().unwrap().iter().map(number).collect()
}

fn tokenizer() -> tokenizer::Tokenizer {
    tokenizer::Tokenizer::read(&golden_folder().join("tokenizer.json")).unwrap()
}

fn encode(tokenizer: &mut tokenizer::Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode_into(text, &mut ids).unwrap();
    ids
}

#[test]
fn golden_text_is_tokenized() {
    let text = json("text.json");
    let mut tokenizer = tokenizer();
    for (name, id) in text["special_tokens"].as_object().unwrap() {
        assert_eq!(encode(&mut tokenizer, name), [id.as_u64().unwrap() as u32], "{name}");
    }
    let special = tokenizer.special();
    let ids = &text["new_token_ids"];
    assert_eq!(u64::from(special.message_start), ids["bos_token_id"]);
    assert_eq!(u64::from(special.message_end), ids["eos_token_id"]);
    assert_eq!(u64::from(special.vision_start), ids["start_of_image"]);
    assert_eq!(u64::from(special.vision_end), ids["end_of_image"]);
    assert_eq!(u64::from(special.image_pad), text["special_tokens"]["<|image_pad|>"]);
    for case in text["tokenize"].as_array().unwrap() {
        let piece = case["text"].as_str().unwrap();
        let ids: Vec<u32> = numbers(&case["ids"]);
        assert_eq!(encode(&mut tokenizer, piece), ids, "{piece:?}");
    }
}

#[test]
fn golden_prompts_are_written_byte_for_byte() {
    let text = json("text.json");
    let mut tokenizer = tokenizer();
    assert_eq!(prompt::PREFIX, text["user_prompt_prefix"]);
    assert_eq!(prompt::INSTRUCTION_END, text["instruction_suffix_fast"]);
    let mut written = String::with_capacity(prompt::INSTRUCTION_CAPACITY);
    for case in text["prompts"].as_array().unwrap() {
        let state: Vec<f32> = case["state_float32_exact"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        let state = prompt::DrivingState {
            speed_mps: state[0],
            target_m: [state[1], state[2]],
            next_target_m: [state[3], state[4]],
        };
        prompt::write_instruction(&state, &mut written);
        let expected = case["prompt"].as_str().unwrap();
        assert_eq!(written.strip_suffix(prompt::INSTRUCTION_END), Some(expected));
        assert_eq!(prompt::strip_tags(&written), written, "the agent's text has no tags");
        let ids: Vec<u32> = numbers(&case["token_ids_prompt_plus_im_end"]);
        assert_eq!(encode(&mut tokenizer, &written), ids);
    }
}

/// Token ids of the AutoMoT release's vocabulary, 11 MB that `.ci/run` fetches.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test takes its files from the environment")]
fn golden_prompts_are_tokenized_as_by_qwen() {
    let Ok(path) = std::env::var("TANDEM_QWEN_TOKENIZER") else {
        eprintln!("SKIPPED: TANDEM_QWEN_TOKENIZER does not name Qwen3's tokenizer.json");
        return;
    };
    let mut tokenizer = tokenizer::Tokenizer::read(Path::new(&path)).unwrap();
    // Decision words with and without a leading space, from the published vocabulary.
    for (text, ids) in [
        ("stop", &[9495][..]),
        (" stop", &[2936]),
        ("keep", &[13_096]),
        (" keep", &[2506]),
        ("slow", &[35_211]),
        (" slow", &[6301]),
        ("accelerate", &[43_888, 58_668]),
        (" accelerate", &[42_780]),
        (" decelerate", &[1622, 7865, 349]),
        (",", &[11]),
        ("<|endoftext|>", &[151_643]),
        ("<|video_pad|>", &[151_656]),
        ("</think>", &[151_668]),
    ] {
        assert_eq!(encode(&mut tokenizer, text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids).unwrap(), text);
    }
    let prefix = [
        151_644, 8948, 198, 2610, 525, 264, 14851, 323, 6584, 5579, 13, 151_645, 198, 151_644, 872,
        198,
    ];
    assert_eq!(encode(&mut tokenizer, prompt::PREFIX), prefix);
    let special = tokenizer.special();
    assert_eq!(
        [special.vision_start, special.image_pad, special.vision_end],
        [151_652, 151_655, 151_653]
    );
    assert_eq!([special.message_start, special.message_end], [151_644, 151_645]);
    let mut ids = |[x1, y1, x2, y2, speed_mps]: [f32; 5]| {
        let state = prompt::DrivingState { speed_mps, target_m: [x1, y1], next_target_m: [x2, y2] };
        let mut written = String::new();
        prompt::write_instruction(&state, &mut written);
        encode(&mut tokenizer, &written)
    };
    for (state, tokens) in [
        ([3.0, 6.5, 6.0, 6.5, 0.02], 87),
        ([7.5, 0.0, 50.0, 0.0, 0.0], 88),
        ([12.345_678, -0.123_456, 45.678_9, 1.234_567, 5.43], 89),
        ([-3.1, -22.1, -12.2, -38.1, 12.21], 91),
        ([123.1, -122.1, -112.2, -138.1, 12.21], 96),
    ] {
        assert_eq!(ids(state).len(), tokens, "{state:?}");
    }
    // Text of the fact sheet. Its third number is not the printed form of a 32-bit float.
    let text = "Your current and next target point is (12.345678, -0.123456), (45.678901, \
                1.234567), and your current velocity is 5.43 m/s. Predict the driving actions ( \
                now, +1s, +2s) and plan the trajectory for the next 3 seconds.<|im_end|>";
    assert_eq!(
        encode(&mut tokenizer, text),
        [
            7771, 1482, 323, 1790, 2169, 1459, 374, 320, 16, 17, 13, 18, 19, 20, 21, 22, 23, 11,
            481, 15, 13, 16, 17, 18, 19, 20, 21, 701, 320, 19, 20, 13, 21, 22, 23, 24, 15, 16, 11,
            220, 16, 13, 17, 18, 19, 20, 21, 22, 701, 323, 697, 1482, 15435, 374, 220, 20, 13, 19,
            18, 296, 2687, 13, 32710, 279, 9842, 6168, 320, 1431, 11, 488, 16, 82, 11, 488, 17, 82,
            8, 323, 3119, 279, 34682, 369, 279, 1790, 220, 18, 6486, 13, 151_645
        ]
    );
}

#[test]
fn golden_tags_are_stripped() {
    for case in json("text.json")["clean_instruction_prompt"].as_array().unwrap() {
        assert_eq!(prompt::strip_tags(case["in"].as_str().unwrap()), case["out"]);
    }
}

#[test]
fn golden_decisions_are_read() {
    let text = json("text.json");
    let tokenizer = tokenizer();
    for case in text["span_extraction"].as_array().unwrap() {
        let ids: Vec<u32> = numbers(&case["ids"]);
        let expected: Vec<Vec<u32>> =
            case["spans"].as_array().unwrap().iter().map(numbers).collect();
        let found: Vec<&[u32]> = prompt::decision_spans(&ids, tokenizer.special()).collect();
        assert_eq!(found, expected, "{ids:?}");
        assert_eq!(prompt::decision_text(&ids, &tokenizer).unwrap(), case["text"], "{ids:?}");
    }
    for case in text["decision_parse"].as_array().unwrap() {
        let found = prompt::parse_decisions(case["in"].as_str().unwrap());
        assert_eq!(serde_json::to_value(found).unwrap(), case["out"], "{}", case["in"]);
    }
}

fn patch_layout() -> image::PatchLayout {
    let config = json("preprocessor_config.json");
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    image::PatchLayout {
        patch_size: size("patch_size"),
        temporal_patch_size: size("temporal_patch_size"),
        merge_size: size("merge_size"),
    }
}

#[test]
fn golden_sequences_are_laid_out() {
    let mut tokenizer = tokenizer();
    let index = json("index.json");
    let layout = patch_layout();
    for name in ["slow_A.safetensors", "slow_B.safetensors", "slow_C.safetensors"] {
        let golden = Golden::open(name);
        let extra = &index["files"][name]["extra"];
        let frames: Vec<tokens::ImageGrid> = (0..extra["n_images"].as_u64().unwrap())
            .map(|frame| {
                let shape = golden.shape(&format!("image.{frame}"));
                let size = image::Size { width: shape[1], height: shape[0] };
                let [rows, columns] = layout.token_grid(size);
                tokens::ImageGrid { rows, columns }
            })
            .collect();
        let prefix = encode(&mut tokenizer, extra["user_prompt"].as_str().unwrap());
        let mut instruction = encode(&mut tokenizer, extra["prompt"].as_str().unwrap());
        instruction.extend(encode(&mut tokenizer, extra["instruction_suffix"].as_str().unwrap()));
        let prompt = tokens::PromptTokens {
            prefix: &prefix,
            frames: &frames,
            instruction: &instruction,
            special: tokenizer.special(),
            instruction_mask: tokens::InstructionMask::Causal,
        };
        let valid = golden.shape("token_ids")[0];
        let capacity = valid + 7;
        let mut token_ids = vec![-1; capacity];
        let mut position_ids = vec![-1; 3 * capacity];
        let mut image_slot = vec![-1; capacity];
        let mut visible_until = vec![-1; capacity];
        let extent = prompt
            .lay_out(tokens::SequenceBuffers {
                token_ids: &mut token_ids,
                position_ids: &mut position_ids,
                image_slot: &mut image_slot,
                visible_until: &mut visible_until,
            })
            .unwrap();

        assert_eq!(extent.valid_tokens as u64, extra["kv_len"], "{name}");
        assert_eq!(extent.next_position, extra["next_rope_position"], "{name}");
        assert_eq!(extent.image_tokens, golden.shape("vision.merged")[0], "{name}");
        assert_eq!(token_ids[..valid], golden.i64("token_ids"), "{name}");
        let positions: Vec<i64> =
            position_ids.chunks(capacity).flat_map(|row| &row[..valid]).copied().collect();
        assert_eq!(positions, golden.i64("position_ids"), "{name}");
        let mut slots = 0;
        for (slot, is_image) in image_slot.iter().zip(golden.u8("image_token_mask")) {
            slots += i64::from(is_image);
            assert_eq!(*slot, if is_image == 1 { slots } else { 0 }, "{name}");
        }
        let mut ends: Vec<i64> = Vec::new();
        for (length, mode) in
            numbers::<i64>(&extra["split_lens"]).iter().zip(extra["attn_modes"].as_array().unwrap())
        {
            let start = ends.len() as i64;
            ends.extend((start..start + length).map(|row| match mode.as_str().unwrap() {
                "causal" => row + 1,
                _ => start + length,
            }));
        }
        assert_eq!(visible_until[..valid], ends, "{name}");
        if golden.has("attention_mask") {
            let mask: Vec<u8> = visible_until[..valid]
                .iter()
                .flat_map(|&until| (0..valid as i64).map(move |column| u8::from(column < until)))
                .collect();
            assert_eq!(mask, golden.u8("attention_mask"), "{name}");
        }
    }
}

#[test]
fn golden_frames_are_cut_into_patches() {
    let layout = patch_layout();
    for name in ["slow_A.safetensors", "slow_B.safetensors"] {
        let golden = Golden::open(name);
        let expected = golden.f32("pixel_values");
        let mut start = 0;
        for frame in 0.. {
            let image_name = format!("image.{frame}");
            if !golden.has(&image_name) {
                break;
            }
            let shape = golden.shape(&image_name);
            let size = image::Size { width: shape[1], height: shape[0] };
            let mut patches = vec![0.0; layout.patches(size) * layout.patch_values()];
            layout.write_patches(&golden.u8(&image_name), size, &mut patches);
            assert_eq!(patches, expected[start..start + patches.len()], "{name} {image_name}");
            start += patches.len();
        }
        assert_eq!(start, expected.len(), "{name}");
    }
}

#[test]
fn golden_camera_frame_is_resized_and_patchified() {
    let golden = Golden::open("image_preprocess.safetensors");
    let layout = patch_layout();
    let size = |name: &str| {
        let shape = golden.shape(name);
        image::Size { width: shape[1], height: shape[0] }
    };
    let to = size("resized");
    let mut resized = vec![0; to.rgb_bytes()];
    image::Resizer::new(size("raw"), to).resize(&golden.u8("raw"), &mut resized);
    let off =
        resized.iter().zip(golden.u8("resized")).filter(|(found, expected)| *found != expected);
    assert_eq!(off.count(), 0, "bytes that differ from Pillow's");

    let values = layout.patch_values();
    let mut patches = vec![0.0; layout.patches(to) * values];
    layout.write_patches(&resized, to, &mut patches);
    let head = golden.f32("pixel_values_head");
    assert_eq!(patches[..head.len()], head);
    let rows: Vec<Vec<f64>> = patches
        .chunks(values)
        .map(|patch| patch.iter().copied().map(f64::from).collect())
        .collect();
    let row_means: Vec<f64> =
        rows.iter().map(|row| row.iter().sum::<f64>() / values as f64).collect();
    close("row means", &row_means, &golden.f64("pixel_values_rowmean"), 1e-6);
    let column_means: Vec<f64> = (0..values)
        .map(|column| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64)
        .collect();
    close("column means", &column_means, &golden.f64("pixel_values_colmean"), 1e-6);
    let [token_rows, token_columns] = layout.token_grid(to);
    let grid = [1, token_rows * layout.merge_size, token_columns * layout.merge_size];
    assert_eq!(golden.i64("grid_thw"), grid.map(|size| size as i64));
    assert_eq!(golden.i64("n_image_tokens"), [(token_rows * token_columns) as i64]);
}

/// FNV-1a hash.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The second hash is of the upper 384 rows of the golden frame after Pillow 13.0.0 (libjpeg-turbo
/// 3.2.0) saved it at quality 95 with halved chroma and opened it again.
#[test]
fn golden_camera_frame_after_jpeg_matches_pillow() {
    let golden = Golden::open("image_preprocess.safetensors");
    let raw = golden.u8("raw");
    if hash(&raw) != 0x92ac_b109_8eaa_5a61 {
        eprintln!("SKIPPED: this set of vectors has another frame");
        return;
    }
    let mut frame = image::BevFrame::new(image::BevFrameConfig {
        camera: image::Size { width: 1024, height: 512 },
        cropped: image::Size { width: 1024, height: 384 },
        jpeg_quality: Some(95),
    });
    assert_eq!(hash(frame.picture(&raw)), 0x3c40_9723_204b_9e35);
}

/// The float history of the AutoMoT release is lossless
/// for bytes, so tandem stores frames as bytes.
#[test]
fn golden_bytes_survive_the_release_float_history() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(Golden::open("image_preprocess.safetensors").u8("agent_u8_roundtrip"), bytes);
}

fn histogram_config() -> lidar::HistogramConfig {
    let config = json("bev_config.json");
    let number = |name: &str| config[name].as_f64().unwrap();
    lidar::HistogramConfig {
        x_range_m: [number("min_x"), number("max_x")],
        y_range_m: [number("min_y"), number("max_y")],
        cells_per_meter: number("pixels_per_meter"),
        full_cell_points: number("hist_max_per_pixel") as u32,
        split_height_m: number("lidar_split_height"),
        max_height_m: number("max_height_lidar"),
        ground_plane: config["use_ground_plane"].as_bool().unwrap(),
    }
}

/// First three columns of a point cloud.
fn ego_points(golden: &Golden, name: &str) -> Vec<lidar::EgoPoint> {
    let width = *golden.shape(name).last().unwrap();
    golden.f64(name).chunks(width).map(|row| [row[0], row[1], row[2]]).collect()
}

fn histogram(points: impl IntoIterator<Item = lidar::EgoPoint>) -> Vec<f32> {
    let config = histogram_config();
    let mut histogram = vec![f32::NAN; config.shape().iter().product()];
    lidar::Histogram::new(config).write(points, &mut histogram);
    histogram
}

#[test]
fn golden_lidar_histograms_are_counted() {
    let golden = Golden::open("lidar.safetensors");
    for sample in ["s0", "s1"] {
        let points = ego_points(&golden, &format!("{sample}.points_ego"));
        let expected = golden.f32(&format!("{sample}.histogram"));
        assert_eq!(golden.shape(&format!("{sample}.histogram")), histogram_config().shape());
        assert_eq!(histogram(points), expected, "{sample}");
    }
}

#[test]
fn golden_lidar_sweeps_are_aligned() {
    let golden = Golden::open("lidar.safetensors");
    let config = json("bev_config.json");
    let number = |value: &Value| value.as_f64().unwrap();
    let mount = LidarSpec {
        position_m: [0, 1, 2].map(|axis| number(&config["lidar_pos"][axis])),
        yaw_rad: number(&config["lidar_rot"][2]).to_radians(),
    };
    let raw: Vec<[f32; 4]> = golden.f32("raw_sensor_points").as_chunks().0.to_vec();
    let mount = lidar::Mount::new(&mount);
    let current: Vec<_> = raw.iter().map(|&point| mount.ego_from_sensor(point)).collect();
    close("ego_points", current.as_flattened(), &golden.f64("ego_points"), 1e-12);

    let [previous_pose, current_pose] = [0, 1]
        .map(|row| golden.rows::<3>("align.poses")[row])
        .map(|[x, y, yaw]| Pose::new(x, y, yaw));
    let alignment = lidar::Alignment::new(&previous_pose, &current_pose);
    let aligned: Vec<_> = current.iter().map(|&point| alignment.apply(point)).collect();
    close("align.points", aligned.as_flattened(), &golden.f64("align.points"), 1e-12);
    assert_eq!(histogram(current.into_iter().chain(aligned)), golden.f32("sweep.histogram"));
}

fn road_option(number: i64) -> RoadOption {
    [
        RoadOption::Void,
        RoadOption::Left,
        RoadOption::Right,
        RoadOption::Straight,
        RoadOption::LaneFollow,
        RoadOption::ChangeLaneLeft,
        RoadOption::ChangeLaneRight,
    ]
    .into_iter()
    .find(|&option| option as i64 == number)
    .unwrap()
}

#[test]
fn golden_route_is_planned() {
    let golden = Golden::open("planner.safetensors");
    let extra = &json("index.json")["files"]["planner.safetensors"]["extra"];
    let config = planner::RoutePlannerConfig {
        reached_within_m: extra["min_distance"].as_f64().unwrap(),
        horizon_m: extra["max_distance"].as_f64().unwrap(),
        ..Default::default()
    };
    let commands = golden.i64("plan.command");
    let plan = golden.rows::<3>("plan.xyz").into_iter().zip(commands).map(|(position, command)| {
        planner::PlanPoint { position: DVec3::from(position), command: road_option(command) }
    });
    let mut planner = planner::RoutePlanner::new(plan, config);
    let yaws = golden.f64("compass");
    let places = golden.rows::<3>("gps");
    let (mut floats, mut integers) = (Vec::new(), Vec::new());
    for (place, yaw) in places.iter().zip(yaws) {
        let pose = Pose::new(place[0], place[1], yaw);
        let is_last = planner.ahead().len() <= 2;
        let dropped = planner.advance(pose.position);
        let targets = planner.targets(&pose);
        let ahead = planner.ahead();
        let places = [ahead[0].position.truncate(), ahead[1].position.truncate()];
        floats.extend(
            [places[0], places[1], targets.target_m, targets.next_target_m]
                .map(|place| place.to_array())
                .as_flattened(),
        );
        integers.extend([
            dropped as i64,
            ahead.len() as i64,
            ahead[0].command as i64,
            ahead[1].command as i64,
            targets.command as i64,
            targets.delayed_command as i64,
            i64::from(is_last),
        ]);
    }
    assert_eq!(integers, golden.i64("out.int"));
    let atol = tolerance("planner.safetensors floats");
    close("out.float", &floats, &golden.f64("out.float"), atol);
}

#[test]
fn golden_gnss_and_compass_are_converted() {
    let golden = Golden::open("planner.safetensors");
    let extra = &json("index.json")["files"]["planner.safetensors"]["extra"];
    let atol = tolerance("planner.safetensors floats");
    let [latitude, longitude] = ["lat_ref", "lon_ref"].map(|name| extra[name].as_f64().unwrap());
    for (name, offset) in [("gnss.xyz", [0.0; 2]), ("gnss.xyz_ref0", [latitude, longitude])] {
        let reference = GeoReference {
            latitude_deg: latitude - offset[0],
            longitude_deg: longitude - offset[1],
        };
        let found: Vec<[f64; 3]> = golden
            .rows::<3>("gnss.latlon")
            .iter()
            .map(|&[latitude, longitude, altitude]| Gnss {
                latitude_deg: latitude - offset[0],
                longitude_deg: longitude - offset[1],
                altitude_m: altitude,
            })
            .map(|reading| gnss::world_from_gnss(&reading, &reference).to_array())
            .collect();
        close(name, found.as_flattened(), &golden.f64(name), atol);
    }
    let yaws: Vec<f64> = golden
        .f64("compass.raw")
        .into_iter()
        .map(|raw| gnss::yaw_from_compass(if raw == -999.0 { f64::NAN } else { raw }))
        .collect();
    close("compass", &yaws, &golden.f64("compass.out"), 1e-12);
    let angles: Vec<f64> = golden.f64("angle.in").into_iter().map(wrap_angle).collect();
    close("angle", &angles, &golden.f64("angle.out"), 1e-12);
}

#[test]
fn golden_plans_are_thinned() {
    let path =
        folder("TANDEM_BENCH2DRIVE", "../shared/bench2drive").join("golden/misc_functions.json");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("SKIPPED: {} does not exist", path.display());
        return;
    };
    let functions: Value = serde_json::from_slice(&bytes).unwrap();
    for case in functions["downsample_route"].as_array().unwrap() {
        let points = case["points"].as_array().unwrap();
        let options: Vec<i64> = numbers(&case["road_options"]);
        let plan: Vec<planner::PlanPoint> = points
            .iter()
            .zip(options)
            .map(|(point, option)| planner::PlanPoint {
                position: DVec3::from([0, 1, 2].map(|axis| point[axis].as_f64().unwrap())),
                command: road_option(option),
            })
            .collect();
        let kept: Vec<usize> = numbers(&case["kept_indices"]);
        let spacing_m = case["factor"].as_f64().unwrap();
        assert_eq!(planner::thin_plan(&plan, spacing_m), kept, "{}", case["name"]);
    }
}

fn points(golden: &Golden, name: &str) -> Vec<[f32; 2]> {
    golden.f32(name).as_chunks().0.to_vec()
}

fn trajectory(path: &[[f32; 2]], waypoints: &[[f32; 2]]) -> Trajectory {
    Trajectory {
        path: path.iter().copied().collect(),
        waypoints: waypoints.iter().copied().collect(),
        spacing: Duration::from_millis(500),
    }
}

/// The golden runs have the stuck logic, but neither the test for a parked start nor the escape.
fn with_force_move_only() -> PathFollowerConfig {
    let recovery = RecoveryConfig { parking_start: None, escape: None, ..Default::default() };
    PathFollowerConfig { recovery, ..Default::default() }
}

/// Runs a follower with heuristics and one without.
fn follow(trajectories: &[Trajectory], speeds: &[f64]) -> (Vec<[f64; 3]>, Vec<[f64; 5]>) {
    let mut bare = PathFollower::new(PathFollowerConfig::bare());
    let mut with_heuristics = PathFollower::new(with_force_move_only());
    trajectories
        .iter()
        .zip(speeds)
        .map(|(trajectory, &speed_mps)| {
            let raw = bare.follow(trajectory, speed_mps);
            let Command { steer, throttle, brake } = with_heuristics.follow(trajectory, speed_mps);
            let recovery = with_heuristics.recovery();
            let counters =
                [recovery.stuck_ticks(), recovery.force_move_ticks()].map(|ticks| ticks as f64);
            (
                [raw.steer, raw.throttle, raw.brake],
                [steer, throttle, brake, counters[0], counters[1]],
            )
        })
        .unzip()
}

#[test]
fn golden_trajectories_are_followed() {
    let golden = Golden::open("control.safetensors");
    let atol = tolerance("control.safetensors");
    let shape = golden.shape("route");
    let trajectories: Vec<Trajectory> = points(&golden, "route")
        .chunks(shape[1])
        .zip(points(&golden, "waypoints").chunks(golden.shape("waypoints")[1]))
        .map(|(path, waypoints)| trajectory(path, waypoints))
        .collect();
    assert_eq!(trajectories.len(), shape[0]);
    let (raw, commands) = follow(&trajectories, &golden.f64("speed"));
    close("pid_output", raw.as_flattened(), &golden.f64("pid_output"), atol);
    close("final_control", commands.as_flattened(), &golden.f64("final_control"), atol);

    for (step, debug) in golden.rows::<6>("debug").iter().enumerate() {
        let curve = PathCurve::new(&trajectories[step].path, 0.1);
        assert_eq!(curve.len() as f64, debug[2], "points of step {step}");
        let aim = curve.point(debug[3] as usize);
        let error = aim[1].atan2(aim[0]) / std::f64::consts::FRAC_PI_2;
        close("heading error", &[error], &[debug[4]], atol);
        let name = format!("interp_route.{step}");
        if golden.has(&name) {
            let found: Vec<_> = (0..curve.len()).map(|index| curve.point(index)).collect();
            let expected = golden.rows::<2>(&name);
            // Far below the tolerance of the set: lengths summed in 64 bits differ by 1e-8 to 1e-6.
            close(&name, found.as_flattened(), expected.as_flattened(), 1e-9);
        }
    }
}

#[test]
fn golden_stuck_vehicle_is_moved() {
    let golden = Golden::open("control.safetensors");
    let atol = tolerance("control.safetensors");
    let speeds = golden.f64("stuck.speed");
    let path = points(&golden, "stuck.route");
    let waypoints = points(&golden, "stuck.waypoints");
    let (raw, commands) = follow(&vec![trajectory(&path, &waypoints); speeds.len()], &speeds);
    let found: Vec<f64> =
        raw.iter().zip(&commands).flat_map(|(raw, command)| [&raw[..], command].concat()).collect();
    close("stuck.rows", &found, &golden.f64("stuck.rows"), atol);
}

fn vehicle_state([x, y, yaw_rad, speed_mps]: [f64; 4]) -> VehicleState {
    VehicleState { pose: Pose::new(x, y, yaw_rad), speed_mps }
}

fn command([steer, throttle, brake]: [f64; 3]) -> Command {
    Command { steer, throttle, brake }
}

/// Compares a state with a row of position, yaw and speed. Yaws that differ by a full turn differ.
#[track_caller]
fn close_state(what: &str, found: &VehicleState, expected: [f64; 4], tolerances: [f64; 2]) {
    let [x, y, yaw, speed] = expected;
    close(what, &found.pose.position.to_array(), &[x, y], tolerances[0]);
    close(what, &[found.pose.yaw_rad, found.speed_mps], &[yaw, speed], tolerances[1]);
}

#[test]
fn golden_bicycle_motion_is_predicted() {
    let golden = Golden::open("ukf.safetensors");
    let tick_s = StateFilterConfig::default().tick_s;
    let controls = golden.rows::<3>("bicycle.control");
    for (step, (state, control)) in
        golden.rows::<4>("bicycle.state").into_iter().zip(controls).enumerate()
    {
        let next = predict_motion(&vehicle_state(state), &command(control), tick_s);
        close_state("bicycle.next", &next, golden.rows::<4>("bicycle.next")[step], [1e-9; 2]);
    }
}

#[test]
fn golden_readings_are_filtered() {
    let golden = Golden::open("ukf.safetensors");
    let atol = tolerance("ukf.safetensors filtered x/y");
    let mut filter = StateFilter::new(StateFilterConfig::default());
    let controls = golden.rows::<3>("control");
    for (step, (reading, control)) in
        golden.rows::<4>("measurement").into_iter().zip(controls).enumerate()
    {
        let filtered = filter.update(&vehicle_state(reading), &command(control)).unwrap();
        // Before the correction, weights of 1e10 give yaw and speed errors of some 1e-5 (1e10 times
        // the rounding of a speed of 4 m/s); the correction sets both to the measurement, within
        // 1e-9.
        let prior = golden.rows::<4>("prior")[step];
        close_state("prior", &filter.predicted(), prior, [atol, 1e-4]);
        for name in ["filtered", "filtered_highprec"] {
            close_state(name, &filtered, golden.rows::<4>(name)[step], [atol, 1e-9]);
        }
        // Position variances start at 0.5 m² and shrink; the large weights give errors of some
        // 1e-4.
        let covariance = golden.rows::<16>("covariance")[step];
        close("covariance", filter.covariance().as_flattened(), &covariance, 1e-3);
    }
}
