//! Tests of roads built on maps.

use super::Road;
use super::error::RoadError;
use super::fixtures::bare_route;
use super::layout::{Control, Layout, Side};
use super::street_map::{MapError, MappedLanes, StreetMap};
use glam::{DVec2, DVec3};
use std::f64::consts::{FRAC_PI_2, PI};
use std::path::Path;
use std::sync::Arc;
use tandem_scene::{LaneMap, Route};

/// 50 m east, a right turn of radius 12 m in a junction with lights, 50 m south. Lanes of
/// 3.2 m in each direction, a parking lane on the right of the first road, 60 km/h.
/// OpenDRIVE's y axis points north.
fn corner_map() -> String {
    let lane = |id: i32, kind: &str, width: f64, next: i32| {
        format!(
            "<lane id='{id}' type='{kind}' level='false'><link><predecessor id='{next}'/>\
             <successor id='{next}'/></link><width sOffset='0' a='{width}' b='0' c='0' d='0'/></lane>"
        )
    };
    let road = |id: u32, junction: i32, link: &str, geometry: &str, length: f64, parking: bool| {
        let right = lane(-1, "driving", 3.2, -1)
            + &if parking { lane(-2, "parking", 2.5, -2) } else { String::new() };
        format!(
            "<road name='' length='{length}' id='{id}' junction='{junction}'><link>{link}</link>\
             <type s='0' type='town'><speed max='60' unit='km/h'/></type>\
             <planView>{geometry}</planView><lanes><laneSection s='0'><left>{}</left>\
             <center><lane id='0' type='none' level='false'/></center><right>{right}</right>\
             </laneSection></lanes><signals>{}</signals></road>",
            lane(1, "driving", 3.2, 1),
            if id == 1 {
                "<signal s='48' t='-5' id='1' name='' dynamic='yes' orientation='+' zOffset='4' \
                 country='OpenDRIVE' type='1000001' subtype='-1' value='-1'/>"
            } else {
                ""
            },
        )
    };
    let arc_m = 12.0 * FRAC_PI_2;
    let straight = |x: f64, y: f64, hdg: f64| {
        format!("<geometry s='0' x='{x}' y='{y}' hdg='{hdg}' length='50'><line/></geometry>")
    };
    let arc = format!(
        "<geometry s='0' x='50' y='0' hdg='0' length='{arc_m}'><arc curvature='{}'/></geometry>",
        -1.0 / 12.0
    );
    let one = road(
        1,
        -1,
        "<successor elementType='junction' elementId='100'/>",
        &straight(0.0, 0.0, 0.0),
        50.0,
        true,
    );
    let turn = road(
        10,
        100,
        "<predecessor elementType='road' elementId='1' contactPoint='end'/>\
         <successor elementType='road' elementId='2' contactPoint='start'/>",
        &arc,
        arc_m,
        false,
    );
    let two = road(
        2,
        -1,
        "<predecessor elementType='junction' elementId='100'/>",
        &straight(62.0, -12.0, -FRAC_PI_2),
        50.0,
        false,
    );
    format!(
        "<OpenDRIVE><header revMajor='1' revMinor='4'/>{one}{turn}{two}\
         <junction id='100' name=''><connection id='0' incomingRoad='1' connectingRoad='10' \
         contactPoint='start'><laneLink from='-1' to='-1'/></connection></junction></OpenDRIVE>"
    )
}

fn read(text: &str) -> Result<StreetMap, MapError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corner.xodr");
    std::fs::write(&file, text).unwrap();
    StreetMap::read(&file)
}

/// Key points in the middle of lane -1, without the junction, as in official files.
fn right_turn() -> Route {
    let east = (1..25).map(|i| DVec3::new(2.0 * f64::from(i), 1.6, 0.0));
    let south = (1..24).map(|i| DVec3::new(60.4, 12.0 + 2.0 * f64::from(i), 0.0));
    bare_route(7, east.chain(south).collect())
}

#[test]
fn route_crosses_a_junction_along_its_lane() {
    let map = Arc::new(read(&corner_map()).unwrap());
    let road = Road::on(&right_turn(), Layout::STREET, Some(&map)).unwrap();
    let center = DVec2::new(50.0, 12.0);
    let bend: Vec<_> = road.plan().points.iter().filter(|point| point.is_junction).collect();
    assert!(bend.len() > 14, "{}", bend.len());
    for point in bend {
        // The lane is 1.6 m inside the reference line, whose radius is 12 m.
        let radius_m = point.position.truncate().distance(center);
        assert!((radius_m - 10.4).abs() < 0.05, "{point:?} {radius_m}");
    }
}

#[test]
fn lanes_limits_and_lights_come_from_the_map() {
    let map = Arc::new(read(&corner_map()).unwrap());
    let road = Road::on(&right_turn(), Layout::STREET, Some(&map)).unwrap();
    let layout = road.layout();
    assert_eq!((layout.left, layout.right, layout.opposite), (0, 0, 1));
    assert_eq!((layout.parking, layout.control), (Some(Side::Right), Control::Lights));
    assert!((layout.speed_limit_kmh - 60.0).abs() < 1e-3);
    let own = road.driving_lane(DVec3::new(20.0, 1.2, 0.0));
    assert!((own.position.y - 1.6).abs() < 1e-4 && own.heading_rad.abs() < 1e-6, "{own:?}");
    assert_eq!((own.lane_id, own.is_junction), (-1, false));
    assert!((own.width_m - 3.2).abs() < 1e-6);
    let opposite = road.driving_lane(DVec3::new(20.0, -1.2, 0.0));
    assert!((opposite.position.y + 1.6).abs() < 1e-4 && opposite.lane_id == 1);
    assert!((opposite.heading_rad.abs() - PI).abs() < 1e-6, "{opposite:?}");
    let parking = road.parking_lane(DVec3::new(20.0, 4.0, 0.0)).unwrap();
    assert!((parking.position.y - 4.45).abs() < 1e-4, "{parking:?}");
    assert!(road.parking_lane(DVec3::new(60.4, 60.0, 0.0)).is_none());
}

#[test]
fn ahead_of_a_lane_is_its_successor() {
    let map = MappedLanes(Arc::new(read(&corner_map()).unwrap()));
    let here = map.driving_lane(DVec3::new(45.0, 1.6, 0.0));
    let in_turn = map.ahead(&here, 6.0).unwrap();
    assert!(in_turn.is_junction && in_turn.heading_rad > 0.05, "{in_turn:?}");
    let beyond = map.ahead(&here, 40.0).unwrap();
    assert!((beyond.heading_rad - FRAC_PI_2).abs() < 1e-3 && !beyond.is_junction);
    assert!(map.ahead(&here, 500.0).is_none());
}

#[test]
fn wrong_town_and_invalid_map_are_reported() {
    let map = Arc::new(read(&corner_map()).unwrap());
    let mut route = right_turn();
    for point in &mut route.key_points {
        point.x += 900.0;
    }
    let error = Road::on(&route, Layout::STREET, Some(&map)).unwrap_err();
    assert!(matches!(error, RoadError::OffMap { away_m, .. } if away_m > 800.0));
    assert!(matches!(read("<routes/>"), Err(MapError::Parse { .. } | MapError::Empty { .. })));
    assert!(matches!(read("not XML"), Err(MapError::Parse { .. })));
    let absent = StreetMap::read(Path::new("no/such.xodr")).unwrap_err();
    assert!(absent.to_string().contains("no/such.xodr"), "{absent}");
}
