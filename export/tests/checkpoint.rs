//! Checkpoint folders: reading, refused folders and their errors, and lists of expected tensors.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::checkpoint::Trunk;
use tandem_export::automot::checkpoint::expected::{self, Expected};
use tandem_export::automot::synth::{SynthSpec, synthesize, synthesize_sparse};
use tandem_export::checkpoint::{CheckpointError, Warning};
use tandem_export::dtype::DType;
use tandem_export::synth::SynthError;
use tempfile::TempDir;

fn spec(name: &str) -> SynthSpec {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A tiny synthesized checkpoint in a temporary folder.
fn tiny() -> (TempDir, std::path::PathBuf) {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("tiny");
    synthesize(&spec("tiny.json"), 7, &dir, |_, _| {}).unwrap();
    (holder, dir)
}

/// Opens a tiny checkpoint with a weight file of `header` and `data_bytes` zeros.
fn with_header(header: &str, data_bytes: usize) -> Result<Checkpoint, CheckpointError> {
    let (_holder, dir) = tiny();
    write_weights(&dir.join("model.safetensors"), header, data_bytes);
    Checkpoint::open(&dir)
}

fn write_weights(path: &Path, header: &str, data_bytes: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    fs::write(path, bytes).unwrap();
}

/// Checks that the error contains each of `fragments`.
#[track_caller]
fn check_refused<T>(result: Result<T, CheckpointError>, fragments: &[&str]) {
    let Err(error) = result else { panic!("was accepted, expected {fragments:?}") };
    let text = error.to_string();
    for fragment in fragments {
        assert!(text.contains(fragment), "{text:?} does not contain {fragment:?}");
    }
}

/// Checks that the tiny checkpoint is refused with `from` replaced by `to` in one of its files.
#[track_caller]
fn check_config(file: &str, from: &str, to: &str, fragments: &[&str]) {
    let (_holder, dir) = tiny();
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    check_refused(Checkpoint::open(&dir), &[&[file], fragments].concat());
}

#[test]
fn synthesized_checkpoint_opens_and_passes_the_check() {
    let (_holder, dir) = tiny();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.check().unwrap(), []);
    assert_eq!(checkpoint.scan_values(|_, _| {}), []);
    let (config, spec) = (checkpoint.config(), spec("tiny.json"));
    assert_eq!(config.text, spec.text);
    assert_eq!(config.vision, spec.vision);
    assert_eq!(config.mot, spec.mot);
    assert_eq!(config.bev, spec.bev);
    assert_eq!(config.tokens.image_pad, 992);
    assert_eq!(checkpoint.projected_channels(), Some(368));
}

/// The size of the AutoMoT release, without using disk space.
#[test]
fn sparse_checkpoint_has_its_full_length_and_a_warning() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("full");
    let written = synthesize_sparse(&spec("full.json"), &dir).unwrap();
    let weights = dir.join("model.safetensors");
    let metadata = std::fs::metadata(&weights).unwrap();
    assert_eq!(metadata.len(), written.bytes);
    assert!((12_400_000_000..12_500_000_000).contains(&written.bytes), "{}", written.bytes);
    #[cfg(unix)]
    {
        let allocated = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert!(allocated < 50_000_000, "{allocated} bytes on the disk");
    }
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.check().unwrap(), [Warning::Sparse { path: weights }]);
    let (_, last) = checkpoint.tensors().iter().max_by_key(|(_, entry)| entry.offset).unwrap();
    assert!(checkpoint.bytes(last).iter().all(|&byte| byte == 0));
}

/// The width of the AutoMoT release with two layers, which a CPU can run.
#[test]
fn shallow_configuration_differs_only_in_depth() {
    let mut shallow = spec("full.json");
    shallow.text.num_hidden_layers = 2;
    shallow.vision.depth = 2;
    shallow.vision.deepstack_visual_indexes = vec![0, 1];
    assert_eq!(shallow, spec("full-shallow.json"));
    let holder = tempfile::tempdir().unwrap();
    synthesize_sparse(&shallow, &holder.path().join("shallow")).unwrap();
}

#[test]
fn tensors_are_those_of_the_safetensors_crate() {
    let (_holder, dir) = tiny();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.len(), checkpoint.tensors().len());
    for (name, entry) in checkpoint.tensors() {
        let tensor = reference.tensor(name).unwrap();
        assert_eq!(tensor.shape(), entry.shape, "{name}");
        assert!(tensor.data() == checkpoint.bytes(entry), "{name}");
    }
}

#[test]
fn error_names_the_missing_folder_or_file() {
    check_refused(Checkpoint::open(Path::new("nowhere/at-all")), &["nowhere/at-all", "folder"]);
    for name in ["config.json", "model.safetensors"] {
        let (_holder, dir) = tiny();
        fs::remove_file(dir.join(name)).unwrap();
        check_refused(Checkpoint::open(&dir), &[name]);
    }
}

#[test]
fn optional_files_may_be_absent() {
    let (_holder, dir) = tiny();
    fs::remove_file(dir.join("bev_config.json")).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.config().bev.n_layer, 2, "the default of the release");
    check_refused(checkpoint.check(), &["transformers.0.blocks.1.ln1.weight", "BEV"]);
    fs::remove_file(dir.join("automot_args.json")).unwrap();
    check_refused(Checkpoint::open(&dir), &["mot_num_attention_heads", "at most"]);
}

#[test]
fn damaged_weight_files_are_refused_with_the_reason() {
    let (_holder, dir) = tiny();
    let weights = dir.join("model.safetensors");
    let complete = fs::read(&weights).unwrap();
    for length in [0, 5, 100] {
        fs::write(&weights, &complete[..length]).unwrap();
        check_refused(Checkpoint::open(&dir), &["model.safetensors", "truncated"]);
    }
    fs::write(&weights, &complete[..complete.len() - 1]).unwrap();
    check_refused(Checkpoint::open(&dir), &["tensor bev_encoder", "truncated"]);
    fs::write(&weights, [0xff; 64]).unwrap();
    check_refused(Checkpoint::open(&dir), &["header length", "limit"]);
}

#[test]
fn damaged_headers_are_refused_with_the_tensor() {
    check_refused(with_header("not json", 0), &["model.safetensors", "JSON"]);
    check_refused(with_header("[1, 2]", 0), &["JSON object"]);
    check_refused(with_header(r#"{"a": {"dtype": "F32"}}"#, 0), &["JSON object"]);
    let a = r#""a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}"#;
    let overlapping = r#""b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#;
    check_refused(with_header(&format!("{{{a}, {overlapping}}}"), 8), &["tensor b", "inside a"]);
    check_refused(with_header(&format!("{{{a}}}"), 4), &["tensor a", "0..8", "has 4"]);
    check_refused(with_header(&format!("{{{a}, {a}}}"), 8), &["tensor a", "again"]);
    let short = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#;
    check_refused(with_header(short, 4), &["tensor a", "must be 8 bytes", "found 4"]);
    let huge =
        r#"{"a": {"dtype": "F32", "shape": [9223372036854775807, 8], "data_offsets": [0, 4]}}"#;
    check_refused(with_header(huge, 4), &["tensor a", "2^64"]);
    let reversed = r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}"#;
    check_refused(with_header(reversed, 4), &["tensor a", "4..0"]);
}

#[test]
fn gaps_metadata_and_unsupported_types_are_accepted() {
    let header = r#"{"__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "new": {"dtype": "F6_E3M2", "shape": [3], "data_offsets": [4, 7]},
        "double": {"dtype": "F64", "shape": [1], "data_offsets": [16, 24]}}"#;
    let checkpoint = with_header(header, 24).unwrap();
    assert_eq!(checkpoint.values_f32("a").unwrap(), [0.0]);
    check_refused(checkpoint.values_f32("double"), &["double", "F64"]);
    check_refused(checkpoint.values_f32("new"), &["new", "F6_E3M2"]);
    check_refused(checkpoint.values_f32("none"), &["no tensor none"]);
}

#[test]
fn prefix_of_the_training_wrapper_is_removed() {
    let entry = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    let header = format!(r#"{{"bev_encoder.backbone.c5_conv.bias": {entry}}}"#);
    let checkpoint = with_header(&header, 4).unwrap();
    assert_eq!(checkpoint.values_f32("bev_encoder.c5_conv.bias").unwrap(), [0.0]);
}

#[test]
fn shards_are_read_in_order_and_duplicate_tensors_refused() {
    let (_holder, dir) = tiny();
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let one = |name: &str| {
        format!(r#"{{"{name}": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}}}"#)
    };
    write_weights(&dir.join("model-00002-of-00002.safetensors"), &one("b"), 4);
    write_weights(&dir.join("model-00001-of-00002.safetensors"), &one("a"), 4);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert!(checkpoint.files()[0].ends_with("model-00001-of-00002.safetensors"));
    assert_eq!(checkpoint.tensor("b").unwrap().file, 1);
    write_weights(&dir.join("model-00002-of-00002.safetensors"), &one("a"), 4);
    check_refused(Checkpoint::open(&dir), &["tensor a", "model-00001", "model-00002"]);
}

#[test]
fn invalid_configurations_are_refused_with_key_and_rule() {
    let config = "config.json";
    check_config(config, "\"hidden_size\": 64", "\"x\": 64", &["text_config.hidden_size"]);
    check_config(config, "\"hidden_size\": 64", "\"hidden_size\": \"64\"", &["found \"64\""]);
    check_config(config, "\"hidden_size\": 64", "\"hidden_size\": 60", &["multiple of", "8"]);
    check_config(config, "\"head_dim\": 12", "\"head_dim\": 6", &["head_dim is 6", "at least"]);
    check_config(config, "\"head_dim\": 12", "\"head_dim\": 14", &["head_dim is 14", "[3, 2, 1]"]);
    check_config(config, "_value_heads\": 4", "_value_heads\": 3", &["num_attention_heads is 8"]);
    check_config(config, "\"depth\": 3", "\"depth\": 1", &["deepstack_visual_indexes", "below"]);
    check_config(config, "\"out_hidden_size\": 64", "\"out_hidden_size\": 65", &["65", "64"]);
    check_config(config, "embeddings\": 36", "embeddings\": 35", &["square"]);
    check_config(config, "\"silu\"", "\"relu\"", &["hidden_act", "silu"]);
    check_config(config, "\"image_token_id\": 992", "\"image_token_id\": 9920", &["vocab_size"]);
    check_config(config, "{", "[", &["JSON"]);
    let args = "automot_args.json";
    check_config(
        args,
        "_value_heads\": 2",
        "_value_heads\": 5",
        &["mot_num_key_value_heads is 5", "at most"],
    );
    check_config(args, "_query_dim\": 20", "_query_dim\": 21", &["reasoning_query_dim", "20"]);
    let bev = "bev_config.json";
    check_config(bev, "_height\": 256", "_height\": 255", &["lidar_resolution_height", "256"]);
    check_config(bev, "\"n_head\": 4", "\"n_head\": [4]", &["n_head", "[4]"]);
}

#[test]
fn values_wrapped_by_jsonpickle_are_read() {
    let (_holder, dir) = tiny();
    let path = dir.join("bev_config.json");
    let text = fs::read_to_string(&path).unwrap();
    let wrapped = r#""hist_max_per_pixel": {"py/object": "numpy.float64", "value": 7.0}"#;
    fs::write(&path, text.replace(r#""hist_max_per_pixel": 5.0"#, wrapped)).unwrap();
    assert_eq!(Checkpoint::open(&dir).unwrap().config().bev.hist_max_per_pixel, 7.0);
}

#[test]
fn every_wrong_tensor_is_reported_with_both_shapes() {
    let (_holder, dir) = tiny();
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"vocab_size\": 1000", "\"vocab_size\": 1001")).unwrap();
    let fragments = ["embed_tokens.weight", "understanding", "[1001, 64]", "[1000, 64]"];
    check_refused(Checkpoint::open(&dir).unwrap().check(), &fragments);
    fs::write(&path, text.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5")).unwrap();
    let fragments = ["22 tensors", "layers.4.input_layernorm.weight", "and 10 more"];
    check_refused(Checkpoint::open(&dir).unwrap().check(), &fragments);
}

#[test]
fn integer_weights_are_refused() {
    let (_holder, dir) = tiny();
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // The header is text, and both type names have the same length, so the type can be replaced.
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let name = "\"language_model.model.norm.weight\":{\"dtype\":\"";
    let header = header.replace(&format!("{name}F32"), &format!("{name}I32"));
    bytes[8..8 + length].copy_from_slice(header.as_bytes());
    fs::write(&path, bytes).unwrap();
    let fragments = ["language_model.model.norm.weight", "I32", "f32, f16 or bf16"];
    check_refused(Checkpoint::open(&dir).unwrap().check(), &fragments);
}

#[test]
fn nan_weights_are_found_and_counted() {
    let (_holder, dir) = tiny();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let f32_at = checkpoint.tensor("language_model.model.norm.weight").unwrap().offset as usize;
    let bf16_at = checkpoint.tensor("bev_encoder.c5_conv.bias").unwrap().offset as usize;
    drop(checkpoint);
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes[f32_at..f32_at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[f32_at + 8..f32_at + 12].copy_from_slice(&f32::INFINITY.to_le_bytes());
    bytes[bf16_at..bf16_at + 2].copy_from_slice(&0xff80_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let mut last = (0, 0);
    let warnings = Checkpoint::open(&dir).unwrap().scan_values(|done, total| last = (done, total));
    let non_finite =
        |tensor: &str, count| Warning::NonFinite { tensor: tensor.to_owned(), count, total: 64 };
    assert_eq!(
        warnings,
        [
            non_finite("bev_encoder.c5_conv.bias", 1),
            non_finite("language_model.model.norm.weight", 2)
        ]
    );
    assert!(last.0 == last.1 && last.0 > 0);
}

#[test]
fn parameter_counts_of_the_release_are_exact() {
    let full = spec("full.json");
    let trunk = |channels| Trunk::of_architecture("regnety_032", channels).unwrap();
    let count = |tensors: Vec<Expected>| expected::parameters(&tensors);
    assert_eq!(count(expected::action_stack(&full.text, &full.mot)), 1_639_903_360);
    assert_eq!(count(expected::understanding(&full.text)), 4_022_468_096);
    assert_eq!(count(expected::vision(&full.vision)), 415_347_712);
    let ends = expected::action_ends(full.text.hidden_size, &full.mot, 1512);
    assert_eq!(count(ends), 40_492_827);
    assert_eq!(count(expected::bev(&full.bev, &trunk(3), &trunk(1))), 106_566_276);
    assert_eq!(count(expected::trunk("", &trunk(1))), 17_922_762);

    let net = expected::trunk("", &trunk(3));
    let buffers: usize =
        net.iter().filter(|tensor| !tensor.is_parameter()).map(Expected::elements).sum();
    assert_eq!(net.len(), 492);
    assert_eq!(expected::parameters(&net), 17_923_338);
    assert_eq!(buffers, 66_228);
}

/// The tiny spec with the dimensions of the golden checkpoint.
fn golden_spec() -> SynthSpec {
    let mut spec = spec("tiny.json");
    spec.bev.image_size = [192, 480];
    spec.bev.image_anchors = [6, 15];
    spec
}

#[test]
fn golden_dimensions_give_the_golden_tensors() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("golden");
    synthesize(&golden_spec(), 0, &dir, |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let found: Vec<String> = checkpoint
        .tensors()
        .iter()
        .map(|(name, entry)| {
            let shape = format!("{:?}", entry.shape).replace(' ', "");
            let dtype = entry.dtype.to_string().to_uppercase();
            // The golden action expert has the 1512 channels of the release, its BEV encoder 368: the
            // two are not chained.
            let shape = if name == "bev_encoder_proj.weight" { "[64,1512]".into() } else { shape };
            format!("{name} {dtype} {shape}")
        })
        .collect();
    let golden: Vec<&str> = include_str!("data/golden_tensors.txt").lines().collect();
    assert_eq!(found, golden);
}

#[test]
fn weights_depend_on_the_seed_only() {
    let holder = tempfile::tempdir().unwrap();
    let write = |name: &str, seed| {
        let dir = holder.path().join(name);
        synthesize(&spec("tiny.json"), seed, &dir, |_, _| {}).unwrap();
        fs::read(dir.join("model.safetensors")).unwrap()
    };
    let first = write("a", 1);
    assert!(first == write("b", 1));
    assert!(first != write("c", 2));
}

#[test]
fn values_of_a_tensor_do_not_depend_on_other_tensors() {
    let holder = tempfile::tempdir().unwrap();
    let norm = |name: &str, spec: &SynthSpec| {
        let dir = holder.path().join(name);
        synthesize(spec, 1, &dir, |_, _| {}).unwrap();
        Checkpoint::open(&dir).unwrap().values_f32("language_model.model.norm.weight").unwrap()
    };
    let mut fewer_layers = spec("tiny.json");
    fewer_layers.text.num_hidden_layers = 2;
    assert_eq!(norm("four", &spec("tiny.json")), norm("two", &fewer_layers));
}

#[test]
fn bf16_weights_are_the_rounded_f32_weights() {
    let holder = tempfile::tempdir().unwrap();
    let mut spec = spec("tiny.json");
    let mut values = |dtype, name: &str| {
        spec.dtype = dtype;
        let dir = holder.path().join(name);
        synthesize(&spec, 1, &dir, |_, _| {}).unwrap();
        Checkpoint::open(&dir).unwrap().values_f32("velocity_encoder.2.weight").unwrap()
    };
    let (wide, narrow) = (values(DType::F32, "wide"), values(DType::Bf16, "narrow"));
    // Eight bits of significand, rounded to nearest: an error of at most half a unit in the last place.
    assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - b).abs() <= a.abs() / 256.0));
    let variance = wide.iter().map(|value| value * value).sum::<f32>() / wide.len() as f32;
    assert!((variance * 256.0 - 1.0).abs() < 0.02, "variance times inputs is {}", variance * 256.0);
}

#[test]
fn folder_that_was_not_synthesized_is_not_replaced() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("precious");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("model.safetensors"), "trained").unwrap();
    let result = synthesize(&spec("tiny.json"), 1, &dir, |_, _| {});
    assert!(matches!(result, Err(SynthError::Occupied(_))), "{result:?}");
    assert_eq!(fs::read_to_string(dir.join("model.safetensors")).unwrap(), "trained");
    assert_eq!(fs::read_dir(holder.path()).unwrap().count(), 1);
}

#[test]
fn synthesized_folder_is_replaced() {
    let (holder, dir) = tiny();
    let before = fs::read(dir.join("model.safetensors")).unwrap();
    synthesize(&spec("tiny.json"), 8, &dir, |_, _| {}).unwrap();
    assert!(before != fs::read(dir.join("model.safetensors")).unwrap());
    assert_eq!(fs::read_dir(holder.path()).unwrap().count(), 1);
}

#[test]
fn interrupted_write_leaves_no_files() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("out");
    let interrupted = std::panic::catch_unwind(|| {
        synthesize(&spec("tiny.json"), 1, &dir, |done, total| assert!(done < total / 2))
    });
    assert!(interrupted.is_err());
    assert_eq!(fs::read_dir(holder.path()).unwrap().count(), 0);
}

#[test]
fn invalid_specs_are_refused_before_anything_is_written() {
    let holder = tempfile::tempdir().unwrap();
    let check = |change: fn(&mut SynthSpec), fragment: &str| {
        let mut spec = spec("tiny.json");
        change(&mut spec);
        let progress = |_, _| panic!("weights were sampled");
        let error = synthesize(&spec, 1, &holder.path().join("out"), progress).unwrap_err();
        let text = match error {
            SynthError::Model(source) => source.to_string(),
            other => other.to_string(),
        };
        assert!(text.contains(fragment), "{text}");
        assert_eq!(fs::read_dir(holder.path()).unwrap().count(), 0);
    };
    check(|spec| spec.text.vocab_size = 999, "vocab_size");
    check(|spec| spec.dtype = DType::I64, "dtype");
    check(|spec| spec.bev.lidar_architecture = "resnet50".into(), "regnety_002");
    check(|spec| spec.bev.n_head = 5, "n_head");
    check(|spec| spec.text.mrope_section = [3, 2, 2], "mrope_section");
    check(|spec| spec.vision.num_heads = 3, "num_heads");
    check(|spec| spec.text.num_attention_heads = 0, "above zero");
}
