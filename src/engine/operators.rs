//! What each operator of a network took, as the library that ran it says.
//!
//! Times are the library's own and hold what measuring itself costs: shares are what to read from
//! them, and latencies come from runs that nothing measures.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// What the operators of one network took, summed over runs.
///
/// Parts, unattributed operators and the residual make up the whole:
///
/// ```
/// use tandem::engine::{OperatorProfile, OperatorTime};
///
/// let operator = |node: &str, total_ns| OperatorTime {
///     node: node.into(),
///     op_type: "Gemm".into(),
///     part: node.split_once('/').map(|(part, _)| part.into()),
///     count: 2,
///     total_ns,
/// };
/// let profile = OperatorProfile {
///     network: "action".into(),
///     runs: 2,
///     parts: vec!["embed".into(), "layer.0".into(), "layer.1".into()],
///     operators: vec![
///         operator("embed/gemm", 10_000),
///         operator("layer.0/gemm", 40_000),
///         operator("layer.1/gemm", 44_000),
///         operator("copy", 1_000),
///     ],
///     run_total_ns: 100_000,
///     resolution_ns: 1_000,
///     cut_short: false,
/// };
/// let rows = profile.layer_groups("layer", 2);
/// let names: Vec<_> = rows.iter().map(|row| row.part.as_deref()).collect();
/// assert_eq!(names, [Some("embed"), Some("layer.0-1"), None]);
/// assert_eq!(rows[1].total_ns, 84_000);
/// let sum: u64 = rows.iter().map(|row| row.total_ns).sum();
/// assert_eq!(sum.cast_signed() + profile.residual_ns(), 100_000);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorProfile {
    /// The network.
    pub network: String,
    /// Whole runs that were measured, warm-up excluded.
    pub runs: u64,
    /// Parts of the network, in the order of the network; a part may have lost its operators to
    /// another one when they were fused.
    pub parts: Vec<String>,
    /// Its operators, in the order of execution, in which parts overlap.
    pub operators: Vec<OperatorTime>,
    /// What the library says that the runs took from call to return, nanoseconds.
    pub run_total_ns: u64,
    /// The library cuts each single time to a multiple of this, nanoseconds: what is cut off is part
    /// of the residual.
    pub resolution_ns: u64,
    /// True if the library's memory for events was full: later runs are missing.
    pub cut_short: bool,
}

/// One operator of the network as the library runs it: fused, or put in by the library itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorTime {
    /// Name of its node; one that the library made up if the node has none.
    pub node: String,
    /// Operator, e.g. `Gemm`.
    pub op_type: String,
    /// The part of the network that it belongs to, e.g. `layer.3`; `None` if nobody can tell.
    pub part: Option<String>,
    /// Executions, over all runs.
    pub count: u64,
    /// Time of all executions, nanoseconds.
    pub total_ns: u64,
}

/// What one part of a network took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartTime {
    /// The part, or a group of them, e.g. `layer.0-5`; `None` for operators that belong to none.
    pub part: Option<String>,
    /// Its operators.
    pub operators: usize,
    /// Executions of its operators, over all runs.
    pub count: u64,
    /// Time of all executions, nanoseconds.
    pub total_ns: u64,
}

impl OperatorProfile {
    /// Time of all operators over all runs, nanoseconds.
    pub fn operators_ns(&self) -> u64 {
        self.operators.iter().map(|operator| operator.total_ns).sum()
    }

    /// What the runs took beyond their operators, nanoseconds: the library's work between them, what
    /// measuring costs there, and what the resolution cuts off. Negative if operators overlap.
    pub fn residual_ns(&self) -> i64 {
        self.run_total_ns.cast_signed() - self.operators_ns().cast_signed()
    }

    /// Time by part, in the order of the network; operators that belong to none come last.
    pub fn parts(&self) -> Vec<PartTime> {
        self.rows(|part| part.to_owned())
    }

    /// Like [`OperatorProfile::parts`], with `per_group` of the parts `stem.0`, `stem.1`, … in one
    /// row: `stem.0-5`.
    ///
    /// # Panics
    /// If `per_group` is 0.
    pub fn layer_groups(&self, stem: &str, per_group: usize) -> Vec<PartTime> {
        assert!(per_group > 0, "a group holds at least one layer");
        let number = |part: &str| -> Option<usize> {
            part.strip_prefix(stem)?.strip_prefix('.')?.parse().ok()
        };
        let numbers = self.operators.iter().filter_map(|operator| number(operator.part.as_ref()?));
        let Some(last) = numbers.max() else { return self.parts() };
        self.rows(|part| match number(part).map(|layer| layer / per_group * per_group) {
            None => part.to_owned(),
            Some(from) if per_group == 1 || from == last => format!("{stem}.{from}"),
            Some(from) => format!("{stem}.{from}-{}", (from + per_group - 1).min(last)),
        })
    }

    fn rows(&self, row_of: impl Fn(&str) -> String) -> Vec<PartTime> {
        let mut rows: BTreeMap<Option<String>, (usize, PartTime)> = BTreeMap::new();
        let place = |part: &Option<String>| {
            let place = |part| self.parts.iter().position(|listed| listed == part);
            part.as_ref().and_then(place).unwrap_or(self.parts.len())
        };
        for operator in &self.operators {
            let part = operator.part.as_deref().map(&row_of);
            let empty = PartTime { part: part.clone(), operators: 0, count: 0, total_ns: 0 };
            let (first, row) = rows.entry(part).or_insert((usize::MAX, empty));
            *first = place(&operator.part).min(*first);
            row.operators += 1;
            row.count += operator.count;
            row.total_ns += operator.total_ns;
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|(first, row)| (row.part.is_none(), *first));
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

/// Operators were measured, but what they took cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum OperatorProfileError {
    /// The library does not end its measurement.
    #[error("network {network:?}: the library cannot end its profile: {reason}")]
    End {
        /// The network.
        network: String,
        /// The library's own words.
        reason: String,
    },
    /// The library's profile cannot be read.
    #[error("network {network:?}: cannot read the library's profile {path:?}: {source}")]
    Read {
        /// The network.
        network: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The library's profile is damaged, or something else.
    #[error(
        "network {network:?}: {path:?} is no whole profile of the library: {reason}; measure again, \
         with room on the disk"
    )]
    Malformed {
        /// The network.
        network: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile whose `place`-th operator took `1 << place`; `listed` is the order of the network.
    fn profile(listed: &[&str], parts: &[Option<&str>]) -> OperatorProfile {
        let operators = parts.iter().enumerate().map(|(place, part)| OperatorTime {
            node: format!("node {place}"),
            op_type: "Add".into(),
            part: part.map(str::to_owned),
            count: 3,
            total_ns: 1 << place,
        });
        OperatorProfile {
            network: "toy".into(),
            runs: 3,
            parts: listed.iter().map(|part| part.to_string()).collect(),
            operators: operators.collect(),
            run_total_ns: 1 << parts.len(),
            resolution_ns: 1,
            cut_short: false,
        }
    }

    fn named(rows: &[PartTime]) -> Vec<(&str, u64)> {
        rows.iter().map(|row| (row.part.as_deref().unwrap_or("-"), row.total_ns)).collect()
    }

    #[test]
    fn parts_come_in_the_order_of_the_network_and_sums_are_exact() {
        // A constant of the last layer is prepared first.
        let order = ["embed", "layer.0", "fused away", "layer.1"];
        let ran = [Some("layer.1"), None, Some("embed"), Some("layer.0"), Some("layer.1")];
        let profile = profile(&order, &ran);
        let rows = profile.parts();
        assert_eq!(named(&rows), [("embed", 4), ("layer.0", 8), ("layer.1", 17), ("-", 2)]);
        assert_eq!((rows[2].operators, rows[2].count), (2, 6));
        assert_eq!((profile.operators_ns(), profile.residual_ns()), (31, 1));
    }

    #[test]
    fn layers_are_grouped_and_other_parts_are_not() {
        let layers: Vec<String> = (0..36).map(|layer| format!("layer.{layer}")).collect();
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        let order = [&layers[..], &["norm", "layers.7", "layer.x"]].concat();
        let ran: Vec<Option<&str>> =
            [None].into_iter().chain(order.iter().rev().copied().map(Some)).collect();
        let names = |per_group| {
            let rows = profile(&order, &ran).layer_groups("layer", per_group);
            rows.into_iter().map(|row| row.part.unwrap_or("-".into())).collect::<Vec<_>>()
        };
        let six =
            ["layer.0-5", "layer.6-11", "layer.12-17", "layer.18-23", "layer.24-29", "layer.30-35"];
        assert_eq!(names(6), [&six[..], &["norm", "layers.7", "layer.x", "-"]].concat());
        assert_eq!(names(35)[..2], ["layer.0-34", "layer.35"]);
        assert_eq!(names(100)[0], "layer.0-35");
        assert_eq!(names(1), [&order[..], &["-"]].concat());
    }

    #[test]
    fn operators_that_overlap_leave_a_negative_residual() {
        let profile = OperatorProfile { run_total_ns: 1, ..profile(&[], &[None, None]) };
        assert_eq!(profile.residual_ns(), -2);
    }
}
