//! Attributes the nodes of an optimized graph, which the library fused, expanded or inserted, to the
//! parts of the exported network.
//!
//! The outermost scope of a node's name in the exported graph is its part. A node without such a name
//! is attributed by the names of its outputs, which contain the name of the exported node that produced
//! them. Other nodes, such as layout changes or casts of constants, belong to the part that reads their
//! results.

use super::trace::TracedNode;
use std::collections::BTreeMap;
use tandem_export::onnx::NodeProto;

/// Node of the optimized graph with the part that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AttributedNode {
    /// Empty for nodes without a name.
    name: String,
    op_type: String,
    part: Option<String>,
}

/// Parts of a network, in the order of the exported graph.
pub(super) struct Parts(Vec<String>);

impl Parts {
    /// Lists the parts of the exported nodes.
    pub(super) fn of(nodes: &[NodeProto]) -> Self {
        let mut parts = Vec::new();
        for (scope, _) in nodes.iter().filter_map(|node| node.name.as_deref()?.split_once('/')) {
            if !parts.iter().any(|part| part == scope) {
                parts.push(scope.to_owned());
            }
        }
        Self(parts)
    }

    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the part in a name. The library prefixes names of fused nodes: `fused layer.0/add`.
    fn named<'a>(&self, name: &'a str) -> Option<&'a str> {
        let scope = name.split_once('/')?.0;
        let last = scope.rsplit(' ').next().unwrap_or(scope);
        [scope, last].into_iter().find(|part| self.0.iter().any(|known| known == part))
    }
}

/// Attributes the nodes of the optimized graph to parts, by the first of these rules that applies:
///
/// 1. the name of the node,
/// 2. the names of its outputs,
/// 3. the part that all readers of its outputs have in common,
/// 4. the part of the first node that produces one of its inputs.
pub(super) fn attribute(nodes: &[NodeProto], named: &Parts) -> Vec<AttributedNode> {
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
    // Nodes are in topological order: one pass from the end for rule 3, one from the start for rule 4,
    // and one more for nodes whose readers were attributed by rule 4.
    let attribute_by_readers = |parts: &mut Vec<Option<String>>| {
        for at in (0..nodes.len()).rev() {
            if parts[at].is_none() {
                let first = readers[at].first().and_then(|&reader| parts[reader].clone());
                let agree = readers[at].iter().all(|&reader| parts[reader] == first);
                parts[at] = first.filter(|_| agree);
            }
        }
    };
    attribute_by_readers(&mut parts);
    for at in 0..nodes.len() {
        if parts[at].is_none() {
            parts[at] = made_by(&nodes[at]).into_iter().find_map(|from| parts[from].clone());
        }
    }
    attribute_by_readers(&mut parts);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    nodes
        .iter()
        .zip(parts)
        .map(|(node, part)| AttributedNode {
            name: text(&node.name),
            op_type: text(&node.op_type),
            part,
        })
        .collect()
}

/// Returns the part of each traced node. The library runs nodes in the order of its graph; if a trace
/// has another order, nodes are matched by name only.
pub(super) fn parts_of(traced: &[TracedNode], nodes: &[AttributedNode]) -> Vec<Option<String>> {
    let same = |traced: &TracedNode, node: &AttributedNode| {
        traced.op_type == node.op_type
            && match node.name.as_str() {
                "" => traced.name == format!("{}_{}", traced.op_type, traced.index),
                name => traced.name == name,
            }
    };
    let in_order = traced.len() == nodes.len()
        && traced.iter().zip(nodes).all(|(traced, node)| same(traced, node));
    if in_order {
        return nodes.iter().map(|node| node.part.clone()).collect();
    }
    let by_name: BTreeMap<&str, &Option<String>> =
        nodes.iter().map(|node| (node.name.as_str(), &node.part)).collect();
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
        let attributed = attribute(nodes, &exported());
        attributed.into_iter().map(|node| node.part.unwrap_or("-".into())).collect()
    }

    #[test]
    fn names_of_nodes_and_fused_nodes_give_the_part() {
        let nodes = [
            node("Add", "a/add", &["x"], &["1"]),
            node("FusedMatMul", "fused b/gemm", &["y"], &["2"]),
            node("Add", "library/made this", &["z"], &["3"]),
            node("Add", "fused", &["z"], &["4"]),
        ];
        assert_eq!(parts(&nodes), ["a", "b", "-", "-"]);
    }

    #[test]
    fn inlined_function_belongs_to_the_part_of_its_result() {
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
    fn layout_change_belongs_to_its_readers_or_its_producer() {
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
    fn node_without_neighbors_in_a_part_has_none() {
        assert_eq!(parts(&[node("Cast", "", &["x"], &["y"])]), ["-"]);
    }

    #[test]
    fn unnamed_nodes_are_matched_only_in_graph_order() {
        let nodes = [
            node("Cast", "", &["x"], &["1"]),
            node("Gemm", "b/gemm", &["1"], &["2"]),
            node("Add", "a/add", &["2"], &["3"]),
        ];
        let attributed = attribute(&nodes, &exported());
        let traced = |index, op_type: &str, name: &str| {
            let (name, op_type) = (name.to_owned(), op_type.to_owned());
            TracedNode { index, name, op_type, count: 1, total_ns: 1 }
        };
        let mut run =
            [traced(9, "Cast", "Cast_9"), traced(1, "Gemm", "b/gemm"), traced(2, "Add", "a/add")];
        let found = |run: &[TracedNode]| {
            let parts = parts_of(run, &attributed);
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
