//! Lower bounds of stages, ticks and prefills.
//!
//! ```text
//! memory      = minimum memory traffic / memory rate
//! compute     = operations / matrix rate               (summed over element types)
//! lower bound = max(memory, compute)
//! ```
//!
//! Minimum memory traffic is weights, inputs and outputs once each. Elementwise operations are not
//! counted, because they cost nothing if fused. Stages of a tick or of a prefill run in sequence, so
//! their lower bounds add up.

use super::peak_rates::PeakRates;
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

/// Minimum memory traffic and operations of one run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Work {
    pub bytes: u64,
    /// Operations on matrix units, by element type of the factors.
    pub flops: BTreeMap<DType, u64>,
}

impl Work {
    /// Returns the minimum work of one run of a network.
    pub fn of(cost: &NetworkCost) -> Self {
        Self { bytes: cost.minimum_traffic.bytes(), flops: cost.flops_by_dtype.clone() }
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

/// Resource that determines a lower bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    Memory,
    Compute,
}

impl Bound {
    /// Returns the name, as printed in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Compute => "compute",
        }
    }
}

/// Lower bound of the time of some work on a device, milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct LowerBound {
    /// Time for its memory traffic alone.
    pub memory_ms: f64,
    /// Time for its operations alone.
    pub compute_ms: f64,
    /// Lower bound: the longer of the two, or a sum of such bounds for work in sequence.
    pub floor_ms: f64,
    pub bound_by: Bound,
}

impl LowerBound {
    /// Returns the lower bound of work that runs in sequence.
    fn in_sequence(lower_bounds: &[Self]) -> Self {
        let sum = |pick: fn(&Self) -> f64| lower_bounds.iter().map(pick).sum::<f64>();
        let [memory_ms, compute_ms] = [sum(|bound| bound.memory_ms), sum(|bound| bound.compute_ms)];
        let bound_by = if memory_ms >= compute_ms { Bound::Memory } else { Bound::Compute };
        Self { memory_ms, compute_ms, floor_ms: sum(|bound| bound.floor_ms), bound_by }
    }
}

/// Error returned when a device has no known matrix rate for an element type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no matrix rate for {dtype} is known for {device}, only for {}; choose one of these precisions",
    known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
)]
pub struct MissingRate {
    pub device: String,
    /// Element type in which the network computes.
    pub dtype: DType,
    /// Element types with a known rate.
    pub known: Vec<DType>,
}

/// Returns the lower bound of the time for `work` at the given peak rates.
///
/// # Errors
/// The peak rates have no entry for an element type of the work.
pub fn lower_bound(work: &Work, rates: &PeakRates) -> Result<LowerBound, MissingRate> {
    let memory_ms = work.bytes as f64 / rates.bytes_per_s * 1e3;
    let mut compute_ms = 0.0;
    for (&dtype, &flops) in &work.flops {
        let rate = rates.flops_per_s.get(&dtype).ok_or_else(|| MissingRate {
            device: rates.name.clone(),
            dtype,
            known: rates.flops_per_s.keys().copied().collect(),
        })?;
        compute_ms += flops as f64 / rate * 1e3;
    }
    let bound_by = if memory_ms >= compute_ms { Bound::Memory } else { Bound::Compute };
    Ok(LowerBound { memory_ms, compute_ms, floor_ms: memory_ms.max(compute_ms), bound_by })
}

/// Costs of one run of each network of a stage.
#[derive(Clone)]
pub struct StageCosts {
    pub stage: Stage,
    pub runs: Runs,
    /// Costs of its networks, which run in sequence.
    pub networks: Vec<NetworkCost>,
}

/// Error returned when the costs of the networks of a folder cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum CostsError {
    #[error(transparent)]
    File(#[from] NetworkFileError),
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// Returns the costs of the networks of `folder`, which `outline` describes.
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

/// Lower bound of one stage, with its work.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StageLowerBound {
    #[serde(serialize_with = "by_name")]
    pub stage: Stage,
    /// Number of runs per tick or prefill; for the vision tower, the frames that are not cached.
    pub runs: usize,
    /// Work of one run; for layer groups, of one run of all groups.
    pub work: Work,
    /// Lower bound of the same run.
    pub floor: LowerBound,
}

fn by_name<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

/// Lower bounds of all stages, of a tick and of a prefill.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LowerBounds {
    pub stages: Vec<StageLowerBound>,
    /// Sum over networks that run at every tick, milliseconds.
    pub tick_ms: f64,
    /// Sum over networks that run at every prefill, including new frames, milliseconds.
    pub refresh_ms: f64,
}

/// Peak rates for each expert. On a CPU they depend on the expert's number of threads.
#[derive(Clone, Copy)]
pub struct ExpertPeakRates<'a> {
    /// Peak rates for networks that run at every prefill.
    pub understanding: &'a PeakRates,
    /// Peak rates for networks that run at every tick.
    pub action: &'a PeakRates,
}

impl<'a> From<&'a PeakRates> for ExpertPeakRates<'a> {
    fn from(rates: &'a PeakRates) -> Self {
        Self { understanding: rates, action: rates }
    }
}

/// Returns the lower bounds of a tick, and of a prefill with `new_frames` frames that are not cached.
///
/// # Errors
/// The peak rates have no entry for an element type in which a network computes.
pub fn lower_bounds<'a>(
    costs: &[StageCosts],
    rates: impl Into<ExpertPeakRates<'a>>,
    new_frames: usize,
) -> Result<LowerBounds, MissingRate> {
    let experts = rates.into();
    let of_stage = |StageCosts { stage, runs, networks }: &StageCosts| {
        let rates = match runs {
            Runs::EachTick => experts.action,
            Runs::EachPrefill | Runs::EachNewFrame => experts.understanding,
        };
        let works: Vec<Work> = networks.iter().map(Work::of).collect();
        let lower_bounds =
            works.iter().map(|work| lower_bound(work, rates)).collect::<Result<Vec<_>, _>>();
        let floor = LowerBound::in_sequence(&lower_bounds?);
        let runs = runs.count(new_frames);
        Ok(StageLowerBound { stage: *stage, runs, work: works.into_iter().sum(), floor })
    };
    let stages = costs.iter().map(of_stage).collect::<Result<Vec<_>, _>>()?;
    let total = |is_of_tick: bool| {
        let pairs = costs.iter().zip(&stages);
        pairs
            .filter(|(costs, _)| (costs.runs == Runs::EachTick) == is_of_tick)
            .map(|(_, stage)| stage.runs as f64 * stage.floor.floor_ms)
            .sum()
    };
    Ok(LowerBounds { tick_ms: total(true), refresh_ms: total(false), stages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roofline::peak_rates::Source;
    use tandem::model::automot::stages;

    /// One gigabyte per millisecond, 10⁹ single-precision operations in 2 ms.
    fn rates() -> PeakRates {
        PeakRates {
            name: "test".to_owned(),
            threads: None,
            bytes_per_s: 1e12,
            flops_per_s: BTreeMap::from([(DType::F32, 5e11), (DType::Bf16, 1e12)]),
            source: Source::Datasheet { document: "test data".to_owned() },
        }
    }

    #[test]
    fn lower_bound_is_the_longer_of_memory_and_compute() {
        let work = |bytes, flops| Work { bytes, flops: BTreeMap::from([(DType::F32, flops)]) };
        let found = lower_bound(&work(3_000_000_000, 1_000_000_000), &rates()).unwrap();
        let memory =
            LowerBound { memory_ms: 3.0, compute_ms: 2.0, floor_ms: 3.0, bound_by: Bound::Memory };
        assert_eq!(found, memory);
        let found = lower_bound(&work(1_000_000_000, 1_000_000_000), &rates()).unwrap();
        let compute =
            LowerBound { memory_ms: 1.0, compute_ms: 2.0, floor_ms: 2.0, bound_by: Bound::Compute };
        assert_eq!(found, compute);
    }

    #[test]
    fn compute_time_is_summed_over_element_types() {
        let flops = BTreeMap::from([(DType::F32, 1_000_000_000), (DType::Bf16, 4_000_000_000)]);
        let found = lower_bound(&Work { bytes: 0, flops }, &rates()).unwrap();
        assert_eq!(found.compute_ms, 2.0 + 4.0);
    }

    #[test]
    fn missing_rate_error_lists_known_types() {
        let work = Work { bytes: 1, flops: BTreeMap::from([(DType::F16, 1)]) };
        let error = lower_bound(&work, &rates()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matrix rate for f16 is known for test, only for f32, bf16; choose one of these \
             precisions"
        );
    }

    #[test]
    fn each_expert_has_the_peak_rates_of_its_threads() {
        let cost = |network: &str| NetworkCost {
            network: network.to_owned(),
            total: Default::default(),
            minimum_traffic: tandem_export::cost::MinimumTraffic {
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
            stage(stages::UNDERSTANDING, Runs::EachPrefill, "understanding"),
            stage(stages::BEV, Runs::EachTick, "bev"),
            stage(stages::ACTION, Runs::EachTick, "action"),
        ];
        let (understanding, action) = (rates(), PeakRates { bytes_per_s: 5e11, ..rates() });
        let experts = ExpertPeakRates { understanding: &understanding, action: &action };
        let found = lower_bounds(&costs, experts, 1).unwrap();
        let found: Vec<f64> = found.stages.iter().map(|stage| stage.floor.floor_ms).collect();
        assert_eq!(found, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn prefill_includes_every_uncached_frame() {
        let cost = |network: &str, bytes| NetworkCost {
            network: network.to_owned(),
            total: Default::default(),
            minimum_traffic: tandem_export::cost::MinimumTraffic {
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
                Runs::EachPrefill,
                vec![cost("understanding", 10_000_000_000)],
            ),
            stage(stages::BEV, Runs::EachTick, vec![cost("bev", 2_000_000_000)]),
            stage(stages::ACTION, Runs::EachTick, vec![cost("action", 3_000_000_000)]),
        ];
        let found = lower_bounds(&costs, &rates(), 4).unwrap();
        assert_eq!((found.tick_ms, found.refresh_ms), (5.0, 14.0));
        assert_eq!(lower_bounds(&costs, &rates(), 0).unwrap().refresh_ms, 10.0);

        // Groups run in sequence: the bounds of a memory-bound and a compute-bound one add up.
        let mut computing = cost("understanding.1", 1_000_000_000);
        computing.flops_by_dtype.insert(DType::F32, 2_000_000_000);
        costs[1].networks = vec![cost("understanding.0", 9_000_000_000), computing];
        let found = lower_bounds(&costs, &rates(), 4).unwrap();
        let understanding = &found.stages[1];
        assert_eq!(understanding.floor.floor_ms, 9.0 + 4.0);
        assert_eq!((understanding.floor.memory_ms, understanding.floor.compute_ms), (10.0, 4.0));
        assert_eq!(understanding.work.bytes, 10_000_000_000);
    }
}
