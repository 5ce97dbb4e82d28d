//! Parses the builder's list of an engine's layers.

use crate::engine::{Layer, LayerTensor};

/// Start of the log message that lists layers.
pub(super) const HEAD: &str = "Layers:";

/// Parses a list with one line per layer, up to the first other line. `None` if a line does not have
/// the format of this library version.
pub(super) fn read(listing: &str) -> Option<Vec<Layer>> {
    let lines = listing.strip_prefix(HEAD)?.trim_start_matches('\n').lines();
    lines.take_while(|line| line.starts_with("Name: ")).map(layer).collect()
}

fn layer(line: &str) -> Option<Layer> {
    let (name, rest) = line.strip_prefix("Name: ")?.split_once(", LayerType: ")?;
    let (kind, rest) = rest.split_once(", Inputs: [")?;
    let (inputs, rest) = rest.split_once("], Constants: [")?;
    let (constants, rest) = rest.split_once("], Outputs: [")?;
    let (outputs, rest) = rest.split_once("], TacticName: ")?;
    let (kernel, rest) = rest.split_once(", StreamId: ")?;
    let (_, nodes) = rest.split_once("Metadata: ")?;
    Some(Layer {
        name: name.to_owned(),
        kind: kind.to_owned(),
        kernel: kernel.to_owned(),
        inputs: tensors(inputs)?,
        constants: tensors(constants)?,
        outputs: tensors(outputs)?,
        nodes: nodes
            .split("[ONNX Layer: ")
            .skip(1)
            .filter_map(|node| Some(node.rsplit_once(']')?.0.to_owned()))
            .collect(),
    })
}

fn tensors(text: &str) -> Option<Vec<LayerTensor>> {
    text.split("{ Name: ").skip(1).map(tensor).collect()
}

fn tensor(text: &str) -> Option<LayerTensor> {
    let (name, rest) = text.split_once(", Dimensions: [")?;
    let (shape, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once("Datatype: ")?;
    let (dtype, _) = rest.split_once(", Format")?;
    let extents = shape.split(',').filter(|extent| !extent.is_empty());
    let shape = extents.map(|extent| extent.trim().parse().ok()).collect::<Option<_>>()?;
    Some(LayerTensor { name: name.to_owned(), dtype: dtype_name(dtype), shape })
}

/// Converts the library's name of an element type to tandem's; unknown names become lower case.
fn dtype_name(dtype: &str) -> String {
    match dtype {
        "Float" => "f32".into(),
        "Half" => "f16".into(),
        "BFloat16" => "bf16".into(),
        "Int64" => "i64".into(),
        "Int32" => "i32".into(),
        "Int8" => "i8".into(),
        "UInt8" => "u8".into(),
        other => other.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSOR: &str = "Strides: [8,1], StrideOrder: [1,0], Datatype: BFloat16, Format: (Linear)";

    #[test]
    fn each_line_is_parsed_as_a_layer() {
        let text = format!(
            "Layers:\nName: a+b_myl0_1, LayerType: gemm, Inputs: [ {{ Name: x, Dimensions: [3,8], \
             {TENSOR} }}, {{ Name: y, Dimensions: [], {TENSOR} }}], Constants: [], Outputs: [ {{ Name: \
             z, Dimensions: [3,4], Datatype: Float, Format: f }}], TacticName: , StreamId: 0, \
             EventId: 5, Metadata: [ONNX Layer: layer.0/a][ONNX Layer: layer.0/b]\nName: s, \
             LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, \
             Metadata: \n\nI/O Tensors:\n Name: x"
        );
        let layers = read(&text).unwrap();
        let [gemm, wait] = &layers[..] else { panic!("{layers:?}") };
        assert_eq!((gemm.name.as_str(), gemm.kind.as_str()), ("a+b_myl0_1", "gemm"));
        assert_eq!(gemm.nodes, ["layer.0/a", "layer.0/b"]);
        assert_eq!((gemm.inputs[0].shape.as_slice(), gemm.inputs[0].elements()), (&[3, 8][..], 24));
        assert_eq!((gemm.inputs[1].dtype.as_str(), gemm.inputs[1].elements()), ("bf16", 1));
        assert_eq!(gemm.outputs[0].dtype, "f32");
        assert!(gemm.is_launch() && !wait.is_launch() && wait.nodes.is_empty());
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(read("Layers:\nName: a, LayerType: gemm"), None);
        assert_eq!(read("Name: a"), None);
        assert_eq!(read("Layers:\n"), Some(vec![]));
    }
}
