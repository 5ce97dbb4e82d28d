//! The file of converted weights, folded constants and copied weights.

use super::placement::Placement;
use super::staging::Staging;
use super::{ExportError, Progress, WEIGHTS_FILE, writing};
use crate::checkpoint::{TensorEntry, Tensors};
use crate::dtype::DType;
use crate::graph::{Initializer, Network, Source, Stored, encode, round_bf16};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

/// Alignment of tensors in [`WEIGHTS_FILE`], bytes.
const ALIGNMENT: u64 = 64;

/// Elements converted at a time.
const CHUNK: usize = 1 << 18;

/// Layout of the weights file.
pub(super) struct WeightsPlan<'a> {
    items: Vec<Item<'a>>,
    /// Offsets of converted and copied tensors, by source and target type.
    pub(super) converted: BTreeMap<(Stored, DType), u64>,
    /// Offsets of folded and scaled tensors, by network and name.
    pub(super) folded: BTreeMap<(&'a str, &'a str), u64>,
    /// Total size of the weights file, bytes.
    pub(super) total: u64,
}

struct Item<'a> {
    offset: u64,
    initializer: &'a Initializer,
}

impl<'a> WeightsPlan<'a> {
    /// Plans the file. A tensor that two networks convert to the same type is stored once.
    /// Stored tensors are copied if the placement requires it or their offset is not a
    /// multiple of their element size.
    pub(super) fn of(networks: &'a [Network], placement: Placement) -> Self {
        let copies_stored = placement == Placement::Copied;
        let mut plan = Self {
            items: Vec::new(),
            converted: BTreeMap::new(),
            folded: BTreeMap::new(),
            total: 0,
        };
        for network in networks {
            for initializer in &network.initializers {
                let offset = plan.total.next_multiple_of(ALIGNMENT);
                match &initializer.source {
                    Source::Stored(stored)
                        if !copies_stored
                            && stored.offset.is_multiple_of(initializer.dtype.size() as u64) =>
                    {
                        continue;
                    }
                    Source::Stored(stored)
                    | Source::Converted(stored, _)
                    | Source::Rounded(stored, _) => {
                        let key = (*stored, initializer.dtype);
                        if plan.converted.contains_key(&key) {
                            continue;
                        }
                        plan.converted.insert(key, offset);
                    }
                    Source::Scaled(_) | Source::Folded(_) => {
                        plan.folded.insert((&network.name, &initializer.name), offset);
                    }
                    Source::Inline(_) => continue,
                }
                plan.total = offset + byte_length(initializer);
                plan.items.push(Item { offset, initializer });
            }
        }
        plan
    }

    /// Writes the weights file to the temporary folder.
    pub(super) fn write(
        &self,
        checkpoint: &Tensors,
        staging: &Staging<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ExportError> {
        let (file, path) = (staging.create(WEIGHTS_FILE)?, &staging.place_of(WEIGHTS_FILE));
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut written = 0;
        for Item { offset, initializer } in &self.items {
            let gap = [0; ALIGNMENT as usize];
            let gap = &gap[..(offset - written) as usize];
            out.write_all(gap).map_err(writing(path))?;
            match &initializer.source {
                Source::Converted(stored, from) => {
                    let bytes = stored_bytes(checkpoint, stored, *from);
                    for chunk in bytes.chunks(CHUNK * from.size()) {
                        let values = decode(chunk, *from);
                        in_range(&values, initializer)?;
                        let chunk = encode(&values, initializer.dtype);
                        out.write_all(&chunk).map_err(writing(path))?;
                    }
                }
                Source::Rounded(stored, from) => {
                    let bytes = stored_bytes(checkpoint, stored, *from);
                    for chunk in bytes.chunks(CHUNK * from.size()) {
                        let values = decode(chunk, *from).into_iter().map(round_bf16);
                        let chunk = encode(&values.collect::<Vec<_>>(), initializer.dtype);
                        out.write_all(&chunk).map_err(writing(path))?;
                    }
                }
                Source::Scaled(scaled) => {
                    let bytes = stored_bytes(checkpoint, &scaled.stored, scaled.from);
                    for (row, factor) in scaled.rows(bytes) {
                        let values = scaled.times(&decode(row, scaled.from), factor);
                        in_range(&values, initializer)?;
                        let row = encode(&values, initializer.dtype);
                        out.write_all(&row).map_err(writing(path))?;
                    }
                }
                Source::Stored(stored) => {
                    let bytes = stored_bytes(checkpoint, stored, initializer.dtype);
                    out.write_all(bytes).map_err(writing(path))?;
                }
                Source::Folded(bytes) => out.write_all(bytes).map_err(writing(path))?,
                Source::Inline(_) => {}
            }
            written = offset + byte_length(initializer);
            progress(Progress::Weights { written, total: self.total });
        }
        let file = out.into_inner().map_err(|error| writing(path)(error.into_error()))?;
        file.sync_all().map_err(writing(path))
    }
}

/// Refuses finite numbers that become infinite in half precision.
fn in_range(values: &[f32], initializer: &Initializer) -> Result<(), ExportError> {
    let overflows = |value: &f32| value.is_finite() && f16::from_f32(*value).is_infinite();
    let found = (initializer.dtype == DType::F16).then(|| values.iter().copied().find(overflows));
    match found.flatten() {
        Some(value) => {
            let (name, dtype) = (initializer.name.clone(), initializer.dtype);
            Err(ExportError::Range { name, value, dtype })
        }
        None => Ok(()),
    }
}

pub(super) fn byte_length(initializer: &Initializer) -> u64 {
    (initializer.dims.iter().product::<usize>() * initializer.dtype.size()) as u64
}

fn stored_bytes<'a>(checkpoint: &'a Tensors, stored: &Stored, dtype: DType) -> &'a [u8] {
    checkpoint.bytes(&TensorEntry {
        dtype,
        shape: vec![stored.length as usize / dtype.size()],
        file: stored.file,
        offset: stored.offset,
        length: stored.length,
    })
}

/// Decodes little-endian floating-point numbers.
fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match dtype {
        DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::Bf16 => {
            bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(two(b)).to_f32()).collect()
        }
        DType::I64 | DType::U8 | DType::Bool => panic!("{dtype} is not a floating-point type"),
    }
}
