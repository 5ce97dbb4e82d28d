//! OpenDRIVE maps of `--map`: one file for all routes, or a folder with one file per town.

use super::print;
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tandem::scene::{Route, RouteId, SensorSuite, World};
use tandem_evaluation::scoring::FirstJunction;
use tandem_world::{EmbeddedWorld, StreetMap};

/// Turn within one meter above which a route is reported as turning back, degrees.
const TURN_BACK_DEG: f64 = 120.0;

/// Suffix of a town's map in a folder of maps.
const MAP_SUFFIX: &str = ".xodr";

/// Maps of a set of routes. Each is read at first use.
#[derive(Default)]
pub(super) struct TownMaps {
    maps: Vec<TownMap>,
    by_town: BTreeMap<String, usize>,
    /// True if another process prints the warnings about routes that do not fit their map.
    is_silent: bool,
}

struct TownMap {
    /// `None` for a map of all towns.
    town: Option<String>,
    file: PathBuf,
    sha256: String,
    map: OnceLock<Arc<StreetMap>>,
}

impl TownMap {
    fn new(town: Option<String>, file: PathBuf) -> anyhow::Result<Self> {
        let bytes = std::fs::read(&file)
            .with_context(|| format!("cannot read the map {}", file.display()))?;
        let digest = Sha256::digest(&bytes);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { town, file, sha256, map: OnceLock::new() })
    }

    fn read(&self) -> anyhow::Result<StreetMap> {
        let map = StreetMap::read(&self.file)?;
        if map.sha256() != self.sha256 {
            bail!("the map {} changed while it was in use", self.file.display());
        }
        Ok(map)
    }
}

impl TownMaps {
    /// Finds the maps of `routes`. `path` is one map for all of them, or a folder with `TOWN.xodr`
    /// for each of their towns. Fails if a file cannot be read, or the folder has no map of a town.
    pub(super) fn find(path: Option<&Path>, routes: &[Route]) -> anyhow::Result<Self> {
        let none = Self::default();
        let Some(path) = path else { return Ok(none) };
        let towns: Vec<&String> = routes
            .iter()
            .map(|route| (&route.town, ()))
            .collect::<BTreeMap<_, _>>()
            .into_keys()
            .collect();
        if !path.is_dir() {
            let by_town = towns.into_iter().map(|town| (town.clone(), 0)).collect();
            return Ok(Self { maps: vec![TownMap::new(None, path.to_owned())?], by_town, ..none });
        }
        let file = |town: &str| path.join(format!("{town}{MAP_SUFFIX}"));
        let is_found = |town: &&&String| {
            Path::new(town).file_name() == Some(OsStr::new(town)) && file(town).is_file()
        };
        let missing: Vec<String> =
            towns.iter().filter(|town| !is_found(town)).map(tandem_files::shortened).collect();
        if !missing.is_empty() {
            bail!(
                "folder {} has no map of these towns of the routes: {}; expected a file \
                 TOWN{MAP_SUFFIX} for each",
                path.display(),
                missing.join(", ")
            );
        }
        let maps = towns.iter().map(|town| TownMap::new(Some((*town).clone()), file(town)));
        let maps = maps.collect::<anyhow::Result<_>>()?;
        let by_town = towns.into_iter().cloned().zip(0..).collect();
        Ok(Self { maps, by_town, ..none })
    }

    /// Returns the map of `route`, reading it at first use; `None` without maps.
    pub(super) fn of(&self, route: &Route) -> anyhow::Result<Option<&Arc<StreetMap>>> {
        let Some(&idx) = self.by_town.get(&route.town) else { return Ok(None) };
        let town = &self.maps[idx];
        if town.map.get().is_none() {
            // Two threads may both read the map; the first result is kept.
            let map = town.read()?;
            let map = if self.is_silent { map.without_warnings() } else { map };
            let _ = town.map.set(Arc::new(map));
        }
        Ok(town.map.get())
    }

    /// Disables the warnings about routes that do not fit their map.
    pub(super) fn without_warnings(self) -> Self {
        Self { is_silent: true, ..self }
    }

    /// Checks that a world can be built from every route, before anything is driven or recorded,
    /// and prints a note where a route turns back. Keeps no map in memory. Fails if a map cannot be
    /// read, or a route has no road.
    pub(super) fn check(&self, routes: &[Route]) -> anyhow::Result<()> {
        if self.maps.is_empty() {
            return routes.iter().try_for_each(|route| check(route, None));
        }
        for (idx, town) in self.maps.iter().enumerate() {
            let map = Arc::new(town.read()?);
            let here = |route: &&Route| self.by_town.get(&route.town) == Some(&idx);
            routes.iter().filter(here).try_for_each(|route| check(route, Some(&map)))?;
        }
        Ok(())
    }

    /// Returns where each of `routes` enters its first junction, by route id; empty without maps.
    /// Fails if a map cannot be read, or a route leaves the lanes of its map.
    pub(super) fn first_junctions(
        &self,
        routes: &[Route],
    ) -> anyhow::Result<BTreeMap<RouteId, FirstJunction>> {
        let mut found = BTreeMap::new();
        for route in routes {
            let Some(map) = self.of(route)? else { continue };
            found.insert(route.id.clone(), FirstJunction::of_plan(&map.plan(route)?));
        }
        Ok(found)
    }

    /// Returns the hash of each map, by name: a setting that affects results.
    pub(super) fn provenance(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.maps.iter().map(|map| {
            let name = map.town.as_ref().map_or_else(String::new, |town| format!(" {town}"));
            (format!("map{name} (SHA-256)"), map.sha256.clone())
        })
    }
}

fn check(route: &Route, map: Option<&Arc<StreetMap>>) -> anyhow::Result<()> {
    let world = EmbeddedWorld::on(route, SensorSuite::default(), 0, map)?;
    if let Some((place, turn_deg)) = world.plan().sharpest_turn()
        && turn_deg > TURN_BACK_DEG
    {
        print::note(&format!(
            "route {} turns back by {turn_deg:.0} degrees at x={:.1} y={:.1} along its key points; \
             the lanes of a map (--map) may avoid this",
            route.id, place.x, place.y
        ));
    }
    Ok(())
}
