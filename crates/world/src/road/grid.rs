//! Uniform grid over the plane for nearest-neighbor search among fixed items.

use glam::DVec2;
use std::ops::Range;

/// Minimum side of a cell, meters.
const CELL_M: f64 = 8.0;

/// Maximum number of cells per item, so that memory is bounded by the number of
/// items and not by their area.
const CELLS_PER_ITEM: f64 = 4.0;

/// Items (by index), sorted into square cells by their bounding boxes.
#[derive(Debug)]
pub(super) struct Grid {
    origin: DVec2,
    cell_m: f64,
    columns: i64,
    rows: i64,
    /// Start of each cell's items in `items`; one entry more than there are cells.
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Grid {
    /// Sorts items into cells. `boxes` holds the lowest and the highest corner of each item;
    /// all corners must be finite.
    pub(crate) fn new(boxes: &[(DVec2, DVec2)]) -> Self {
        let origin = boxes.iter().map(|(low, _)| *low).reduce(DVec2::min).unwrap_or_default();
        let high = boxes.iter().map(|(_, high)| *high).reduce(DVec2::max).unwrap_or_default();
        let size = high - origin;
        let wanted = CELLS_PER_ITEM * boxes.len().max(1) as f64;
        // Keeps the number of cells near `wanted` for square areas and for narrow strips.
        let cell_m = CELL_M.max((size.x * size.y / wanted).sqrt()).max(size.max_element() / wanted);
        let (columns, rows) =
            ((size.x / cell_m).floor() as i64 + 1, (size.y / cell_m).floor() as i64 + 1);
        let mut grid =
            Self { origin, cell_m, columns, rows, starts: Vec::new(), items: Vec::new() };
        let cells_of = |low: DVec2, high: DVec2| {
            let ((left, top), (right, bottom)) = (grid.cell_of(low), grid.cell_of(high));
            (top..=bottom)
                .flat_map(move |row| (left..=right).map(move |x| (row * columns + x) as usize))
        };
        let mut starts = vec![0_u32; (columns * rows) as usize + 1];
        for &(low, high) in boxes {
            cells_of(low, high).for_each(|cell| starts[cell + 1] += 1);
        }
        for cell in 1..starts.len() {
            starts[cell] += starts[cell - 1];
        }
        let mut items = vec![0; starts[starts.len() - 1] as usize];
        let mut next = starts.clone();
        for (item, &(low, high)) in boxes.iter().enumerate() {
            for cell in cells_of(low, high) {
                items[next[cell] as usize] = item as u32;
                next[cell] += 1;
            }
        }
        (grid.starts, grid.items) = (starts, items);
        grid
    }

    /// Returns the cell of `place`, or the nearest one.
    fn cell_of(&self, place: DVec2) -> (i64, i64) {
        let cell = ((place - self.origin) / self.cell_m).floor();
        ((cell.x as i64).clamp(0, self.columns - 1), (cell.y as i64).clamp(0, self.rows - 1))
    }

    fn items_in(&self, column: i64, row: i64) -> &[u32] {
        let cell = (row * self.columns + column) as usize;
        let range: Range<usize> = self.starts[cell] as usize..self.starts[cell + 1] as usize;
        &self.items[range]
    }

    /// Returns the item with the lowest `squared` (the first of equals), or `None` if `squared`
    /// returns `None` for all. `squared` must not be less than the squared planar distance from
    /// `place` to the item's box; `None` excludes an item.
    pub(crate) fn nearest(
        &self,
        place: DVec2,
        mut squared: impl FnMut(u32) -> Option<f64>,
    ) -> Option<u32> {
        let (column, row) = self.cell_of(place);
        let mut best: Option<(f64, u32)> = None;
        // Everything outside ring k is more than k cells from the grid's nearest point to `place`,
        // and that point is no farther away than `place` itself.
        for ring in 0..=self.columns.max(self.rows) {
            for y in (row - ring).max(0)..=(row + ring).min(self.rows - 1) {
                let is_full_row = (y - row).abs() == ring;
                let stride = if is_full_row { 1 } else { (2 * ring).max(1) };
                let mut x = column - ring;
                while x <= column + ring {
                    if (0..self.columns).contains(&x) {
                        for &item in self.items_in(x, y) {
                            let Some(distance) = squared(item) else { continue };
                            if best.is_none_or(|best| (distance, item) < best) {
                                best = Some((distance, item));
                            }
                        }
                    }
                    x += stride;
                }
            }
            let reached_m = ring as f64 * self.cell_m;
            if best.is_some_and(|(distance, _)| distance <= reached_m * reached_m) {
                break;
            }
        }
        best.map(|(_, item)| item)
    }

    /// Calls `visit` with every item whose box may be within `reach_m` of `place`; an item may
    /// be visited more than once.
    pub(crate) fn within(&self, place: DVec2, reach_m: f64, mut visit: impl FnMut(u32)) {
        let reach = DVec2::splat(reach_m);
        let ((left, top), (right, bottom)) =
            (self.cell_of(place - reach), self.cell_of(place + reach));
        for row in top..=bottom {
            for column in left..=right {
                self.items_in(column, row).iter().for_each(|&item| visit(item));
            }
        }
    }
}
