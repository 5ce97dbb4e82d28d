//! First runs of an engine, before the first tick.

use super::{Engine, SessionRunError};
use crate::tensor::{HostTensor, TensorView, TensorViewMut};
use std::sync::Arc;
use tandem_export::contract::TensorSpec;

/// Runs until a library's memory is stable: ONNX Runtime plans its memory blocks in the first run and
/// allocates them in the second.
const RUNS: usize = 2;

/// Runs `engine` on zeros until its library has allocated and touched the memory of a run. Fails if
/// the library fails.
pub fn warm_up(engine: &Arc<dyn Engine>) -> Result<(), SessionRunError> {
    let zeros = |specs: &[TensorSpec]| -> Vec<HostTensor> {
        specs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape)).collect()
    };
    let contract = engine.contract();
    let (inputs, mut outputs) = (zeros(&contract.inputs), zeros(&contract.outputs));
    let inputs: Vec<TensorView<'_>> = inputs.iter().map(HostTensor::view).collect();
    let mut outputs: Vec<TensorViewMut<'_>> =
        outputs.iter_mut().map(HostTensor::view_mut).collect();
    let mut session = Arc::clone(engine).session();
    (0..RUNS).try_for_each(|_| session.run(&inputs, &mut outputs))
}
