//! Random weights whose activations stay of order one through any depth.

use crate::automot::checkpoint::expected::{Expected, Role};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Batches that a written batch norm claims to have seen.
pub(super) const BATCHES_TRACKED: i64 = 1000;

/// An endless source of one tensor's values.
pub(super) struct Values {
    generator: StdRng,
    center: f32,
    spread: f32,
}

impl Values {
    /// The values of a tensor: a function of the seed and the tensor's name alone, so that neither
    /// order nor other tensors matter.
    pub(super) fn new(seed: u64, tensor: &Expected) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(tensor.name.as_bytes());
        let generator = StdRng::from_seed(hash.finalize().into());

        let inputs: usize = tensor.shape.iter().skip(1).product();
        let (center, deviation) = match tensor.role {
            // Keeps the variance of its input.
            Role::Weight => (0.0, (inputs as f32).recip().sqrt()),
            // All branches together add about as much as the stream had.
            Role::ResidualWeight { branches } => {
                (0.0, ((inputs * branches.max(1)) as f32).recip().sqrt())
            }
            Role::Bias | Role::Shift | Role::Mean => (0.0, 0.05),
            Role::Gain => (1.0, 0.1),
            Role::ResidualGain => (0.3, 0.03),
            // A ReLU before the convolution halves the mean square of its input, and the
            // normalization by this variance makes up for it.
            Role::Variance => (0.5, 0.05),
            Role::Table => (0.0, 0.5),
            Role::Counter => (BATCHES_TRACKED as f32, 0.0),
        };
        // A uniform distribution over ±√3 deviations: a fifth of the cost of a normal one, and no
        // tail that a half-precision type could not hold.
        Self { generator, center, spread: deviation * 3.0_f32.sqrt() }
    }

    /// The next value.
    pub(super) fn draw(&mut self) -> f32 {
        self.center + self.spread * (2.0 * self.generator.random::<f32>() - 1.0)
    }
}
