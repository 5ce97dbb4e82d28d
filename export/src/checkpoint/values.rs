//! Reads weights as numbers.

use super::{CheckpointError, TensorEntry, Tensors, Warning};
use crate::dtype::DType;
use half::{bf16, f16};

impl Tensors {
    /// Reads a floating-point tensor as f32. Fails if the tensor does not exist
    /// or is not f32, f16 or bf16.
    pub fn values_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let entry = self.tensor(name)?;
        let values = floats(self.bytes(entry), entry.dtype);
        Ok(values
            .ok_or_else(|| CheckpointError::WrongDType {
                path: self.files[entry.file].clone(),
                tensor: name.to_owned(),
                found: entry.dtype.to_string(),
            })?
            .collect())
    }

    /// True if two tensors have the same shape and the same values. Their types may differ.
    pub(crate) fn has_same_values(&self, a: &TensorEntry, b: &TensorEntry) -> bool {
        if a.shape != b.shape {
            return false;
        }
        let (a_bytes, b_bytes) = (self.bytes(a), self.bytes(b));
        if a.dtype == b.dtype {
            return a_bytes == b_bytes;
        }
        match (floats(a_bytes, a.dtype), floats(b_bytes, b.dtype)) {
            (Some(a), Some(b)) => a.eq(b),
            _ => false,
        }
    }

    /// Reads every floating-point weight and reports each tensor that contains NaN or infinity.
    ///
    /// Reads the complete checkpoint from disk. After each tensor, `progress` receives the number of
    /// bytes that are read, and their total.
    pub fn scan_values(&self, mut progress: impl FnMut(u64, u64)) -> Vec<Warning> {
        let total_bytes: u64 = self.tensors.values().map(|entry| entry.length).sum();
        let mut done_bytes = 0;
        let mut warnings = Vec::new();
        for (name, entry) in &self.tensors {
            let count = self.count_non_finite(entry);
            if count > 0 {
                warnings.push(Warning::NonFinite {
                    tensor: name.clone(),
                    count,
                    total: entry.length / entry.dtype.size() as u64,
                });
            }
            done_bytes += entry.length;
            progress(done_bytes, total_bytes);
        }
        warnings
    }

    /// Counts the values with all exponent bits set: NaN and infinity.
    fn count_non_finite(&self, entry: &TensorEntry) -> u64 {
        fn count_half(bytes: &[u8], exponent: u16) -> u64 {
            numbers(bytes, u16::from_le_bytes).filter(|raw| raw & exponent == exponent).count()
                as u64
        }
        let bytes = self.bytes(entry);
        match entry.dtype {
            DType::F32 => {
                numbers(bytes, f32::from_le_bytes).filter(|value| !value.is_finite()).count() as u64
            }
            DType::F16 => count_half(bytes, 0x7c00),
            DType::Bf16 => count_half(bytes, 0x7f80),
            DType::I64 | DType::U8 | DType::Bool => 0,
        }
    }
}

/// Iterates over the values of a floating-point tensor; `None` for another type.
fn floats(bytes: &[u8], dtype: DType) -> Option<Box<dyn Iterator<Item = f32> + '_>> {
    Some(match dtype {
        DType::F32 => Box::new(numbers(bytes, f32::from_le_bytes)),
        DType::F16 => Box::new(numbers(bytes, |raw| f16::from_le_bytes(raw).to_f32())),
        DType::Bf16 => Box::new(numbers(bytes, |raw| bf16::from_le_bytes(raw).to_f32())),
        DType::I64 | DType::U8 | DType::Bool => return None,
    })
}

/// Iterates over the numbers in unaligned little-endian bytes.
fn numbers<const SIZE: usize, T>(
    bytes: &[u8],
    read: impl Fn([u8; SIZE]) -> T,
) -> impl Iterator<Item = T> {
    // The header check ensures that the length is a multiple of `SIZE`.
    bytes.as_chunks::<SIZE>().0.iter().map(move |raw| read(*raw))
}
