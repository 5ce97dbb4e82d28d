//! Peak rates of devices: memory and matrix units.

use serde::Serialize;
use std::collections::BTreeMap;
use tandem::tensor::DType;

/// Peak rates of a device, which bound the speed of every computation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PeakRates {
    pub name: String,
    /// Number of threads that reach these rates; `None` if the rates do not depend on it.
    pub threads: Option<usize>,
    /// Memory bandwidth between memory and caches, bytes per second.
    pub bytes_per_s: f64,
    /// Operations per second of dense matrix products with single-precision sums, by element type of
    /// the factors; a multiply-add is two operations.
    pub flops_per_s: BTreeMap<DType, f64>,
    pub source: Source,
}

/// Source of peak rates, for reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Stated by the vendor and not measured here.
    Datasheet {
        /// Title of the document, and conversions of its values.
        document: String,
    },
    /// Measured; the best samples, because no run may exceed a peak rate.
    Measured {
        /// Facts about the machine, as text.
        machine: String,
        method: String,
    },
}

/// Rates of a device, an entry of [`DEVICES`].
struct Device {
    name: &'static str,
    gb_per_s: f64,
    /// Rate without tensor units, which round single precision to ten mantissa bits.
    tflops_f32: Option<f64>,
    /// Rate of bf16 and of f16, which is the same on all of these devices.
    tflops_16_bit: f64,
    document: &'static str,
}

/// Devices by name: dense rates (no structured sparsity) with single-precision sums, at the
/// vendor's boost clock. A device is listed if its memory rate and its 16-bit rate could be
/// confirmed on public pages that cite the given document. Vendors state tensor rates with
/// sparsity; dense rates are half of these. Each halving of the element width doubles the rate.
/// GeForce cards run single-precision sums at half their tensor rate.
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

/// Returns the peak rates of a device of the table, by case-insensitive name.
pub fn device(name: &str) -> Option<PeakRates> {
    let device = DEVICES.iter().find(|device| device.name.eq_ignore_ascii_case(name))?;
    let half = device.tflops_16_bit;
    let rates =
        [(DType::F32, device.tflops_f32), (DType::F16, Some(half)), (DType::Bf16, Some(half))];
    let rate = |(dtype, tflops): (DType, Option<f64>)| Some((dtype, tflops? * 1e12));
    Some(PeakRates {
        name: device.name.to_owned(),
        threads: None,
        bytes_per_s: device.gb_per_s * 1e9,
        flops_per_s: rates.into_iter().filter_map(rate).collect(),
        source: Source::Datasheet { document: device.document.to_owned() },
    })
}

/// Returns the names of the devices of the table.
pub fn devices() -> impl Iterator<Item = &'static str> {
    DEVICES.iter().map(|device| device.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_case_insensitively_and_plausible() {
        for name in devices() {
            let found = device(&name.to_uppercase()).unwrap();
            assert_eq!(found.name, name);
            assert!((1e11..1e13).contains(&found.bytes_per_s), "{found:?}");
            let half = found.flops_per_s[&DType::Bf16];
            assert_eq!(half, found.flops_per_s[&DType::F16], "{name}");
            // 16-bit products are faster than single-precision products on all of these devices.
            let single = found.flops_per_s.get(&DType::F32).copied().unwrap_or(0.0);
            assert!(half > 1.5 * single && half < 2e15, "{found:?}");
            // Balance must be within the range of batch-1 transformers, so that either bound can apply.
            let balance = half / found.bytes_per_s;
            assert!((50.0..2000.0).contains(&balance), "{name}: {balance} operations per byte");
        }
        assert_eq!(device("h300"), None);
    }
}
