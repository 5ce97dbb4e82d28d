//! Nearest-neighbor search among fixed places.

use super::grid::Grid;
use glam::DVec2;

/// Fixed places, sorted into a grid.
#[derive(Debug)]
pub(super) struct NearestGrid {
    places: Vec<DVec2>,
    grid: Grid,
}

impl NearestGrid {
    pub(crate) fn new(places: Vec<DVec2>) -> Self {
        let boxes: Vec<_> = places.iter().map(|&place| (place, place)).collect();
        Self { grid: Grid::new(&boxes), places }
    }

    /// Returns the index of the place nearest to `place` (the first of
    /// equals); `None` without places.
    pub(crate) fn nearest(&self, place: DVec2) -> Option<usize> {
        let squared = |idx: u32| Some(self.places[idx as usize].distance_squared(place));
        self.grid.nearest(place, squared).map(|idx| idx as usize)
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
        fn grid_matches_exhaustive_search(
            places in proptest::collection::vec(place(60.0), 1..80),
            asked in place(200.0),
        ) {
            let squared = |idx: usize| places[idx].distance_squared(asked);
            let expected = (0..places.len()).min_by(|&a, &b| squared(a).total_cmp(&squared(b)));
            let found = NearestGrid::new(places.clone()).nearest(asked);
            prop_assert_eq!(found, expected);
        }
    }

    /// A few places that span thousands of kilometers need no more cells than a few.
    #[test]
    fn far_apart_places_need_few_cells() {
        let far = [DVec2::ZERO, DVec2::splat(5e6), DVec2::new(-4e6, 9.0), DVec2::new(3.0, -8e6)];
        let grid = NearestGrid::new(far.to_vec());
        for (idx, place) in far.into_iter().enumerate() {
            assert_eq!(grid.nearest(place + DVec2::splat(70.0)), Some(idx));
        }
    }

    #[test]
    fn empty_grid_finds_nothing() {
        assert_eq!(NearestGrid::new(Vec::new()).nearest(DVec2::ONE), None);
    }
}
