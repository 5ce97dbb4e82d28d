//! Reads the library's profile, a JSON array of events; only those of nodes and of runs are used.
//! Events of one thread are ordered by their ends, so the nodes of a run precede the run.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

/// Maximum number of events per session; the library drops later ones.
const MAX_EVENTS: u64 = 1_000_000;

/// Unit of the library's times, nanoseconds.
pub(super) const RESOLUTION_NS: u64 = 1_000;

/// Content of a profile, summed over complete runs.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Trace {
    /// Complete runs after the warm-up.
    pub(super) runs: u64,
    pub(super) run_total_ns: u64,
    /// Nodes in the order of their first execution.
    pub(super) nodes: Vec<TracedNode>,
    /// True if the library dropped events.
    pub(super) cut_short: bool,
}

/// Node of the library's graph in a profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TracedNode {
    /// Index of the node in the library's graph.
    pub(super) index: u64,
    /// Name; the library calls an unnamed node `{op_type}_{index}`.
    pub(super) name: String,
    pub(super) op_type: String,
    pub(super) count: u64,
    pub(super) total_ns: u64,
}

impl Trace {
    /// Reads a profile without its first `warm_up` runs. Fails if it is not a complete profile of a
    /// session; the message contains no file name.
    pub(super) fn read(file: impl Read, warm_up: u64) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_reader(file);
        let trace = json.deserialize_seq(Reader { warm_up })?;
        json.end()?;
        Ok(trace)
    }
}

#[derive(Deserialize)]
struct Event {
    cat: String,
    name: String,
    tid: u64,
    /// Duration in microseconds.
    dur: u64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Deserialize, Default)]
struct Arguments {
    op_name: Option<String>,
    node_index: Option<String>,
}

/// Sums events while they are read: the profile of a long measurement does not fit into memory.
struct Reader {
    warm_up: u64,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Trace;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<Trace, A::Error> {
        let mut sums = Sums { warm_up: self.warm_up, ..Sums::default() };
        let mut n_events = 0;
        let mut is_session = false;
        while let Some(event) = events.next_element::<Event>()? {
            n_events += 1;
            is_session |= event.cat == "Session";
            match (event.cat.as_str(), event.name.as_str()) {
                ("Node", _) => sums.node(event).map_err(A::Error::custom)?,
                ("Session", "model_run") => sums.run(&event),
                _ => {}
            }
        }
        if !is_session {
            return Err(A::Error::custom("no event of a session among its events"));
        }
        Ok(sums.trace(n_events >= MAX_EVENTS))
    }
}

#[derive(Default)]
struct Sums {
    warm_up: u64,
    /// Complete runs so far, warm-up included.
    seen: u64,
    run_total_us: u64,
    nodes: Vec<TracedNode>,
    /// Position in `nodes` by index of the library's graph.
    positions: BTreeMap<u64, usize>,
    /// Positions and times (microseconds) of nodes, by thread, in runs that have not ended yet.
    open: BTreeMap<u64, Vec<(usize, u64)>>,
}

impl Sums {
    fn node(&mut self, event: Event) -> Result<(), String> {
        // Waits for other devices have separate events and are not part of the node.
        let Some(name) = event.name.strip_suffix("_kernel_time") else { return Ok(()) };
        let missing = |what| format!("event of node {name:?} has no {what}");
        let op_type = event.args.op_name.ok_or_else(|| missing("operator (args.op_name)"))?;
        let index = event.args.node_index.and_then(|index| index.parse().ok());
        let index = index.ok_or_else(|| missing("number (args.node_index)"))?;
        let position = *self.positions.entry(index).or_insert(self.nodes.len());
        if position == self.nodes.len() {
            let name = name.to_owned();
            self.nodes.push(TracedNode { index, name, op_type, count: 0, total_ns: 0 });
        }
        self.open.entry(event.tid).or_default().push((position, event.dur));
        Ok(())
    }

    fn run(&mut self, event: &Event) {
        let nodes = self.open.remove(&event.tid).unwrap_or_default();
        self.seen += 1;
        if self.seen <= self.warm_up {
            return;
        }
        self.run_total_us += event.dur;
        for (position, us) in nodes {
            self.nodes[position].count += 1;
            self.nodes[position].total_ns += us * RESOLUTION_NS;
        }
    }

    fn trace(mut self, cut_short: bool) -> Trace {
        self.nodes.retain(|node| node.count > 0);
        Trace {
            runs: self.seen.saturating_sub(self.warm_up),
            run_total_ns: self.run_total_us * RESOLUTION_NS,
            nodes: self.nodes,
            cut_short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(thread: u64, index: u64, name: &str, us: u64) -> String {
        format!(
            r#"{{"cat":"Node","pid":1,"tid":{thread},"dur":{us},"ts":9,"ph":"X","name":"{name}_kernel_time",
            "args":{{"op_name":"Gemm","node_index":"{index}","input_type_shape":[{{"float":[2,3]}}]}}}}"#
        )
    }

    fn session(thread: u64, name: &str, us: u64) -> String {
        format!(
            r#"{{"cat":"Session","pid":1,"tid":{thread},"dur":{us},"ts":1,"ph":"X","name":"{name}","args":{{}}}}"#
        )
    }

    fn file(events: &[String]) -> String {
        format!("[\n{}\n]\n", events.join(",\n"))
    }

    fn two_runs() -> Vec<String> {
        vec![
            session(1, "session_initialization", 900),
            node(1, 0, "embed/gemm", 50),
            node(1, 7, "Cast_7", 5),
            session(1, "SequentialExecutor::Execute", 60),
            session(1, "model_run", 70),
            node(1, 0, "embed/gemm", 10),
            node(1, 7, "Cast_7", 2),
            session(1, "SequentialExecutor::Execute", 14),
            session(1, "model_run", 16),
        ]
    }

    fn read(text: &str, warm_up: u64) -> Result<Trace, String> {
        Trace::read(text.as_bytes(), warm_up).map_err(|error| error.to_string())
    }

    fn sums(trace: &Trace) -> Vec<(&str, u64, u64)> {
        trace.nodes.iter().map(|node| (node.name.as_str(), node.count, node.total_ns)).collect()
    }

    #[test]
    fn node_times_are_summed_without_warm_up() {
        let text = file(&two_runs());
        let all = read(&text, 0).unwrap();
        assert_eq!((all.runs, all.run_total_ns, all.cut_short), (2, 86_000, false));
        assert_eq!(sums(&all), [("embed/gemm", 2, 60_000), ("Cast_7", 2, 7_000)]);
        assert_eq!((all.nodes[1].index, all.nodes[1].op_type.as_str()), (7, "Gemm"));
        let warm = read(&text, 1).unwrap();
        assert_eq!((warm.runs, warm.run_total_ns), (1, 16_000));
        assert_eq!(sums(&warm), [("embed/gemm", 1, 10_000), ("Cast_7", 1, 2_000)]);
        let none = read(&text, 5).unwrap();
        assert_eq!((none.runs, none.run_total_ns, none.nodes.len()), (0, 0, 0));
    }

    #[test]
    fn run_without_an_end_is_not_counted() {
        let mut events = two_runs();
        events.pop();
        let trace = read(&file(&events), 0).unwrap();
        assert_eq!((trace.runs, sums(&trace)[0]), (1, ("embed/gemm", 1, 50_000)));
    }

    #[test]
    fn runs_of_two_threads_are_separated() {
        let events = [
            session(1, "session_initialization", 9),
            node(1, 0, "a/add", 3),
            node(2, 0, "a/add", 4),
            session(2, "model_run", 5),
            node(2, 0, "a/add", 100),
            session(1, "model_run", 6),
        ];
        let trace = read(&file(&events), 0).unwrap();
        assert_eq!((trace.runs, trace.run_total_ns), (2, 11_000));
        assert_eq!(sums(&trace), [("a/add", 2, 7_000)], "the third execution has no end");
        let second = read(&file(&events), 1).unwrap();
        assert_eq!(sums(&second), [("a/add", 1, 3_000)]);
    }

    #[test]
    fn waits_for_other_devices_are_not_counted() {
        let mut events = two_runs();
        let wait = node(1, 0, "embed/gemm", 1_000).replace("_kernel_time", "_fence_before");
        events.insert(1, wait);
        assert_eq!(sums(&read(&file(&events), 0).unwrap())[0], ("embed/gemm", 2, 60_000));
    }

    #[test]
    fn profile_truncated_at_any_length_is_refused() {
        let text = file(&two_runs());
        let complete = text.trim_end().len();
        for length in 0..complete {
            let error = read(&text[..length], 0).unwrap_err();
            assert!(error.contains("EOF"), "{length} of {complete} bytes: {error}");
        }
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let foreign = [
            ("{\"traceEvents\": []}", "expected an array of events"),
            ("[]", "no event of a session"),
            ("[{\"name\": \"x\"}]", "missing field `cat`"),
            ("[1, 2]", "invalid type: integer"),
            ("not JSON", "expected"),
            ("", "EOF"),
        ];
        for (text, wanted) in foreign {
            let error = read(text, 0).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
        let longer = format!("{} []", file(&two_runs()));
        assert!(read(&longer, 0).unwrap_err().contains("trailing"));
    }

    #[test]
    fn node_without_operator_or_index_is_refused_by_name() {
        for (key, wanted) in [("op_name", "args.op_name"), ("node_index", "args.node_index")] {
            let text = file(&two_runs()).replace(key, "other");
            let error = read(&text, 0).unwrap_err();
            assert!(error.contains(wanted) && error.contains("\"embed/gemm\""), "{error}");
        }
        let text = file(&two_runs()).replace("\"dur\":50", "\"dur\":\"long\"");
        assert!(read(&text, 0).unwrap_err().contains("line 3"));
    }

    #[test]
    fn full_profile_is_marked_as_cut_short() {
        let mut text = String::from("[");
        let run = [node(1, 0, "a/add", 1), session(1, "model_run", 2)].join(",");
        text.push_str(&run);
        for _ in 1..MAX_EVENTS / 2 {
            text.push(',');
            text.push_str(&run);
        }
        let full = read(&format!("{text}]"), 0).unwrap();
        assert!(full.cut_short && full.runs == MAX_EVENTS / 2);
    }
}
