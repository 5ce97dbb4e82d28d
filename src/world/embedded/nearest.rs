//! The nearest of many fixed places, by a grid.

use glam::DVec2;

const CELL_M: f64 = 8.0;

/// Places sorted into square cells.
#[derive(Debug)]
pub(super) struct NearestGrid {
    places: Vec<DVec2>,
    origin: DVec2,
    columns: i64,
    rows: i64,
    cells: Vec<Vec<u32>>,
}

impl NearestGrid {
    /// Sorts `places` in.
    pub(super) fn new(places: Vec<DVec2>) -> Self {
        let start = places.first().copied().unwrap_or_default();
        let low = places.iter().fold(start, |low, &place| low.min(place));
        let high = places.iter().fold(start, |high, &place| high.max(place));
        let size = ((high - low) / CELL_M).floor();
        let (columns, rows) = (size.x as i64 + 1, size.y as i64 + 1);
        let mut grid = Self {
            cells: vec![Vec::new(); (columns * rows) as usize],
            origin: low,
            columns,
            rows,
            places,
        };
        for idx in 0..grid.places.len() {
            let (column, row) = grid.cell_of(grid.places[idx]);
            grid.cells[(row * columns + column) as usize].push(idx as u32);
        }
        grid
    }

    /// The cell of `place`, or the one nearest to it.
    fn cell_of(&self, place: DVec2) -> (i64, i64) {
        let cell = ((place - self.origin) / CELL_M).floor();
        ((cell.x as i64).clamp(0, self.columns - 1), (cell.y as i64).clamp(0, self.rows - 1))
    }

    /// Index of the place nearest to `place`, the first of equals; `None` if there are none.
    pub(super) fn nearest(&self, place: DVec2) -> Option<usize> {
        let (column, row) = self.cell_of(place);
        let mut best: Option<(f64, u32)> = None;
        // Everything outside ring k is more than k cells from the grid's nearest point to `place`,
        // and that one is no farther than `place` itself.
        for ring in 0..=self.columns.max(self.rows) {
            for y in (row - ring).max(0)..=(row + ring).min(self.rows - 1) {
                let whole_row = (y - row).abs() == ring;
                let stride = if whole_row { 1 } else { (2 * ring).max(1) };
                let mut x = column - ring;
                while x <= column + ring {
                    if (0..self.columns).contains(&x) {
                        for &idx in &self.cells[(y * self.columns + x) as usize] {
                            let distance = self.places[idx as usize].distance_squared(place);
                            if best.is_none_or(|best| (distance, idx) < best) {
                                best = Some((distance, idx));
                            }
                        }
                    }
                    x += stride;
                }
            }
            let reached = ring as f64 * CELL_M;
            if best.is_some_and(|(distance, _)| distance <= reached * reached) {
                break;
            }
        }
        best.map(|(_, idx)| idx as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(reach: f64) -> impl Strategy<Value = DVec2> {
        (-reach..reach, -reach..reach).prop_map(DVec2::from)
    }

    proptest! {
        #[test]
        fn the_grid_finds_what_a_search_through_all_finds(
            places in proptest::collection::vec(place(60.0), 1..80),
            asked in place(200.0),
        ) {
            let squared = |idx: usize| places[idx].distance_squared(asked);
            let expected = (0..places.len()).min_by(|&a, &b| squared(a).total_cmp(&squared(b)));
            let found = NearestGrid::new(places.clone()).nearest(asked);
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_empty_grid_finds_nothing() {
        assert_eq!(NearestGrid::new(Vec::new()).nearest(DVec2::ONE), None);
    }
}
