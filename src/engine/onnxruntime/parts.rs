//! Which part of a network each node belongs to, once the library has fused, spelled out and put in
//! nodes of its own.
//!
//! The outermost scope of a node's name in our graph is its part. Of nodes that have lost their name, values tell:
//! those that a node makes carry the name of the node that made them in our graph, and what is
//! nameless altogether (a layout change, a constant's cast) belongs to where its results go.

use super::trace::TracedNode;
use std::collections::BTreeMap;
use tandem_export::onnx::NodeProto;

/// A node of the graph as the library runs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    /// Empty if it has none.
    name: String,
    op_type: String,
    part: Option<String>,
}

/// The parts of a network in its own order, from the graph that was exported.
pub(super) struct Parts(Vec<String>);

impl Parts {
    /// Of the nodes that the library is given.
    pub(super) fn of(nodes: &[NodeProto]) -> Self {
        let mut parts = Vec::new();
        for (scope, _) in nodes.iter().filter_map(|node| node.name.as_deref()?.split_once('/')) {
            if !parts.iter().any(|part| part == scope) {
                parts.push(scope.to_owned());
            }
        }
        Self(parts)
    }

    /// Their names.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// The part that a name says. The library puts words in front of the name of a node that it
    /// fuses: `fused layer.0/add`.
    fn named<'a>(&self, name: &'a str) -> Option<&'a str> {
        let scope = name.split_once('/')?.0;
        let last = scope.rsplit(' ').next().unwrap_or(scope);
        [scope, last].into_iter().find(|part| self.0.iter().any(|known| known == part))
    }
}

/// The library's nodes with their parts. A node goes
///
/// 1. by its own name,
/// 2. by the names of the values that it makes,
/// 3. where all readers of its values go,
/// 4. where the first of the nodes that it reads from goes.
pub(super) fn place(nodes: &[NodeProto], named: &Parts) -> Vec<Placed> {
    let maker: BTreeMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.output.iter().map(move |value| (value.as_str(), at)))
        .filter(|(value, _)| !value.is_empty())
        .collect();
    let made_by = |node: &NodeProto| -> Vec<usize> {
        node.input.iter().filter_map(|value| maker.get(value.as_str()).copied()).collect()
    };
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        made_by(node).into_iter().for_each(|from| readers[from].push(at));
    }
    let own = |node: &NodeProto| -> Option<String> {
        let name = node.name.iter().chain(&node.output).find_map(|name| named.named(name))?;
        Some(name.to_owned())
    };
    let mut parts: Vec<Option<String>> = nodes.iter().map(own).collect();
    // Readers stand behind makers: one pass from the end, one from the start, and one more for what
    // only a maker could tell about its reader.
    let ask_readers = |parts: &mut Vec<Option<String>>| {
        for at in (0..nodes.len()).rev() {
            if parts[at].is_none() {
                let first = readers[at].first().and_then(|&reader| parts[reader].clone());
                let agree = readers[at].iter().all(|&reader| parts[reader] == first);
                parts[at] = first.filter(|_| agree);
            }
        }
    };
    ask_readers(&mut parts);
    for at in 0..nodes.len() {
        if parts[at].is_none() {
            parts[at] = made_by(&nodes[at]).into_iter().find_map(|from| parts[from].clone());
        }
    }
    ask_readers(&mut parts);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    nodes
        .iter()
        .zip(parts)
        .map(|(node, part)| Placed { name: text(&node.name), op_type: text(&node.op_type), part })
        .collect()
}

/// The part of each traced node. The library runs nodes in the order of its graph; should it ever
/// not, nodes go by their names alone.
pub(super) fn parts_of(traced: &[TracedNode], placed: &[Placed]) -> Vec<Option<String>> {
    let same = |traced: &TracedNode, placed: &Placed| {
        traced.op_type == placed.op_type
            && match placed.name.as_str() {
                "" => traced.name == format!("{}_{}", traced.op_type, traced.index),
                name => traced.name == name,
            }
    };
    let in_order = traced.len() == placed.len()
        && traced.iter().zip(placed).all(|(traced, placed)| same(traced, placed));
    if in_order {
        return placed.iter().map(|placed| placed.part.clone()).collect();
    }
    let by_name: BTreeMap<&str, &Option<String>> =
        placed.iter().map(|placed| (placed.name.as_str(), &placed.part)).collect();
    traced
        .iter()
        .map(|node| by_name.get(node.name.as_str()).and_then(|part| (*part).clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: vec![],
        }
    }

    fn exported() -> Parts {
        let names = ["a/add", "b/gemm", "b/swish"];
        Parts::of(&names.map(|name| node("Any", name, &[], &[])))
    }

    fn parts(nodes: &[NodeProto]) -> Vec<String> {
        let placed = place(nodes, &exported());
        placed.into_iter().map(|placed| placed.part.unwrap_or("-".into())).collect()
    }

    #[test]
    fn a_name_says_its_part_fused_or_not_and_foreign_scopes_say_nothing() {
        let nodes = [
            node("Add", "a/add", &["x"], &["1"]),
            node("FusedMatMul", "fused b/gemm", &["y"], &["2"]),
            node("Add", "library/made this", &["z"], &["3"]),
            node("Add", "fused", &["z"], &["4"]),
        ];
        assert_eq!(parts(&nodes), ["a", "b", "-", "-"]);
    }

    #[test]
    fn the_nodes_of_a_function_belong_to_where_its_result_has_its_name() {
        let nodes = [
            node("Add", "a/add", &["x"], &["a/add"]),
            node("Cast", "", &["one"], &["inlined_alpha"]),
            node("Mul", "", &["inlined_alpha", "a/add"], &["inlined_1"]),
            node("Sigmoid", "", &["inlined_1"], &["inlined_2"]),
            node("Mul", "", &["a/add", "inlined_2"], &["b/swish"]),
        ];
        assert_eq!(parts(&nodes), ["a", "b", "b", "b", "b"]);
    }

    #[test]
    fn a_layout_change_goes_with_its_readers_or_else_with_its_maker() {
        let nodes = [
            node("Add", "a/add", &["x"], &["1"]),
            node("ReorderOutput", "ReorderOutput", &["1"], &["2"]),
            node("ReorderInput", "ReorderInput", &["2"], &["3"]),
            node("Gemm", "b/gemm", &["3"], &["4"]),
            node("Add", "a/add_2", &["2"], &["5"]),
            node("Transpose", "Transpose", &["4"], &["y"]),
        ];
        assert_eq!(parts(&nodes), ["a", "a", "b", "b", "a", "b"]);
    }

    #[test]
    fn what_touches_no_part_belongs_to_none() {
        assert_eq!(parts(&[node("Cast", "", &["x"], &["y"])]), ["-"]);
    }

    #[test]
    fn nameless_nodes_are_found_by_order_and_not_at_all_in_another_graph() {
        let nodes = [
            node("Cast", "", &["x"], &["1"]),
            node("Gemm", "b/gemm", &["1"], &["2"]),
            node("Add", "a/add", &["2"], &["3"]),
        ];
        let placed = place(&nodes, &exported());
        let traced = |index, op_type: &str, name: &str| {
            let (name, op_type) = (name.to_owned(), op_type.to_owned());
            TracedNode { index, name, op_type, count: 1, total_ns: 1 }
        };
        let mut run =
            [traced(9, "Cast", "Cast_9"), traced(1, "Gemm", "b/gemm"), traced(2, "Add", "a/add")];
        let found = |run: &[TracedNode]| {
            let parts = parts_of(run, &placed);
            parts.into_iter().map(|part| part.unwrap_or("-".into())).collect::<Vec<_>>()
        };
        assert_eq!(found(&run), ["b", "b", "a"]);
        run.swap(0, 2);
        assert_eq!(found(&run), ["a", "b", "-"], "another order: names alone");
        run.swap(0, 2);
        run[0].name = "Cast_8".into();
        assert_eq!(found(&run), ["-", "b", "a"], "the number is not that of the node");
        assert_eq!(found(&run[1..]), ["b", "a"], "another length");
    }
}
