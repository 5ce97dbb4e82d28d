//! Tensors held against a contract.

use super::RunError;
use crate::device::{Buffer, DeviceView, DeviceViewMut};
use crate::tensor::DType;
#[cfg(any(feature = "cuda", test))]
use crate::tensor::{TensorView, TensorViewMut};
use tandem_export::contract::{Contract, TensorSpec};

/// The memory of all tensors, inputs first.
pub(super) fn buffers_of<'a>(
    inputs: &'a [DeviceView<'_>],
    outputs: &'a [DeviceViewMut<'_>],
) -> impl Iterator<Item = &'a Buffer> {
    inputs.iter().map(|view| view.buffer).chain(outputs.iter().map(|view| view.buffer))
}

/// Holds tensors of a device against the contract.
pub(super) fn agree_all(
    contract: &Contract,
    inputs: &[DeviceView<'_>],
    outputs: &[DeviceViewMut<'_>],
) -> Result<(), RunError> {
    let network = &contract.network;
    count(network, "input", contract.inputs.len(), inputs.len())?;
    count(network, "output", contract.outputs.len(), outputs.len())?;
    for (spec, view) in contract.inputs.iter().zip(inputs) {
        agree(network, "input", spec, (view.dtype, view.shape, view.buffer.bytes()))?;
    }
    for (spec, view) in contract.outputs.iter().zip(outputs) {
        agree(network, "output", spec, (view.dtype, view.shape, view.buffer.bytes()))?;
    }
    Ok(())
}

/// Holds tensors of the host against the contract.
#[cfg(any(feature = "cuda", test))]
pub(super) fn agree_on_host(
    contract: &Contract,
    inputs: &[TensorView<'_>],
    outputs: &[TensorViewMut<'_>],
) -> Result<(), RunError> {
    let network = &contract.network;
    count(network, "input", contract.inputs.len(), inputs.len())?;
    count(network, "output", contract.outputs.len(), outputs.len())?;
    for (spec, view) in contract.inputs.iter().zip(inputs) {
        agree(network, "input", spec, (view.dtype, view.shape, view.bytes.len()))?;
    }
    for (spec, view) in contract.outputs.iter().zip(outputs) {
        agree(network, "output", spec, (view.dtype, view.shape, view.bytes.len()))?;
    }
    Ok(())
}

/// Holds a number of tensors against the contract's.
pub(super) fn count(
    network: &str,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), RunError> {
    if expected == found {
        return Ok(());
    }
    Err(RunError::Count { network: network.to_owned(), what, expected, found })
}

/// Holds one tensor's type, shape and length against the contract's.
///
/// # Panics
/// If the length is not what type and shape make.
pub(super) fn agree(
    network: &str,
    what: &'static str,
    spec: &TensorSpec,
    (dtype, shape, bytes): (DType, &[usize], usize),
) -> Result<(), RunError> {
    if spec.dtype == dtype && spec.shape == shape {
        let expected = shape.iter().product::<usize>() * dtype.size();
        assert_eq!(bytes, expected, "a view of {what} {:?} lies about its length", spec.name);
        return Ok(());
    }
    Err(RunError::Tensor {
        network: network.to_owned(),
        what,
        name: spec.name.clone(),
        expected_dtype: spec.dtype,
        expected_shape: spec.shape.clone(),
        found_dtype: dtype,
        found_shape: shape.to_vec(),
    })
}
