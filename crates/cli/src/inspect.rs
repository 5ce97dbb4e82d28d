//! `tandem inspect`: prints the contents of a network or engine folder. No network is loaded or
//! run.

use super::print::megabytes;
use super::{Outcome, identity, print, rebuild};
use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tandem::engine::tensorrt::{LayerFindings, OtherType, WeightBytes};
use tandem::engine::{
    EngineFolder, EngineRecord, LATENCY_FILE, NetworkFile, NetworkRecord, comma_separated,
};
use tandem::runtime::{OpenError, family_of};
use tandem_export::contract::TensorSpec;
use tandem_export::cost::{NetworkCost, network_cost};
use tandem_export::dtype::DType;
use tandem_export::folder::{ACCURACY_FILE, Summary};
use tandem_profile::LatencyFile;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  tandem inspect network\n  tandem inspect engine --json")]
pub(super) struct Arguments {
    /// Folder written by `tandem export` or `tandem build`
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Contents of a network or engine folder.
#[derive(Serialize)]
struct Inspection {
    folder: PathBuf,
    export: Summary,
    networks: Vec<Network>,
    /// `None` for a network folder, like the hash.
    engine: Option<EngineRecord>,
    engine_sha256: Option<String>,
    accuracy: Option<Certificate>,
    latency: Option<Certificate>,
    /// Reason why the contracts of its networks do not form a model.
    unusable: Option<String>,
    /// Checkpoint files that have changed since the export; the folder holds the old weights.
    changed_sources: Vec<PathBuf>,
}

/// Network of the folder, as exported.
#[derive(Serialize)]
struct Network {
    network: String,
    /// Number of trained weights.
    parameters: u64,
    /// Size of all weights that a run reads.
    weight_bytes: u64,
    input_bytes: u64,
    output_bytes: u64,
    operators: usize,
    /// Operations of one run by element type.
    flops_by_dtype: BTreeMap<DType, u64>,
    parts: Vec<Part>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    sizes: BTreeMap<String, u64>,
    numbers: BTreeMap<String, f64>,
    /// `None` if the library listed no layers.
    layers: Option<LayerFindings>,
    /// Reason why its engine cannot be used, found in the files.
    unusable: Option<String>,
}

/// Identical parts of a network, such as its layers.
#[derive(Serialize)]
struct Part {
    /// Name, with `*` in place of the number.
    name: String,
    count: usize,
    /// Sum over all parts, like the next two fields.
    parameters: u64,
    operators: usize,
    flops: u64,
}

/// File with measurements of the engines.
#[derive(Serialize)]
struct Certificate {
    file: &'static str,
    /// True if it was measured on the current content of the folder.
    is_current: bool,
    /// `None` for a file without limits.
    within_limits: Option<bool>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let inspection = inspect(&arguments.folder)?;
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&inspection)?);
    } else {
        print::line(&describe(&inspection));
    }
    let is_usable = inspection.networks.iter().all(|network| {
        let is_as_requested = network.layers.as_ref().is_none_or(LayerFindings::is_as_requested);
        network.unusable.is_none() && is_as_requested
    });
    let is_usable = is_usable && inspection.unusable.is_none();
    Ok(if is_usable { Outcome::Done } else { Outcome::CheckFailed })
}

fn inspect(folder: &Path) -> anyhow::Result<Inspection> {
    if !folder.is_dir() {
        bail!("{} is not a folder; `tandem export` writes one", folder.display());
    }
    let engines = EngineFolder::read(folder)?;
    let (export, export_sha256) = NetworkFile::summary_with_sha256(folder)?;
    let network = |name: &String| -> anyhow::Result<Network> {
        let file = NetworkFile::exported(folder, name)?;
        let cost = network_cost(&file.graph, &file.contract)?;
        let graph = file.graph.clone();
        let weights = match engines {
            Some(_) => None,
            None => file.check_weights(&export).err().map(|error| error.to_string()),
        };
        let mut network = Network::of(file, &cost);
        network.unusable = weights;
        let Some(engines) = &engines else { return Ok(network) };
        network.unusable = engines.network(name).err().map(|error| rebuild::with_command(&error));
        let record = engines.record.networks.iter().find(|r| r.contract.network == **name);
        if let Some(record) = record
            && network.unusable.is_none()
        {
            let report = engines.layers(record)?;
            let findings = report.map(|report| report.findings(&graph)).transpose();
            network.layers = findings.with_context(|| format!("network {name:?}"))?;
        }
        Ok(network)
    };
    let networks = export.network_names().iter().map(network).collect::<anyhow::Result<_>>()?;
    let engine_sha256 = engines.as_ref().map(|engines| engines.sha256.clone());
    let accuracy = Certificate::read(folder, ACCURACY_FILE, &export_sha256, &engine_sha256)?;
    Ok(Inspection {
        folder: folder.to_owned(),
        export,
        networks,
        accuracy,
        latency: latency(folder, engines.as_ref())?,
        unusable: family_of(folder)
            .and_then(|family| family.outline(folder, None))
            .err()
            .map(|error| cause_of(&error)),
        changed_sources: identity::changed_sources(folder),
        engine: engines.map(|engines| engines.record),
        engine_sha256,
    })
}

/// Returns the message of an error without the folder's name.
fn cause_of(error: &OpenError) -> String {
    match error {
        OpenError::Networks { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Reads the latency file of a folder. It is current if it names the keys of these engines.
fn latency(folder: &Path, engines: Option<&EngineFolder>) -> anyhow::Result<Option<Certificate>> {
    let path = folder.join(LATENCY_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let file = LatencyFile::read(&path)?;
    let is_current = engines.is_some_and(|engines| engines.keys() == file.engine.built);
    Ok(Some(Certificate { file: LATENCY_FILE, is_current, within_limits: None }))
}

impl Network {
    fn of(file: NetworkFile, cost: &NetworkCost) -> Self {
        let contract = file.contract;
        Self {
            parameters: cost.total.parameters,
            weight_bytes: cost.minimum_traffic.stored_bytes,
            input_bytes: cost.minimum_traffic.input_bytes,
            output_bytes: cost.minimum_traffic.output_bytes,
            operators: cost.nodes.len(),
            flops_by_dtype: cost.flops_by_dtype.clone(),
            parts: parts(cost),
            network: contract.network,
            inputs: contract.inputs,
            outputs: contract.outputs,
            sizes: contract.sizes,
            numbers: contract.numbers,
            layers: None,
            unusable: None,
        }
    }
}

/// Returns the parts of a network in order of first appearance; parts with numbered names are
/// merged.
fn parts(cost: &NetworkCost) -> Vec<Part> {
    let kind = |name: &str| match name.rsplit_once('.') {
        Some((stem, number)) if number.parse::<u32>().is_ok() => format!("{stem}.*"),
        _ => name.to_owned(),
    };
    let mut parts: Vec<Part> = Vec::new();
    for part in &cost.parts {
        let name = kind(&part.name);
        let scope = |node: &str| node.split_once('/').map_or("", |(scope, _)| scope) == part.name;
        let operators = cost.nodes.iter().filter(|node| scope(&node.name)).count();
        let (parameters, flops) = (part.cost.parameters, part.cost.flops());
        match parts.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.count += 1;
                known.parameters += parameters;
                known.operators += operators;
                known.flops += flops;
            }
            None => parts.push(Part { name, count: 1, parameters, operators, flops }),
        }
    }
    parts
}

impl Certificate {
    /// Reads `file` of `folder`; `None` if it does not exist.
    fn read(
        folder: &Path,
        file: &'static str,
        export_sha256: &str,
        engine_sha256: &Option<String>,
    ) -> anyhow::Result<Option<Self>> {
        let path = folder.join(file);
        if !path.exists() {
            return Ok(None);
        }
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let subject = &value["engine"];
        let is_current = subject["export_sha256"] == export_sha256
            && subject["engine_sha256"].as_str() == engine_sha256.as_deref();
        let within_limits = value["within_limits"].as_bool();
        Ok(Some(Self { file, is_current, within_limits }))
    }

    fn describe(certificate: &Option<Self>) -> String {
        let Some(Self { file, is_current, within_limits }) = certificate else {
            return "n/a".to_owned();
        };
        let verdict = match within_limits {
            Some(true) => ", within limits",
            Some(false) => ", beyond limits",
            None => "",
        };
        let subject = if *is_current { "" } else { ", but for other content than the folder's" };
        format!("{file}{verdict}{subject}")
    }
}

fn describe(inspection: &Inspection) -> String {
    let Inspection { export, networks, engine, .. } = inspection;
    let kind = if engine.is_some() { "engine folder" } else { "network folder" };
    let precision = serde_json::to_value(export.options.precision).unwrap_or_default();
    let mut lines = vec![
        format!(
            "{}: {kind} of {} from {}, precision {}{}",
            inspection.folder.display(),
            export.model,
            export.checkpoint.display(),
            precision.as_str().unwrap_or_default(),
            export
                .prefix_capacity
                .map_or(String::new(), |tokens| format!(", prefix capacity {tokens} tokens")),
        ),
        String::new(),
    ];
    let rows = networks.iter().map(|network| {
        let dtypes: Vec<String> = network.flops_by_dtype.keys().map(DType::to_string).collect();
        vec![
            network.network.clone(),
            network.parameters.to_string(),
            megabytes(network.weight_bytes),
            megabytes(network.input_bytes),
            megabytes(network.output_bytes),
            network.operators.to_string(),
            dtypes.join(" "),
        ]
    });
    let header =
        ["network", "parameters", "weights MB", "inputs MB", "outputs MB", "operators", "dtypes"];
    lines.push(print::table(&header, &rows.collect::<Vec<_>>()));
    lines.push(String::new());
    let rows = networks.iter().flat_map(|network| {
        network.parts.iter().map(|part| {
            vec![
                format!("{}/{}", network.network, part.name),
                part.count.to_string(),
                part.parameters.to_string(),
                part.operators.to_string(),
                print::three_digits(part.flops as f64 / 1e9),
            ]
        })
    });
    let header = ["part", "count", "parameters", "operators", "GFLOP per run"];
    lines.push(print::table(&header, &rows.collect::<Vec<_>>()));
    lines.push(String::new());
    let rows = networks.iter().flat_map(|network| {
        let side = |side: &'static str, specs: &[TensorSpec]| -> Vec<Vec<String>> {
            let row = |spec: &TensorSpec| {
                let name = format!("{}/{}", network.network, spec.name);
                let shape = format!("{:?}", spec.shape);
                vec![name, side.to_owned(), spec.dtype.to_string(), shape, spec.meaning.clone()]
            };
            specs.iter().map(row).collect()
        };
        [side("input", &network.inputs), side("output", &network.outputs)].concat()
    });
    let header = ["tensor", "side", "dtype", "shape", "meaning"];
    lines.push(print::table(&header, &rows.collect::<Vec<_>>()));
    lines.push(String::new());
    lines.extend(engine.iter().flat_map(describe_engines));
    lines.extend(describe_layers(networks));
    lines.push(format!("accuracy: {}", Certificate::describe(&inspection.accuracy)));
    lines.push(format!("latency: {}", Certificate::describe(&inspection.latency)));
    let sources = inspection.changed_sources.iter();
    lines.extend(sources.map(|path| identity::changed_source(path, &inspection.folder)));
    // A set, because several networks may read the same file.
    let unusable: BTreeSet<&String> = networks
        .iter()
        .filter_map(|network| network.unusable.as_ref())
        .chain(&inspection.unusable)
        .collect();
    lines.extend(unusable.into_iter().map(|reason| format!("cannot be used: {reason}")));
    lines.join("\n")
}

/// Formats the layers that the library built from each graph.
fn describe_layers(networks: &[Network]) -> Vec<String> {
    let listed = || networks.iter().filter_map(|n| Some((n.network.as_str(), n.layers.as_ref()?)));
    if listed().next().is_none() {
        return Vec::new();
    }
    let counts = |counts: &BTreeMap<String, usize>| {
        let texts = counts.iter().map(|(name, count)| match name.as_str() {
            "" => format!("{count} integer"),
            name => format!("{count} {name}"),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    let row = |(network, layers): (&str, &LayerFindings)| {
        vec![
            network.to_owned(),
            layers.launches.to_string(),
            layers.attention.len().to_string(),
            layers.fused().to_string(),
            (layers.weights_checked - layers.weights_changed.len()).to_string(),
            layers.weights_changed.len().to_string(),
            counts(&layers.launches_by_types),
        ]
    };
    let header = [
        "layers",
        "launches",
        "attentions",
        "fused attentions",
        "weights kept",
        "weights changed",
        "launches by dtypes",
    ];
    let mut lines = vec![print::table(&header, &listed().map(row).collect::<Vec<_>>())];
    lines.push(String::new());
    let row = |network: &str, layers: &LayerFindings| -> Vec<Vec<String>> {
        let row = |(dtype, bytes): (&String, &WeightBytes)| {
            vec![
                format!("{network} {dtype}"),
                print::three_digits(bytes.graph as f64 / 1e6),
                print::three_digits(bytes.engine as f64 / 1e6),
            ]
        };
        layers.weights.iter().map(row).collect()
    };
    let rows: Vec<_> = listed().flat_map(|(network, layers)| row(network, layers)).collect();
    lines.push(print::table(&["weights", "graph MB", "engine MB"], &rows));
    lines.push(String::new());
    for (network, layers) in listed() {
        lines.push(format!("{network}: launches {}", counts(&layers.launches_by_kind)));
        for attention in layers.attention.iter().filter(|attention| !attention.is_fused) {
            lines.push(match attention.is_spelled_out {
                true => format!(
                    "{network}: attention at {} is decomposed in the graph and runs as several kernels",
                    attention.node
                ),
                false => format!(
                    "{network}: attention {} is not fused but split into {:?}",
                    attention.node, attention.layers
                ),
            });
        }
        for weight in &layers.weights_changed {
            lines.push(format!(
                "{network}: weight {} of {} is {} in the graph, but {:?} in the engine",
                weight.weight, weight.node, weight.dtype, weight.found
            ));
        }
        if let Some(first) = layers.orders_streams.first() {
            lines.push(format!(
                "{network}: runs on several streams, synchronized by {} layers such as {first}; rebuild \
                 it for one stream",
                layers.orders_streams.len()
            ));
        }
        for weight in &layers.expanded_weights {
            lines.push(format!(
                "{network}: layer {} expands a weight of {:?}, {} MB at every run, for {:?}",
                weight.layer,
                weight.nodes,
                print::three_digits(weight.bytes as f64 / 1e6),
                weight.read_by
            ));
        }
        lines.extend(other_types(network, "smaller", &layers.narrowed));
        lines.extend(other_types(network, "larger", &layers.widened));
    }
    lines.push(String::new());
    lines
}

/// Formats one line per layer with another element type than in the graph.
fn other_types(network: &str, how: &str, others: &[OtherType]) -> Vec<String> {
    let line = |other: &OtherType| {
        format!(
            "{network}: {} in {}, a {how} type than {} in the graph, at {}",
            other.dtype,
            other.layer,
            other.graph.join(" "),
            other.nodes.join(" "),
        )
    };
    others.iter().map(line).collect()
}

/// Formats the keys and files of built engines.
fn describe_engines(engine: &EngineRecord) -> Vec<String> {
    let row = |network: &NetworkRecord| {
        let own = network.own_weights.as_ref().map_or(0, |file| file.bytes);
        vec![
            network.contract.network.clone(),
            network.key.sha256()[..12].to_owned(),
            network.key.weights_sha256[..12].to_owned(),
            megabytes(network.engine.bytes + own),
            network.build.peak_resident_bytes.map_or("–".into(), megabytes),
            print::three_digits(network.build.seconds),
        ]
    };
    let header = ["engine", "key", "weights SHA-256", "files MB", "build memory MB", "build s"];
    let rows: Vec<Vec<String>> = engine.networks.iter().map(row).collect();
    let mut lines = vec![print::table(&header, &rows), String::new()];
    if let Some(network) = engine.networks.first() {
        let key = &network.key;
        lines.push(format!(
            "built from {} by tandem {} with {} for {}{}",
            engine.network_folder.display(),
            key.tandem,
            key.library,
            comma_separated(&key.targets),
            key.machine.as_ref().map_or(String::new(), |machine| format!(" ({machine})")),
        ));
    }
    for network in &engine.networks {
        for file in &network.weight_files {
            let line = format!("weights: {}, {} MB", file.path.display(), megabytes(file.bytes));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}
