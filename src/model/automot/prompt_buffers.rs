//! Device buffers for the inputs of the understanding network.

use super::networks::{self, input};
use crate::device::{Device, DeviceError, DeviceTensor, DeviceView, StagedTensor, Stream};
use tandem_export::automot::names::understanding as names;
use tandem_export::contract::{Contract, TensorSpec};

/// Marks on the slow stream: before and after a run.
pub(super) const MARKS: usize = 2;

/// Inputs of the understanding network, in the order of its contract.
pub(super) struct Prompt {
    pub(super) token_ids: StagedTensor,
    pub(super) image_slot: StagedTensor,
    pub(super) position_ids: StagedTensor,
    pub(super) visible_until: StagedTensor,
    pub(super) image_tokens: DeviceTensor,
    pub(super) deepstack: DeviceTensor,
}

impl Prompt {
    /// Allocates the inputs of the first layer group.
    pub(super) fn new(device: &dyn Device, contract: &Contract) -> Result<Self, DeviceError> {
        let staged = |name| {
            let spec = input(contract, name);
            StagedTensor::zeros(device, spec.dtype, &spec.shape)
        };
        Ok(Self {
            token_ids: staged(names::TOKEN_IDS)?,
            image_slot: staged(names::IMAGE_SLOT)?,
            position_ids: staged(names::POSITION_IDS)?,
            visible_until: staged(names::VISIBLE_UNTIL)?,
            image_tokens: zeros(device, input(contract, names::IMAGE_TOKENS))?,
            deepstack: zeros(device, input(contract, names::DEEPSTACK))?,
        })
    }

    pub(super) fn views(&self) -> [DeviceView<'_>; networks::understanding::INPUTS.len()] {
        [
            self.token_ids.view(),
            self.image_slot.view(),
            self.position_ids.view(),
            self.visible_until.view(),
            self.image_tokens.view(),
            self.deepstack.view(),
        ]
    }

    /// Uploads the inputs that the host writes.
    pub(super) fn upload(&self, stream: &dyn Stream) -> Result<(), DeviceError> {
        [&self.token_ids, &self.image_slot, &self.position_ids, &self.visible_until]
            .into_iter()
            .try_for_each(|tensor| stream.upload(tensor.staged()))
    }
}

/// Allocates a tensor of zeros.
pub(super) fn zeros(device: &dyn Device, spec: &TensorSpec) -> Result<DeviceTensor, DeviceError> {
    DeviceTensor::zeros(device, spec.dtype, &spec.shape)
}
