//! Inspection of a loaded engine.

use super::build::{no_device, reason};
use super::monitor::Messages;
use super::open::TensorRt;
use crate::engine::LoadError;
use trtx::{LayerInformationFormat, Logger, Runtime};

impl TensorRt {
    /// Loads an engine onto the GPU of this machine and returns the library's description of its
    /// layers, as JSON. Fails if the machine has no GPU, or `engine` is not an engine for it.
    pub fn inspect(&self, network: &str, engine: &[u8]) -> Result<String, LoadError> {
        let messages = Messages::default();
        let refused = |error: trtx::Error| {
            let (library, network) = (self.name(), network.to_owned());
            let errors = messages.errors();
            if let Some(reason) = no_device(&errors) {
                return LoadError::NoDevice { library, network, reason };
            }
            let reason = reason(&errors);
            let reason = if reason.is_empty() { error.to_string() } else { reason };
            LoadError::Refused { library, network, reason }
        };
        let logger = Logger::new(messages.clone()).map_err(refused)?;
        let mut runtime = Runtime::new(&logger).map_err(refused)?;
        let engine = runtime.deserialize_cuda_engine(engine).map_err(refused)?;
        let inspector = engine.create_engine_inspector().map_err(refused)?;
        inspector.engine_information(LayerInformationFormat::kJSON).map_err(refused)
    }
}
