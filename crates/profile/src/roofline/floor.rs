//! Floors of stages, and what they add up to in a tick and in a refresh.
//!
//! ```text
//! memory  = compulsory bytes / bytes per second
//! compute = operations / operations per second        (summed over element types)
//! floor   = max(memory, compute)
//! ```
//!
//! Compulsory bytes are weights, inputs and outputs once each. Element-by-element work is left out:
//! fused into a neighbor it costs neither. Stages of one tick, or of one refresh, follow each other,
//! so their floors add up.

use super::ceilings::Ceilings;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::iter::Sum;
use std::path::Path;
use tandem::engine::{NetworkFile, NetworkFileError};
use tandem::model::{ModelOutline, Runs, StageNetworks};
use tandem::tensor::DType;
use tandem::timing::Stage;
use tandem_export::contract::Contract;
use tandem_export::cost::{CostError, NetworkCost, network_cost};

/// What one run must move and compute.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Work {
    /// Bytes.
    pub bytes: u64,
    /// Operations on matrix units by the factors' element type.
    pub flops: BTreeMap<DType, u64>,
}

impl Work {
    /// The least that one run of a network must do.
    pub fn of(cost: &NetworkCost) -> Self {
        Self { bytes: cost.compulsory.bytes(), flops: cost.flops_by_dtype.clone() }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), |mut all, work| {
            all.bytes += work.bytes;
            for (dtype, flops) in work.flops {
                *all.flops.entry(dtype).or_default() += flops;
            }
            all
        })
    }
}

/// What a floor is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Moving bytes takes longer.
    Memory,
    /// Computing takes longer.
    Compute,
}

impl Bound {
    /// The word that tables print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Compute => "compute",
        }
    }
}

/// The least time that some work takes on a device, milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Floor {
    /// Moving its bytes.
    pub memory_ms: f64,
    /// Computing its operations.
    pub compute_ms: f64,
    /// The longer of the two.
    pub floor_ms: f64,
    /// Which one that is.
    pub bound_by: Bound,
}

impl Floor {
    /// The floor of work that is done one after the other.
    fn in_sequence(floors: &[Self]) -> Self {
        let sum = |pick: fn(&Self) -> f64| floors.iter().map(pick).sum::<f64>();
        let [memory_ms, compute_ms] = [sum(|floor| floor.memory_ms), sum(|floor| floor.compute_ms)];
        let bound_by = if memory_ms >= compute_ms { Bound::Memory } else { Bound::Compute };
        Self { memory_ms, compute_ms, floor_ms: sum(|floor| floor.floor_ms), bound_by }
    }
}

/// A device has no known rate for what a network computes in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no matrix rate in {dtype} is known for {device}, only in {}; choose a precision that it has",
    known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
)]
pub struct NoRate {
    /// The device.
    pub device: String,
    /// Element type that the network computes in.
    pub dtype: DType,
    /// Element types with a rate.
    pub known: Vec<DType>,
}

/// The least time that `work` takes under `ceilings`.
///
/// # Errors
/// The ceilings have no rate for an element type of the work.
pub fn floor(work: &Work, ceilings: &Ceilings) -> Result<Floor, NoRate> {
    let memory_ms = work.bytes as f64 / ceilings.bytes_per_s * 1e3;
    let mut compute_ms = 0.0;
    for (&dtype, &flops) in &work.flops {
        let rate = ceilings.flops_per_s.get(&dtype).ok_or_else(|| NoRate {
            device: ceilings.name.clone(),
            dtype,
            known: ceilings.flops_per_s.keys().copied().collect(),
        })?;
        compute_ms += flops as f64 / rate * 1e3;
    }
    let bound_by = if memory_ms >= compute_ms { Bound::Memory } else { Bound::Compute };
    Ok(Floor { memory_ms, compute_ms, floor_ms: memory_ms.max(compute_ms), bound_by })
}

/// What one run of each network of a stage costs.
#[derive(Clone)]
pub struct StageCosts {
    /// The stage.
    pub stage: Stage,
    /// When it runs.
    pub runs: Runs,
    /// Costs of its networks, which run one after the other.
    pub networks: Vec<NetworkCost>,
}

/// The networks of a model folder cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum CostsError {
    /// A network file cannot be read.
    #[error(transparent)]
    File(#[from] NetworkFileError),
    /// A graph cannot be counted.
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// Counts the networks of `folder`, whose outline is `outline`.
///
/// # Errors
/// A network file cannot be read or counted.
pub fn costs(folder: &Path, outline: &ModelOutline) -> Result<Vec<StageCosts>, CostsError> {
    let of_network = |contract: &Contract| {
        let file = NetworkFile::exported(folder, &contract.network)?;
        Ok(network_cost(&file.graph, &file.contract)?)
    };
    let of_stage = |stage: &StageNetworks| {
        let networks = stage.networks.iter().map(of_network).collect::<Result<_, CostsError>>()?;
        Ok(StageCosts { stage: stage.stage, runs: stage.runs, networks })
    };
    outline.stages.iter().map(of_stage).collect()
}

/// The floor of one stage.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StageFloor {
    /// The stage.
    #[serde(serialize_with = "by_name")]
    pub stage: Stage,
    /// Runs of its network in one tick or refresh: of vision, frames that are not cached.
    pub runs: usize,
    /// Of one run; of layer groups, one run of all of them.
    pub work: Work,
    /// Of the same.
    pub floor: Floor,
}

fn by_name<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

/// Floors of all stages, and of a whole tick and refresh.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Floors {
    /// In the order of the costs.
    pub stages: Vec<StageFloor>,
    /// Networks that run at every tick, milliseconds.
    pub tick_ms: f64,
    /// Networks that run at every refresh, frames that are not cached included, milliseconds.
    pub refresh_ms: f64,
}

/// Ceilings of each expert: on a CPU they depend on the expert's number of threads.
#[derive(Clone, Copy)]
pub struct ExpertCeilings<'a> {
    /// Ceilings of networks that run at every refresh.
    pub understanding: &'a Ceilings,
    /// Ceilings of networks that run at every tick.
    pub action: &'a Ceilings,
}

impl<'a> From<&'a Ceilings> for ExpertCeilings<'a> {
    fn from(ceilings: &'a Ceilings) -> Self {
        Self { understanding: ceilings, action: ceilings }
    }
}

/// Floors of a refresh with `new_frames` frames that no earlier one has read, and of a tick.
///
/// # Errors
/// The ceilings have no rate for what a network computes in.
pub fn floors<'a>(
    costs: &[StageCosts],
    ceilings: impl Into<ExpertCeilings<'a>>,
    new_frames: usize,
) -> Result<Floors, NoRate> {
    let experts = ceilings.into();
    let of_stage = |StageCosts { stage, runs, networks }: &StageCosts| {
        let ceilings = match runs {
            Runs::EachTick => experts.action,
            Runs::EachRefresh | Runs::EachNewFrame => experts.understanding,
        };
        let works: Vec<Work> = networks.iter().map(Work::of).collect();
        let floors = works.iter().map(|work| floor(work, ceilings)).collect::<Result<Vec<_>, _>>();
        let floor = Floor::in_sequence(&floors?);
        let runs = runs.count(new_frames);
        Ok(StageFloor { stage: *stage, runs, work: works.into_iter().sum(), floor })
    };
    let stages = costs.iter().map(of_stage).collect::<Result<Vec<_>, _>>()?;
    let total = |is_of_tick: bool| {
        let pairs = costs.iter().zip(&stages);
        pairs
            .filter(|(costs, _)| (costs.runs == Runs::EachTick) == is_of_tick)
            .map(|(_, stage)| stage.runs as f64 * stage.floor.floor_ms)
            .sum()
    };
    Ok(Floors { tick_ms: total(true), refresh_ms: total(false), stages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roofline::ceilings::Source;
    use tandem::model::automot::stages;

    /// A gigabyte in a millisecond, a billion single-precision operations in two.
    fn ceilings() -> Ceilings {
        Ceilings {
            name: "test".to_owned(),
            threads: None,
            bytes_per_s: 1e12,
            flops_per_s: BTreeMap::from([(DType::F32, 5e11), (DType::Bf16, 1e12)]),
            source: Source::Datasheet { document: "made up".to_owned() },
        }
    }

    #[test]
    fn the_longer_of_moving_and_computing_is_the_floor() {
        let work = |bytes, flops| Work { bytes, flops: BTreeMap::from([(DType::F32, flops)]) };
        let found = floor(&work(3_000_000_000, 1_000_000_000), &ceilings()).unwrap();
        let memory =
            Floor { memory_ms: 3.0, compute_ms: 2.0, floor_ms: 3.0, bound_by: Bound::Memory };
        assert_eq!(found, memory);
        let found = floor(&work(1_000_000_000, 1_000_000_000), &ceilings()).unwrap();
        let compute =
            Floor { memory_ms: 1.0, compute_ms: 2.0, floor_ms: 2.0, bound_by: Bound::Compute };
        assert_eq!(found, compute);
    }

    #[test]
    fn element_types_are_computed_one_after_the_other() {
        let flops = BTreeMap::from([(DType::F32, 1_000_000_000), (DType::Bf16, 4_000_000_000)]);
        let found = floor(&Work { bytes: 0, flops }, &ceilings()).unwrap();
        assert_eq!(found.compute_ms, 2.0 + 4.0);
    }

    #[test]
    fn a_type_without_a_rate_is_an_error_that_names_those_with_one() {
        let work = Work { bytes: 1, flops: BTreeMap::from([(DType::F16, 1)]) };
        let error = floor(&work, &ceilings()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matrix rate in f16 is known for test, only in f32, bf16; choose a precision that \
             it has"
        );
    }

    #[test]
    fn each_expert_has_the_ceilings_of_its_own_threads() {
        let cost = |network: &str| NetworkCost {
            network: network.to_owned(),
            total: Default::default(),
            compulsory: tandem_export::cost::Compulsory {
                stored_bytes: 1_000_000_000,
                ..Default::default()
            },
            flops_by_dtype: BTreeMap::new(),
            parts: Vec::new(),
            nodes: Vec::new(),
        };
        let stage = |stage, runs, name| StageCosts { stage, runs, networks: vec![cost(name)] };
        let costs = [
            stage(stages::VISION, Runs::EachNewFrame, "vision"),
            stage(stages::UNDERSTANDING, Runs::EachRefresh, "understanding"),
            stage(stages::BEV, Runs::EachTick, "bev"),
            stage(stages::ACTION, Runs::EachTick, "action"),
        ];
        let (understanding, action) = (ceilings(), Ceilings { bytes_per_s: 5e11, ..ceilings() });
        let experts = ExpertCeilings { understanding: &understanding, action: &action };
        let found = floors(&costs, experts, 1).unwrap();
        let found: Vec<f64> = found.stages.iter().map(|stage| stage.floor.floor_ms).collect();
        assert_eq!(found, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn a_refresh_pays_for_every_frame_that_is_not_cached() {
        let cost = |network: &str, bytes| NetworkCost {
            network: network.to_owned(),
            total: Default::default(),
            compulsory: tandem_export::cost::Compulsory {
                stored_bytes: bytes,
                ..Default::default()
            },
            flops_by_dtype: BTreeMap::new(),
            parts: Vec::new(),
            nodes: Vec::new(),
        };
        let stage = |stage, runs, networks| StageCosts { stage, runs, networks };
        let mut costs = [
            stage(stages::VISION, Runs::EachNewFrame, vec![cost("vision", 1_000_000_000)]),
            stage(
                stages::UNDERSTANDING,
                Runs::EachRefresh,
                vec![cost("understanding", 10_000_000_000)],
            ),
            stage(stages::BEV, Runs::EachTick, vec![cost("bev", 2_000_000_000)]),
            stage(stages::ACTION, Runs::EachTick, vec![cost("action", 3_000_000_000)]),
        ];
        let found = floors(&costs, &ceilings(), 4).unwrap();
        assert_eq!((found.tick_ms, found.refresh_ms), (5.0, 14.0));
        assert_eq!(floors(&costs, &ceilings(), 0).unwrap().refresh_ms, 10.0);

        // Groups follow each other: one bound by memory and one by computing hide nothing.
        let mut computing = cost("understanding.1", 1_000_000_000);
        computing.flops_by_dtype.insert(DType::F32, 2_000_000_000);
        costs[1].networks = vec![cost("understanding.0", 9_000_000_000), computing];
        let found = floors(&costs, &ceilings(), 4).unwrap();
        let understanding = &found.stages[1];
        assert_eq!(understanding.floor.floor_ms, 9.0 + 4.0);
        assert_eq!((understanding.floor.memory_ms, understanding.floor.compute_ms), (10.0, 4.0));
        assert_eq!(understanding.work.bytes, 10_000_000_000);
    }
}
