//! Random weights with activations of order one at any depth.

use crate::automot::checkpoint::expected::{Expected, Role};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Value of `num_batches_tracked`.
pub(super) const BATCHES_TRACKED: i64 = 1000;

/// Random generator of the values of one tensor.
pub(super) struct Values {
    generator: StdRng,
    center: f32,
    spread: f32,
}

impl Values {
    /// Creates the generator of a tensor. The values are a function of the seed and the tensor's name,
    /// independent of the order and of other tensors.
    pub(super) fn new(seed: u64, tensor: &Expected) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(tensor.name.as_bytes());
        let generator = StdRng::from_seed(hash.finalize().into());

        let inputs: usize = tensor.shape.iter().skip(1).product();
        let (center, deviation) = match tensor.role {
            // Preserves the variance of the input.
            Role::Weight => (0.0, (inputs as f32).recip().sqrt()),
            // The sum of all branches has about the variance of the stream.
            Role::ResidualWeight { branches } => {
                (0.0, ((inputs * branches.max(1)) as f32).recip().sqrt())
            }
            Role::Bias | Role::Shift | Role::Mean => (0.0, 0.05),
            Role::Gain => (1.0, 0.1),
            Role::ResidualGain => (0.3, 0.03),
            // A ReLU before the convolution halves the mean square of its input. Normalizing by this
            // variance compensates for it.
            Role::Variance => (0.5, 0.05),
            Role::Table => (0.0, 0.5),
            Role::Counter => (BATCHES_TRACKED as f32, 0.0),
        };
        // A uniform distribution over ±√3 deviations: a fifth of the cost of a normal distribution,
        // and without a tail that overflows a half-precision type.
        Self { generator, center, spread: deviation * 3.0_f32.sqrt() }
    }

    /// Samples the next value of the tensor.
    pub(super) fn sample(&mut self) -> f32 {
        self.center + self.spread * (2.0 * self.generator.random::<f32>() - 1.0)
    }
}
