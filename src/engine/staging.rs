//! Runs on host tensors, copied to and from a device: for validation and measurements, not in a tick.

use super::SessionRunError;
use super::contract_check::check_tensors;
use crate::device::{Device, DeviceError, DeviceView, DeviceViewMut, StagedTensor, Stream};
use crate::tensor::{TensorView, TensorViewMut};
use tandem_export::contract::{Contract, TensorSpec};

/// Device and host copies of every tensor of a network.
pub(super) struct Staging {
    inputs: Vec<StagedTensor>,
    outputs: Vec<StagedTensor>,
}

impl Staging {
    /// Allocates the tensors, filled with zeros.
    pub(super) fn new(device: &dyn Device, contract: &Contract) -> Result<Self, DeviceError> {
        let staged = |specs: &[TensorSpec]| {
            let staged = |spec: &TensorSpec| StagedTensor::zeros(device, spec.dtype, &spec.shape);
            specs.iter().map(staged).collect::<Result<_, _>>()
        };
        Ok(Self { inputs: staged(&contract.inputs)?, outputs: staged(&contract.outputs)? })
    }

    /// Uploads the inputs, calls `enqueue` to enqueue one run, downloads the outputs and waits for
    /// them. These tensors belong to this object alone, so no other work uses them.
    pub(super) fn run(
        &mut self,
        stream: &dyn Stream,
        contract: &Contract,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        enqueue: impl FnOnce(&[DeviceView<'_>], &[DeviceViewMut<'_>]) -> Result<(), SessionRunError>,
    ) -> Result<(), SessionRunError> {
        check_tensors(contract, inputs, outputs)?;
        let failed = |source| SessionRunError::Device { network: contract.network.clone(), source };
        for (staged, view) in self.inputs.iter_mut().zip(inputs) {
            staged.bytes_mut().copy_from_slice(view.bytes);
        }
        let uploaded = self.inputs.iter().try_for_each(|staged| stream.upload(staged.staged()));
        let reads: Vec<DeviceView<'_>> = self.inputs.iter().map(StagedTensor::view).collect();
        let writes: Vec<DeviceViewMut<'_>> =
            self.outputs.iter_mut().map(StagedTensor::view_mut).collect();
        let ran = uploaded.map_err(failed).and_then(|()| enqueue(&reads, &writes));
        let downloaded =
            self.outputs.iter().try_for_each(|staged| stream.download(staged.staged()));
        // Waits even if enqueuing failed: the next run writes these tensors again.
        let waited = stream.synchronize();
        ran?;
        downloaded.and(waited).map_err(failed)?;
        for (staged, view) in self.outputs.iter().zip(outputs) {
            view.bytes.copy_from_slice(&staged.bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Counter, Emulation, HostDevice};
    use crate::tensor::{DType, HostTensor};

    fn contract() -> Contract {
        let tensor = |name: &str| TensorSpec {
            name: name.to_owned(),
            dtype: DType::F32,
            shape: vec![2, 3],
            meaning: String::new(),
        };
        Contract {
            format: 0,
            network: "copy".to_owned(),
            model: String::new(),
            inputs: vec![tensor("in")],
            outputs: vec![tensor("out")],
            sizes: [].into(),
            numbers: [].into(),
            graph_sha256: String::new(),
        }
    }

    #[test]
    fn outputs_return_and_a_failed_enqueue_leaves_no_pending_copy() {
        let (device, contract) = (HostDevice::emulating(Emulation::default()), contract());
        let stream = device.streams(None).unwrap().fast;
        let mut staging = Staging::new(&device, &contract).unwrap();
        let mut into = HostTensor::zeros(DType::F32, &[2, 3]);
        for round in 1..4 {
            let from = HostTensor::from_slice(&[2, 3], &[round as f32; 6]);
            let ran = staging.run(
                &*stream,
                &contract,
                &[from.view()],
                &mut [into.view_mut()],
                |inputs, outputs| {
                    stream.copy(inputs[0].buffer, outputs[0].buffer).unwrap();
                    if round == 2 {
                        let network = contract.network.clone();
                        return Err(SessionRunError::Library {
                            network,
                            reason: "refused".to_owned(),
                        });
                    }
                    Ok(())
                },
            );
            assert_eq!(ran.is_err(), round == 2);
            let expected = if round == 2 { 1 } else { round };
            assert_eq!(into.as_slice::<f32>(), [expected as f32; 6], "untouched by a refusal");
        }
        assert_eq!(device.counts()[Counter::HostWaits], 3);
        let short = HostTensor::zeros(DType::F32, &[2, 2]);
        let ran = staging.run(
            &*stream,
            &contract,
            &[short.view()],
            &mut [into.view_mut()],
            |_, _| Ok(()),
        );
        assert!(matches!(ran, Err(SessionRunError::Tensor { .. })));
    }
}
