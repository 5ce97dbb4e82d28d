//! Rotary position embedding: rotation angles of the pairs of a head.

use crate::graph::{Graph, Value};

/// Returns `theta^(-2j / dim)` for every pair `j` of a head of width `dim`.
pub fn inverse_frequencies(theta: f64, dim: usize) -> Vec<f32> {
    (0..dim / 2).map(|j| theta.powf(-2.0 * j as f64 / dim as f64) as f32).collect()
}

/// Returns, for each pair, the row of positions (0 time, 1 height, 2 width) that gives its angle.
///
/// The rows are interleaved: height has the pairs 1, 4, 7 …, width 2, 5, 8 …, up to the lengths in
/// `section`, and time has the rest.
pub fn mrope_axes(section: [usize; 3]) -> Vec<usize> {
    (0..section.iter().sum())
        .map(|j| match j % 3 {
            1 if j < 3 * section[1] => 1,
            2 if j < 3 * section[2] => 2,
            _ => 0,
        })
        .collect()
}

/// Returns cosines and sines, `[1, tokens, dim / 2]` each, of `position · frequency`.
///
/// `positions` is `[tokens, 1]` or `[tokens, dim / 2]` in single precision. Angles reach hundreds of
/// radians, so they are computed in single precision up to the cosine, by an elementwise product: a
/// GPU's matrix product may round its factors to ten bits.
pub fn tables(
    graph: &mut Graph<'_>,
    positions: &Value,
    theta: f64,
    head_dim: usize,
) -> (Value, Value) {
    let half = head_dim / 2;
    let frequencies = inverse_frequencies(theta, head_dim);
    let frequencies = graph.constant_f32("rope.frequencies", &[half], &frequencies);
    let angles = graph.mul(positions, &frequencies);
    let (cos, sin) = (graph.cos(&angles), graph.sin(&angles));
    (finished(graph, &cos, half), finished(graph, &sin, half))
}

fn finished(graph: &mut Graph<'_>, table: &Value, half: usize) -> Value {
    let table = graph.cast(table, graph.dtype());
    graph.reshape(&table, &[1, table.dim(0), half])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_the_release_interleave_twenty_times() {
        let axes = mrope_axes([24, 20, 20]);
        let expected = [0, 1, 2].repeat(20).into_iter().chain([0; 4]).collect::<Vec<_>>();
        assert_eq!(axes, expected);
    }

    #[test]
    fn pairs_beyond_a_short_section_belong_to_time() {
        assert_eq!(mrope_axes([3, 2, 1]), [0, 1, 2, 0, 1, 0]);
    }

    #[test]
    fn frequencies_match_the_release() {
        let frequencies = inverse_frequencies(5e6, 128);
        for (j, expected) in
            [(0, 1.0), (1, 0.78583), (2, 0.617529), (31, 5.69097e-4), (63, 2.54508e-7)]
        {
            let relative = (frequencies[j] - expected) / expected;
            assert!(relative.abs() < 1e-5, "frequency {j} is {}, not {expected}", frequencies[j]);
        }
    }
}
