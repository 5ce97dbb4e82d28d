//! Export part of the scripted family, the counterpart of a folder in `export/src`.

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tandem_export::checkpoint::{CheckpointError, Naming, Tensors, Warning};
use tandem_export::dtype::DType;
use tandem_export::family::{Built, Candidate, Description, Family, NetworkError, OpenCheckpoint};
use tandem_export::graph::{GraphError, Network};
use tandem_export::options::{Options, Precision};
use tandem_export::synth::{SynthError, SynthWeights, Synthesized};

/// The registered family.
pub(crate) static SCRIPTED: Scripted = Scripted;

tandem_export::export_family!(SCRIPTED);

pub(crate) const NAME: &str = "scripted";
pub(crate) const NETWORK: &str = "planner";
pub(crate) const CAMERAS: [&str; 2] = ["front", "rear"];
const NAMING: Naming = Naming { modules: &["planner"], of_model: str::to_owned };

/// A planner on the images of two cameras: one linear map to points of `x, y, heading`.
pub(crate) struct Scripted;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    picture: usize,
    points: usize,
}

/// Export options of this family.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnOptions {
    #[serde(default = "one")]
    scale: f32,
}

fn one() -> f32 {
    1.0
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PlannerSizes {
    pub(crate) cameras: usize,
    pub(crate) picture: usize,
    pub(crate) points: usize,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct PlannerNumbers {
    pub(crate) step_s: f64,
}

struct ScriptedCheckpoint {
    stored: Tensors,
    spec: Spec,
}

impl Family for Scripted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognized_by(&self) -> &'static str {
        "config.json with the model_type \"scripted\""
    }

    fn recognizes(&self, folder: &Candidate) -> bool {
        folder.model_type() == Some("scripted")
    }

    fn open(&self, folder: &Path) -> Result<Box<dyn OpenCheckpoint>, CheckpointError> {
        let stored = Tensors::open(folder, &NAMING)?;
        let config = Candidate::read(folder)?;
        let spec = config.config().and_then(|config| config.get("sizes")).cloned().unwrap();
        Ok(Box::new(ScriptedCheckpoint { stored, spec: serde_json::from_value(spec).unwrap() }))
    }

    fn is_network(&self, name: &str) -> bool {
        name == NETWORK
    }

    fn sort_networks(&self, names: &mut [String]) {
        names.sort();
    }

    fn synthesize(
        &self,
        spec: &Value,
        _: SynthWeights,
        out: &Path,
        _: &mut dyn FnMut(u64, u64),
    ) -> Result<Synthesized, SynthError> {
        let spec: Spec = serde_json::from_value(spec.clone())
            .map_err(|source| SynthError::NotASpec { family: NAME, source })?;
        let (rows, cols) = (3 * spec.points, CAMERAS.len() * spec.picture);
        let weights: Vec<u8> =
            (0..rows * cols).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect();
        let bias = vec![0; 4 * rows];
        let tensors = [
            ("planner.head.weight", TensorView::new(Dtype::F32, vec![rows, cols], &weights)),
            ("planner.head.bias", TensorView::new(Dtype::F32, vec![rows], &bias)),
        ];
        fs::create_dir_all(out).unwrap();
        let config = json!({ "model_type": "scripted", "sizes": spec });
        fs::write(out.join("config.json"), config.to_string()).unwrap();
        let tensors = tensors.map(|(name, view)| (name, view.unwrap()));
        serialize_to_file(tensors, None, &out.join("model.safetensors")).unwrap();
        let parameters = rows * cols + rows;
        Ok(Synthesized { tensors: 2, parameters, bytes: 4 * parameters as u64 })
    }
}

impl OpenCheckpoint for ScriptedCheckpoint {
    fn family(&self) -> &'static dyn Family {
        &SCRIPTED
    }

    fn tensors(&self) -> &Tensors {
        &self.stored
    }

    fn check(&self) -> Result<Vec<Warning>, CheckpointError> {
        self.stored.refuse_quantized()?;
        self.stored.tensor("planner.head.weight")?;
        Ok(self.stored.warnings())
    }

    fn describe(&self) -> Description {
        let Spec { picture, points } = self.spec;
        let text = format!("planner: {picture} pixels of each camera, {points} points");
        Description { config: json!(self.spec), networks: vec![text] }
    }

    fn build(
        &self,
        options: &Options,
        before: &mut dyn FnMut(&'static str),
    ) -> Result<Built, NetworkError> {
        let own: OwnOptions = serde_json::from_value(Value::Object(options.own.clone()))
            .map_err(|source| NetworkError::Options { family: NAME, source })?;
        before(NETWORK);
        let network = self
            .planner(options.precision, own.scale)
            .map_err(|source| NetworkError::Graph { network: NETWORK, source })?;
        let own = json!({ "scale": own.scale }).as_object().unwrap().clone();
        let options = Options { own, ..options.clone() };
        Ok(Built { options, networks: vec![network], prefix_capacity: None })
    }
}

impl ScriptedCheckpoint {
    fn planner(&self, precision: Precision, scale: f32) -> Result<Network, GraphError> {
        let Spec { picture, points } = self.spec;
        let mut graph = precision.graph(NETWORK, &self.stored);
        let g = &mut graph;
        let pictures =
            CAMERAS.map(|camera| g.input(camera, DType::U8, &[1, picture], "pixels of a camera"));
        let plan = g.within("head", |g| {
            let [front, rear] = pictures.map(|pixels| {
                // In TensorRT only a cast accepts bytes.
                let pixels = g.cast(&pixels, DType::F32);
                g.cast(&pixels, g.dtype())
            });
            let seen = g.concat(&[&front, &rear], 1);
            let seen = g.scale(&seen, scale, "pixel_scale");
            let plan = g.linear(&seen, "planner.head")?;
            let plan = g.reshape(&plan, &[points, 3]);
            Ok(g.cast(&plan, DType::F32))
        })?;
        g.output("plan", &plan, "[points, (x, y, heading)] in the ego frame");
        Ok(graph
            .finish()
            .with_sizes(&PlannerSizes { cameras: CAMERAS.len(), picture, points })
            .with_numbers(&PlannerNumbers { step_s: 0.5 }))
    }
}
