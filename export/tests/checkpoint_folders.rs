//! Checkpoint folders as written by other tools: every setting that affects the computation is used or
//! refused, never ignored.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::checkpoint::expected;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::checkpoint::{CheckpointError, Warning};
use tandem_export::folder::export_networks;
use tandem_export::inspection::inspect;
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:abababababababababababababababababababababababababababababababab\n\
    size 8875719416\n";

/// The files of a synthesized checkpoint.
static BASE: LazyLock<Vec<(OsString, Vec<u8>)>> = LazyLock::new(|| {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("checkpoint");
    synthesize(&spec(), 7, &dir, |_, _| {}).unwrap();
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
});

fn spec() -> SynthSpec {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tiny.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A tensor: type, shape, bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A synthesized checkpoint that a test changes.
struct Folder {
    _holder: TempDir,
    dir: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let holder = tempfile::tempdir().unwrap();
        let dir = holder.path().join("checkpoint");
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in BASE.iter() {
            fs::write(dir.join(name), bytes).unwrap();
        }
        Self { _holder: holder, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes a JSON file; a missing file starts as an empty object.
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let text = fs::read(self.path(name)).unwrap_or_else(|_| b"{}".to_vec());
        let mut value: Value = serde_json::from_slice(&text).unwrap();
        change(&mut value);
        self.write(name, value.to_string());
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let bytes = fs::read(self.path(WEIGHTS)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let owned =
            |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        file.iter().map(|(name, view)| (name.to_owned(), owned(view))).collect()
    }

    fn write_tensors(&self, file: &str, tensors: &BTreeMap<String, Tensor>) {
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let views: Vec<_> = views.collect();
        let views = views.iter().map(|(name, view)| (name, view));
        self.write(file, safetensors::serialize(views, None).unwrap());
    }

    fn change_tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.write_tensors(WEIGHTS, &tensors);
    }

    fn prefix_names(&self, prefix: &str) {
        self.change_tensors(|tensors| {
            let all = std::mem::take(tensors).into_iter();
            *tensors = all.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        });
    }

    /// Divides the weights among `files`, writes an index and removes the single file.
    fn shard(&self, files: &[&str]) {
        let tensors = self.tensors();
        let step = tensors.len().div_ceil(files.len());
        let mut weight_map = BTreeMap::new();
        for (part, file) in files.iter().enumerate() {
            let part: BTreeMap<_, _> =
                tensors.clone().into_iter().skip(part * step).take(step).collect();
            weight_map.extend(part.keys().map(|name| (name.clone(), (*file).to_owned())));
            self.write_tensors(file, &part);
        }
        fs::remove_file(self.path(WEIGHTS)).unwrap();
        self.write(INDEX, json!({"metadata": {}, "weight_map": weight_map}).to_string());
    }

    fn check(&self) -> Result<Vec<Warning>, CheckpointError> {
        Checkpoint::open(&self.dir)?.check()
    }

    /// Checks that the folder is refused with an error that contains each of `fragments`.
    #[track_caller]
    fn refused(&self, fragments: &[&str]) {
        match self.check() {
            Ok(warnings) => panic!("was accepted with {warnings:?}, expected {fragments:?}"),
            Err(error) => {
                let text = error.to_string();
                for fragment in fragments {
                    assert!(text.contains(fragment), "{text:?} does not contain {fragment:?}");
                }
                assert!(text.len() < 3000, "{} bytes", text.len());
            }
        }
    }

    #[track_caller]
    fn accepted(&self) {
        assert_eq!(self.check().unwrap(), []);
    }

    /// Exports and returns the hash of a network's graph.
    fn graph(&self, name: &str) -> String {
        let out = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&self.dir).unwrap();
        let options = ExportOptions { frame_size: [64, 96], frames: 2, ..ExportOptions::default() };
        let out = out.path().join("network");
        export_networks(&checkpoint, &options, &out, &mut |_| {}).unwrap().networks[name].clone()
    }
}

/// Changes one key of an object of `config.json` and checks that this is refused.
#[track_caller]
fn refused_key(object: &str, key: &str, value: Value) {
    let folder = Folder::new();
    let shown = value.to_string();
    folder.change("config.json", |config| config.pointer_mut(object).unwrap()[key] = value);
    folder.refused(&["config.json", key, &shown[..shown.len().min(20)]]);
}

/// Changes one key of an object of `config.json` and checks that this is accepted.
#[track_caller]
fn accepted_key(object: &str, key: &str, value: Value) {
    let folder = Folder::new();
    folder.change("config.json", |config| config.pointer_mut(object).unwrap()[key] = value);
    folder.accepted();
}

const ROOT: &str = "";
const TEXT: &str = "/text_config";
const VISION: &str = "/vision_config";
const ROPE: &str = "/text_config/rope_scaling";

/// Values of the embedding, which identify the seed of a checkpoint.
fn embedding_of(folder: &Folder) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&folder.dir).unwrap();
    checkpoint.values_f32("language_model.model.embed_tokens.weight").unwrap()
}

#[test]
fn index_takes_precedence_over_a_stale_single_file() {
    let folder = Folder::new();
    let original = embedding_of(&folder);
    folder.shard(&["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    let other = folder.path("../other");
    synthesize(&spec(), 99, &other, |_, _| {}).unwrap();
    fs::copy(other.join(WEIGHTS), folder.path(WEIGHTS)).unwrap();
    assert_eq!(folder.check().unwrap(), [Warning::UnusedFiles { files: vec![WEIGHTS.to_owned()] }]);
    assert!(embedding_of(&folder) == original, "read from the file that the index does not name");
}

#[test]
fn shards_of_any_name_are_found_by_the_index() {
    let folder = Folder::new();
    let original = embedding_of(&folder);
    folder.shard(&["consolidated.00.safetensors", "consolidated.01.safetensors"]);
    folder.accepted();
    assert!(embedding_of(&folder) == original);
    fs::remove_file(folder.path(INDEX)).unwrap();
    folder.refused(&[INDEX, "model-*.safetensors"]);
}

#[test]
fn index_that_contradicts_the_files_is_refused() {
    let shards = ["a.safetensors", "b.safetensors"];
    let indexed = |change: fn(&mut Value), fragments: &[&str]| {
        let folder = Folder::new();
        folder.shard(&shards);
        folder.change(INDEX, |index| change(&mut index["weight_map"]));
        folder.refused(&[&[INDEX], fragments].concat());
    };
    let head = "bev_encoder.c5_conv.bias";
    assert!(Folder::new().tensors().contains_key(head));
    indexed(|map| map["x"] = json!("absent.safetensors"), &["\"absent.safetensors\"", "fetch it"]);
    indexed(|map| map["x"] = json!("a.safetensors"), &["tensor x is in no file", "a.safetensors"]);
    indexed(
        |map| map["bev_encoder.c5_conv.bias"] = json!("b.safetensors"),
        &[head, "in \"a.safetensors\"", "\"b.safetensors\""],
    );
    indexed(
        |map| drop(map.as_object_mut().unwrap().remove("bev_encoder.c5_conv.bias")),
        &[head, "a.safetensors is not in"],
    );
    for outside in ["../b.safetensors", "/b.safetensors", "sub/b.safetensors", "b.bin", ".."] {
        let folder = Folder::new();
        folder.shard(&shards);
        folder.change(INDEX, |index| index["weight_map"]["x"] = json!(outside));
        folder.refused(&[INDEX, outside, "without a folder"]);
    }
    indexed(|map| *map = json!({}), &["names no tensor"]);
    indexed(|map| *map = json!([1]), &["not an index"]);
}

#[test]
fn tensor_twice_in_index_or_shards_is_refused() {
    let folder = Folder::new();
    folder.shard(&["a.safetensors", "b.safetensors"]);
    let text = fs::read_to_string(folder.path(INDEX)).unwrap();
    let twice = text.replace(
        "\"weight_map\":{",
        "\"weight_map\":{\"bev_encoder.c5_conv.bias\":\"b.safetensors\",",
    );
    folder.write(INDEX, twice);
    folder.refused(&[INDEX, "bev_encoder.c5_conv.bias twice"]);
    folder.write(INDEX, text);
    folder.accepted();
    fs::copy(folder.path("a.safetensors"), folder.path("b.safetensors")).unwrap();
    folder.refused(&["a.safetensors and again in", "b.safetensors"]);
}

#[test]
fn numbered_shard_that_is_missing_is_named() {
    let folder = Folder::new();
    let names = [1, 2, 3].map(|shard| format!("model-0000{shard}-of-00003.safetensors"));
    folder.shard(&names.each_ref().map(String::as_str));
    fs::remove_file(folder.path(INDEX)).unwrap();
    folder.accepted();
    fs::remove_file(folder.path(&names[1])).unwrap();
    folder.refused(&[&names[1], "one of 3"]);
}

#[test]
fn names_under_one_prefix_are_read_without_it() {
    let plain = embedding_of(&Folder::new());
    for prefix in ["_orig_mod.", "module.", "model.", "module._orig_mod."] {
        let folder = Folder::new();
        folder.prefix_names(prefix);
        assert_eq!(folder.check().unwrap(), [Warning::Prefix { prefix: prefix.to_owned() }]);
        assert!(embedding_of(&folder) == plain);
    }
}

#[test]
fn index_of_prefixed_names_is_followed() {
    let folder = Folder::new();
    folder.prefix_names("module.");
    folder.shard(&["a.safetensors", "b.safetensors"]);
    assert_eq!(folder.check().unwrap(), [Warning::Prefix { prefix: "module.".to_owned() }]);
}

#[test]
fn missing_and_unknown_names_are_counted() {
    let folder = Folder::new();
    folder.change_tensors(|tensors| {
        let renamed: Vec<String> =
            tensors.keys().filter(|name| name.starts_with("bev_encoder.")).cloned().collect();
        for name in renamed {
            let tensor = tensors.remove(&name).unwrap();
            tensors.insert(name.replace("bev_encoder.", "backbone."), tensor);
        }
    });
    let error = folder.check().unwrap_err().to_string();
    let Err(CheckpointError::Several { missing, unknown, .. }) = folder.check() else {
        panic!("{error}")
    };
    // Running counters and the feature pyramid are stored but not needed.
    assert!(missing > 400 && unknown.len() > missing, "{missing} and {}", unknown.len());
    for fragment in [
        format!("{missing} of the"),
        format!("{} of the", unknown.len()),
        "backbone.c5_conv.bias".to_owned(),
        // The shape of the architecture in bev_config.json.
        "bev_encoder.image_encoder.stem.conv.weight".to_owned(),
        "as [32, 3, 3, 3]".to_owned(),
    ] {
        assert!(error.contains(&fragment), "{error} does not contain {fragment}");
    }
    assert!(!error.contains("[]"), "{error}");
}

#[test]
fn error_has_both_the_missing_and_the_unknown_name() {
    let folder = Folder::new();
    folder.change_tensors(|tensors| {
        let norm = tensors.remove("language_model.model.norm.weight").unwrap();
        tensors.insert("language_model.model.final_norm.weight".to_owned(), norm);
    });
    folder.refused(&[
        "1 of the",
        "model.norm.weight",
        "understanding",
        "language_model.model.final_norm.weight",
    ]);
}

#[test]
fn unread_tensors_inside_modules_are_refused() {
    let extra = |name: &str, fragments: &[&str]| {
        let folder = Folder::new();
        folder.change_tensors(|tensors| {
            tensors.insert(name.to_owned(), (Dtype::F32, vec![2], vec![0; 8]));
        });
        folder.refused(&[&[name], fragments].concat());
    };
    let layer = "language_model.model.layers.0.self_attn.q_proj";
    extra(&format!("{layer}.bias"), &["does not use"]);
    extra(&format!("{layer}.lora_A.default.weight"), &["does not use"]);
    extra("language_model.model.layers.4.input_layernorm.weight", &["does not use"]);
    extra("vision_model.deepstack_merger_list.2.norm.bias", &["does not use"]);
    for part in ["qweight", "weight_scale", "weight.absmax", "SCB"] {
        extra(&format!("{layer}.{part}"), &["quantized", "1 of its tensors"]);
    }
}

#[test]
fn tensors_outside_the_model_are_one_warning() {
    let folder = Folder::new();
    let unknown = ["ema.decay", "language_model.model.rotary_emb.inv_freq", "optimizer.step"];
    folder.change_tensors(|tensors| {
        for name in unknown {
            tensors.insert(name.to_owned(), (Dtype::F32, vec![2], vec![0; 8]));
        }
    });
    let tensors = unknown.map(str::to_owned).to_vec();
    assert_eq!(folder.check().unwrap(), [Warning::UnknownTensors { tensors }]);
}

#[test]
fn stored_output_head_must_be_the_embedding() {
    let folder = Folder::new();
    let head = "language_model.lm_head.weight";
    folder.change_tensors(|tensors| {
        let embedding = tensors["language_model.model.embed_tokens.weight"].clone();
        tensors.insert(head.to_owned(), embedding);
    });
    assert!(matches!(folder.check().unwrap()[..], [Warning::StoredHead { .. }]));
    folder.change_tensors(|tensors| tensors.get_mut(head).unwrap().2[5] ^= 1);
    folder.refused(&[head, "differs from the embedding"]);
}

#[test]
fn rotary_kinds_other_than_the_default_are_refused() {
    // The key as transformers wrote it before 4.45.
    let folder = Folder::new();
    folder.change("config.json", |config| {
        config["text_config"]["rope_scaling"] = json!({"type": "yarn", "factor": 3.0,
            "original_max_position_embeddings": 262_144, "mrope_section": [3, 2, 1]});
    });
    folder.refused(&["rope_scaling.type", "\"yarn\"", "default"]);
    refused_key(ROPE, "rope_type", json!("linear"));
    refused_key(ROPE, "type", json!("dynamic"));
    refused_key(ROPE, "factor", json!(2.0));
    refused_key(ROPE, "mrope_interleaved", json!(false));
    refused_key(ROPE, "original_max_position_embeddings", json!(4096));
    refused_key(TEXT, "partial_rotary_factor", json!(0.5));
    refused_key(ROOT, "rope_theta", json!(10_000.0));
    accepted_key(ROPE, "type", json!("default"));
    accepted_key(ROPE, "factor", json!(1.0));
}

#[test]
fn rotary_layouts_of_all_writers_give_the_same_graph() {
    let expected = Folder::new().graph("understanding");
    let layout = |change: fn(&mut Value)| {
        let folder = Folder::new();
        folder.change("config.json", |config| change(&mut config["text_config"]));
        folder
    };
    fn moved(text: &mut Value) {
        text["rope_parameters"] = text["rope_scaling"].take();
    }
    let theta_inside = layout(|text| {
        moved(text);
        text["rope_parameters"]["rope_theta"] = text["rope_theta"].take();
    });
    let theta_separate = layout(moved);
    let both = layout(|text| {
        text["rope_parameters"] = text["rope_scaling"].clone();
        text["rope_parameters"]["rope_theta"] = text["rope_theta"].clone();
    });
    let legacy = layout(|text| {
        text["rope_scaling"] = json!({"type": "mrope", "mrope_section": [3, 2, 1]});
    });
    for folder in [theta_inside, theta_separate, both, legacy] {
        assert_eq!(folder.graph("understanding"), expected);
    }
    let other_theta = layout(|text| {
        moved(text);
        text["rope_parameters"]["rope_theta"] = json!(1e6);
    });
    other_theta.refused(&["rope_parameters.rope_theta", "separate"]);
    let other_section = layout(|text| {
        text["rope_parameters"] = json!({"mrope_section": [4, 1, 1]});
    });
    other_section.refused(&["rope_scaling", "rope_parameters"]);
    let none = layout(|text| drop(text["rope_scaling"].take()));
    none.refused(&["text_config.rope_scaling"]);
}

#[test]
fn settings_of_other_models_are_refused() {
    refused_key(ROOT, "model_type", json!("qwen2_5_vl"));
    refused_key(TEXT, "model_type", json!("qwen3_vl_moe_text"));
    refused_key(VISION, "model_type", json!("siglip"));
    refused_key(ROOT, "tie_word_embeddings", json!(false));
    refused_key(TEXT, "tie_word_embeddings", json!(false));
    refused_key(ROOT, "dtype", json!("float8_e4m3fn"));
    refused_key(TEXT, "torch_dtype", json!("int8"));
    refused_key(TEXT, "attention_bias", json!(true));
    refused_key(TEXT, "sliding_window", json!(4096));
    refused_key(TEXT, "use_sliding_window", json!(true));
    refused_key(TEXT, "layer_types", json!(["full_attention", "sliding_attention"]));
    refused_key(TEXT, "num_experts", json!(128));
    refused_key(TEXT, "final_logit_softcapping", json!(30.0));
    refused_key(TEXT, "new_kind_of_norm", json!(true));
    refused_key(TEXT, "hidden_act", json!("gelu"));
    refused_key(VISION, "hidden_act", json!("quick_gelu"));
    refused_key(VISION, "layer_norm_eps", json!(1e-5));
    refused_key(VISION, "in_channels", json!(4));
    refused_key(VISION, "window_size", json!(112));
}

#[test]
fn settings_without_effect_are_accepted() {
    accepted_key(TEXT, "layer_types", json!(vec!["full_attention"; 4]));
    accepted_key(TEXT, "dtype", json!("bfloat16"));
    accepted_key(TEXT, "attention_dropout", json!(0.1));
    accepted_key(TEXT, "new_key", json!(null));
    accepted_key(TEXT, "mlp_only_layers", json!([]));
    accepted_key(ROOT, "transformers_version", json!("5.2.0"));
    let folder = Folder::new();
    folder.change("config.json", |config| {
        config["text_config"]["use_sliding_window"] = json!(false);
        config["text_config"]["sliding_window"] = json!(4096);
    });
    folder.accepted();
}

#[test]
fn weights_that_need_processing_are_refused() {
    let folder = Folder::new();
    folder.change("config.json", |config| {
        config["quantization_config"] = json!({"quant_method": "gptq"});
    });
    folder.refused(&["config.json", "quantized", "convert"]);
    for file in ["quantize_config.json", "hf_quant_config.json", "adapter_config.json"] {
        let folder = Folder::new();
        folder.write(file, "{}");
        folder.refused(&[file]);
    }
}

#[test]
fn counts_out_of_range_are_refused() {
    for (object, key) in [
        (VISION, "depth"),
        (VISION, "spatial_merge_size"),
        (VISION, "num_position_embeddings"),
        (TEXT, "num_hidden_layers"),
        (TEXT, "vocab_size"),
        (TEXT, "num_attention_heads"),
    ] {
        for count in [0_u64, 4_294_967_295, u64::MAX] {
            refused_key(object, key, json!(count));
        }
    }
    for (key, count) in [
        ("n_layer", 65_536_u64),
        ("n_layer", 0),
        ("cropped_height", 2_147_483_648),
        ("cropped_width", 100_000),
        ("lidar_seq_len", 4_294_967_295),
        ("img_vert_anchors", 0),
        ("block_exp", 4_294_967_295),
    ] {
        let folder = Folder::new();
        folder.change("bev_config.json", |bev| bev[key] = json!(count));
        folder.refused(&["bev_config.json", key]);
    }
    let folder = Folder::new();
    folder.change("automot_args.json", |args| args["mot_intermediate_size"] = json!(1_u64 << 31));
    folder.refused(&["automot_args.json", "mot_intermediate_size"]);
}

/// Both layouts of the published configuration describe the model of the AutoMoT release.
#[test]
fn published_configurations_of_qwen3_vl_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let full = fs::read(root.join("configs/full.json")).unwrap();
    let full: SynthSpec = serde_json::from_slice(&full).unwrap();
    for name in ["qwen3-vl-4b.json", "qwen3-vl-4b-rope-parameters.json"] {
        let file = root.join("tests/data/cases").join(name);
        let config = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(SynthSpec::is_published(&config));
        let (spec, notes) = SynthSpec::of_published(&file).unwrap();
        assert_eq!(spec, full, "{name}");
        assert!(notes[0].contains("automot_args.json") && notes[1].contains("bev_config.json"));
    }
    assert!(!SynthSpec::is_published(&serde_json::to_value(&full).unwrap()));
}

#[test]
fn published_configuration_uses_other_files_in_its_folder() {
    let folder = Folder::new();
    let (spec, notes) = SynthSpec::of_published(&folder.path("config.json")).unwrap();
    assert_eq!((spec, notes), (crate::spec(), Vec::new()));
}

#[test]
fn other_lidar_mount_is_refused() {
    let folder = Folder::new();
    folder.change("bev_config.json", |bev| bev["lidar_pos"] = json!([0.0, 0.0, 2.0]));
    folder.refused(&["bev_config.json", "lidar_pos", "2.5"]);
    let folder = Folder::new();
    folder.change("bev_config.json", |bev| bev["transformer_decoder_join"] = json!(false));
    folder.refused(&["transformer_decoder_join"]);
}

#[test]
fn other_preprocessing_is_refused() {
    let file = "preprocessor_config.json";
    let changed = |key: &str, value: Value| {
        let folder = Folder::new();
        folder.change(file, |settings| settings[key] = value);
        folder.refused(&[file, key]);
    };
    changed("image_mean", json!([0.481_454_66, 0.457_827_5, 0.408_210_73]));
    changed("image_std", json!([0.268_629_54, 0.261_302_58, 0.275_777_11]));
    changed("image_mean", json!(null));
    changed("do_normalize", json!(false));
    changed("do_rescale", json!(false));
    changed("rescale_factor", json!(0.5));
    changed("patch_size", json!(14));
    changed("temporal_patch_size", json!(1));
    changed("merge_size", json!(4));
    changed("do_center_crop", json!(true));
    changed("image_processor_type", json!("CLIPImageProcessor"));
    changed("sharpen", json!(1));
    let folder = Folder::new();
    folder.change(file, |settings| settings["rescale_factor"] = json!(1.0 / 255.0));
    folder.change("video_preprocessor_config.json", |video| video["image_mean"] = json!([1.0]));
    folder.accepted();
}

#[test]
fn preprocessor_settings_in_the_processor_file_are_read() {
    let folder = Folder::new();
    let own = fs::read_to_string(folder.path("preprocessor_config.json")).unwrap();
    fs::remove_file(folder.path("preprocessor_config.json")).unwrap();
    assert_eq!(folder.check().unwrap(), [Warning::NoPreprocessor]);
    let own: Value = serde_json::from_str(&own).unwrap();
    folder.change("processor_config.json", |shared| shared["image_processor"] = own);
    folder.accepted();
    folder.change("processor_config.json", |shared| {
        shared["image_processor"]["image_std"] = json!([1.0, 1.0, 1.0]);
    });
    folder.refused(&["processor_config.json", "image_processor.image_std"]);
}

#[test]
fn frames_that_would_be_resized_are_refused() {
    let folder = Folder::new();
    folder.change("preprocessor_config.json", |settings| {
        settings["size"]["shortest_edge"] = json!(65_536);
    });
    let checkpoint = Checkpoint::open(&folder.dir).unwrap();
    let export = |frame_size| {
        let out = tempfile::tempdir().unwrap();
        let options = ExportOptions { frame_size, frames: 2, ..ExportOptions::default() };
        export_networks(&checkpoint, &options, &out.path().join("network"), &mut |_| {})
    };
    export([256, 256]).unwrap();
    let error = export([64, 96]).unwrap_err().to_string();
    for fragment in ["64 by 96", "65536", "16777216"] {
        assert!(error.contains(fragment), "{error}");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let folder = Folder::new();
    let checkpoint = Checkpoint::open(&folder.dir).unwrap();
    let refused = |options: ExportOptions, fragment: &str| {
        let out = tempfile::tempdir().unwrap();
        let result =
            export_networks(&checkpoint, &options, &out.path().join("network"), &mut |_| {});
        let error = result.unwrap_err().to_string();
        assert!(error.contains(fragment), "{error}");
    };
    for frames in [0, 257, u32::MAX as usize, usize::MAX] {
        refused(ExportOptions { frames, ..ExportOptions::default() }, "1 to 256");
    }
    for capacity in [65_537, u32::MAX as usize, usize::MAX] {
        let prefix_capacity = Some(capacity);
        refused(ExportOptions { prefix_capacity, ..ExportOptions::default() }, "65536");
    }
    let frame_size = [usize::MAX - 31; 2];
    refused(ExportOptions { frame_size, ..ExportOptions::default() }, "16777216");
}

#[test]
fn lfs_pointer_is_refused_for_every_file() {
    for file in [
        WEIGHTS,
        "config.json",
        "automot_args.json",
        "bev_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        INDEX,
    ] {
        let folder = Folder::new();
        folder.write(file, POINTER);
        folder.refused(&[file, "git lfs pull"]);
    }
}

#[test]
fn folder_or_broken_link_in_place_of_a_file_is_refused() {
    for file in ["config.json", WEIGHTS, "tokenizer.json"] {
        let folder = Folder::new();
        fs::remove_file(folder.path(file)).unwrap();
        fs::create_dir(folder.path(file)).unwrap();
        folder.refused(&[file]);
    }
    #[cfg(unix)]
    {
        let folder = Folder::new();
        fs::remove_file(folder.path("bev_config.json")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path("bev_config.json")).unwrap();
        folder.refused(&["bev_config.json"]);
    }
}

#[test]
fn tokenizer_ids_must_match_configuration_and_embedding() {
    let folder = Folder::new();
    folder.change("config.json", |config| config["image_token_id"] = json!(991));
    folder.refused(&["<|image_pad|>", "992", "image_token_id 991"]);

    let folder = Folder::new();
    folder.change("tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({"id": 1000, "content": "x",
            "special": true, "normalized": false, "lstrip": false, "rstrip": false,
            "single_word": false}));
    });
    folder.refused(&["tokenizer.json", "1000", "1000 rows"]);

    let folder = Folder::new();
    folder.change("tokenizer_config.json", |config| {
        config["added_tokens_decoder"]["992"] = json!({"content": "<|image_pad|>"});
    });
    folder.accepted();
    folder.change("tokenizer_config.json", |config| {
        config["added_tokens_decoder"]["42"] = json!({"content": "point"});
    });
    folder.refused(&["\"point\"", "tokenizer_config.json has the id 42"]);

    for key in ["add_prefix_space", "split_special_tokens"] {
        let folder = Folder::new();
        folder.change("tokenizer_config.json", |config| config[key] = json!(false));
        folder.accepted();
        folder.change("tokenizer_config.json", |config| config[key] = json!(true));
        folder.refused(&["tokenizer_config.json", key]);
    }

    let folder = Folder::new();
    folder.change("added_tokens.json", |added| added["<|vision_start|>"] = json!(980));
    folder.refused(&["<|vision_start|>", "added_tokens.json has the id 980"]);
}

#[test]
fn errors_quote_only_the_beginning_of_long_text() {
    let long = "x".repeat(100_000);
    let folder = Folder::new();
    folder.change("config.json", |config| config["text_config"][&long] = json!(1));
    folder.refused(&["unknown key text_config.xxx"]);
    let folder = Folder::new();
    folder.change_tensors(|tensors| {
        tensors.insert(long.clone(), (Dtype::F32, vec![2], vec![0; 8]));
    });
    let error = Checkpoint::open(&folder.dir).map(|_| ()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("100000 bytes") && cause.len() < 300, "{cause}");
    let folder = Folder::new();
    folder.shard(&["a.safetensors"]);
    folder.change(INDEX, |index| index["weight_map"][&long] = json!("a.safetensors"));
    folder.refused(&["tensor xxx", "in no file"]);
    folder.change(INDEX, |index| index["weight_map"][&long] = json!(&long));
    folder.refused(&["names the file \"xxx"]);
}

#[test]
fn inspection_has_files_notes_and_problems() {
    let folder = Folder::new();
    folder.shard(&["a.safetensors", "b.safetensors"]);
    folder.write("old.safetensors", "x");
    let found = inspect(&folder.dir).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert!(found.notes[0].contains("old.safetensors"), "{:?}", found.notes);
    assert_eq!(found.tensors, folder_tensors(&folder));
    let in_files: usize = found.files.iter().filter_map(|file| file.tensors).sum();
    assert_eq!(in_files, found.tensors);
    assert_eq!(found.config.unwrap()["text"]["vocab_size"], 1000);
    assert_eq!(found.dtypes.values().map(|stored| stored.tensors).sum::<usize>(), found.tensors);

    folder.change("config.json", |config| config["text_config"]["hidden_act"] = json!("relu"));
    let found = inspect(&folder.dir).unwrap();
    assert!(found.problems[0].contains("hidden_act"), "{:?}", found.problems);
    assert!(found.config.is_none() && found.files.iter().any(|file| file.name == "config.json"));
    assert!(inspect(&folder.path("nowhere")).is_err());
}

fn folder_tensors(folder: &Folder) -> usize {
    Checkpoint::open(&folder.dir).unwrap().tensors().len()
}

#[test]
fn inspection_counts_the_parameters_of_the_model() {
    let folder = Folder::new();
    let checkpoint = Checkpoint::open(&folder.dir).unwrap();
    let [image, lidar] = checkpoint.trunks().unwrap();
    let model = expected::all(checkpoint.config(), &image, &lidar, lidar.width());
    let parameters = expected::parameters(&model) as u64;
    assert_eq!(inspect(&folder.dir).unwrap().parameters, parameters);
}
