//! How fast a device can be at most: memory and matrix units.

use serde::Serialize;
use std::collections::BTreeMap;
use tandem::tensor::DType;

/// What bounds every computation on a device from above.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Ceilings {
    /// The device.
    pub name: String,
    /// Threads that reach these rates, where the device's rates depend on them.
    pub threads: Option<usize>,
    /// Bytes per second between memory and the device's caches.
    pub bytes_per_s: f64,
    /// Operations per second of dense matrix products by the factors' element type, two operations
    /// per multiply-add, sums in single precision.
    pub flops_per_s: BTreeMap<DType, f64>,
    /// Where the numbers are from.
    pub source: Source,
}

/// Where ceilings are from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The vendor states them; nobody measured them here.
    Datasheet {
        /// Which document, and what was converted.
        document: String,
    },
    /// They were measured: the best samples, since no run may beat a ceiling.
    Measured {
        /// The machine, fact by fact.
        machine: String,
        /// How it was measured.
        method: String,
    },
}

/// A row of [`DEVICES`].
struct Device {
    name: &'static str,
    gb_per_s: f64,
    /// Without the tensor units, which take single precision only in ten mantissa bits.
    tflops_f32: Option<f64>,
    /// bf16 and f16 run at one rate on all of these.
    tflops_16_bit: f64,
    document: &'static str,
}

/// Devices by name: dense rates (no structured sparsity) with single-precision sums, at the vendor's
/// boost clock. A device is here when its memory rate and its 16-bit rate could be confirmed, on
/// public pages that cite the document named; others are left out.
///
/// Vendors state tensor rates with sparsity, of which dense is half; each halving of the element's
/// width doubles the rate. GeForce cards run single-precision sums at half their tensor rate.
const DEVICES: [Device; 9] = [
    Device {
        name: "h200",
        gb_per_s: 4800.0,
        tflops_f32: Some(66.9),
        tflops_16_bit: 989.4,
        document: "NVIDIA H200 datasheet, SXM; 16-bit tensor rate halved from 1979 with sparsity",
    },
    Device {
        name: "h100",
        gb_per_s: 3350.0,
        tflops_f32: Some(66.9),
        tflops_16_bit: 989.4,
        document: "NVIDIA H100 datasheet, SXM5; 16-bit tensor rate halved from 1979 with sparsity",
    },
    Device {
        name: "a100",
        gb_per_s: 2039.0,
        tflops_f32: Some(19.5),
        tflops_16_bit: 312.0,
        document: "NVIDIA A100 datasheet, SXM4 of 80 GB",
    },
    Device {
        name: "l40s",
        gb_per_s: 864.0,
        tflops_f32: Some(91.6),
        tflops_16_bit: 362.05,
        document: "NVIDIA L40S datasheet",
    },
    Device {
        name: "rtx5090",
        gb_per_s: 1792.0,
        tflops_f32: Some(104.8),
        tflops_16_bit: 209.5,
        document: "NVIDIA RTX Blackwell architecture paper, GeForce RTX 5090; a quarter of the 838 \
                   with sparsity and 16-bit sums",
    },
    Device {
        name: "rtx4090",
        gb_per_s: 1008.0,
        tflops_f32: Some(82.6),
        tflops_16_bit: 165.2,
        document: "NVIDIA Ada architecture paper, GeForce RTX 4090",
    },
    Device {
        name: "rtx3090",
        gb_per_s: 936.0,
        tflops_f32: Some(35.6),
        tflops_16_bit: 71.0,
        document: "NVIDIA Ampere GA102 architecture paper, GeForce RTX 3090; half of the 142 with \
                   16-bit sums",
    },
    Device {
        name: "a6000",
        gb_per_s: 768.0,
        tflops_f32: Some(38.7),
        tflops_16_bit: 154.8,
        document: "NVIDIA RTX A6000 datasheet; 16-bit tensor rate halved from 309.7 with sparsity",
    },
    Device {
        name: "thor",
        gb_per_s: 273.0,
        tflops_f32: None,
        tflops_16_bit: 258.75,
        document: "NVIDIA Jetson Thor T5000 datasheet; an eighth of the 2070 in FP4 with sparsity",
    },
];

/// Ceilings of a device in the table, by its name in any case.
pub fn device(name: &str) -> Option<Ceilings> {
    let device = DEVICES.iter().find(|device| device.name.eq_ignore_ascii_case(name))?;
    let half = device.tflops_16_bit;
    let rates =
        [(DType::F32, device.tflops_f32), (DType::F16, Some(half)), (DType::Bf16, Some(half))];
    let rate = |(dtype, tflops): (DType, Option<f64>)| Some((dtype, tflops? * 1e12));
    Some(Ceilings {
        name: device.name.to_owned(),
        threads: None,
        bytes_per_s: device.gb_per_s * 1e9,
        flops_per_s: rates.into_iter().filter_map(rate).collect(),
        source: Source::Datasheet { document: device.document.to_owned() },
    })
}

/// Names of the devices in the table.
pub fn devices() -> impl Iterator<Item = &'static str> {
    DEVICES.iter().map(|device| device.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_found_by_its_name_in_any_case_and_is_plausible() {
        for name in devices() {
            let found = device(&name.to_uppercase()).unwrap();
            assert_eq!(found.name, name);
            assert!((1e11..1e13).contains(&found.bytes_per_s), "{found:?}");
            let half = found.flops_per_s[&DType::Bf16];
            assert_eq!(half, found.flops_per_s[&DType::F16], "{name}");
            // A 16-bit product of every one of these runs faster than a plain one.
            let single = found.flops_per_s.get(&DType::F32).copied().unwrap_or(0.0);
            assert!(half > 1.5 * single && half < 2e15, "{found:?}");
            // Batch-1 transformers sit between these intensities: one bound must be able to win.
            let balance = half / found.bytes_per_s;
            assert!((50.0..2000.0).contains(&balance), "{name}: {balance} operations per byte");
        }
        assert_eq!(device("h300"), None);
    }
}
