//! The autopilot drives our own routes in the embedded world; drives are scored, recorded and
//! reported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tandem::scene::SensorSuite;
use tandem_drivers::Autopilot;
use tandem_evaluation::campaign::log::RouteLog;
use tandem_evaluation::campaign::{Campaign, Provenance, RecordedTime, Setting, Shard, run_route};
use tandem_evaluation::report::{Report, ReportRun, render};
use tandem_evaluation::routes::read_routes;
use tandem_evaluation::scoring::{MotionLog, Record, Rule, TICK_CAP};
use tandem_world::EmbeddedWorld;

#[test]
fn autopilot_finishes_our_routes_without_penalty() {
    let folder = tempfile::tempdir().unwrap();
    let routes: Vec<_> = ["straight.xml", "bends.xml", "demo.xml"]
        .iter()
        .flat_map(|file| {
            let folder = Path::new(tandem_testkit::ROOT).join("routes");
            read_routes(&folder.join(file)).unwrap()
        })
        // Ids are unique only within a file.
        .zip(1_u32..)
        .map(|(mut route, id)| {
            route.id = id.into();
            route
        })
        .collect();
    let provenance = Provenance::new(b"", 7, "autopilot", BTreeMap::new());
    let settings = [Setting { name: "autopilot".to_owned(), provenance }];
    let motion = folder.path().join("motion");
    let campaign = Campaign {
        folder: folder.path().to_owned(),
        settings: settings.to_vec(),
        repetitions: 1,
        routes: routes.clone(),
        shard: Shard::ALL,
        recorded_time: RecordedTime::Simulated,
        sensors: Vec::new(),
        motion: Some(motion.clone()),
    };
    let cancel = AtomicBool::new(false);
    let summary = campaign
        .run(&cancel, &mut |_| {}, &mut |work| {
            let suite = SensorSuite { truth: true, ..SensorSuite::default() };
            let mut world = EmbeddedWorld::new(work.route, suite, work.seed)?;
            Ok(run_route(&mut world, &mut Autopilot::new(), TICK_CAP, &cancel, &mut |_, _| {}))
        })
        .unwrap();
    let records: Vec<_> = summary.tables[0].records().collect();
    assert_eq!(records.len(), routes.len());
    for record in &records {
        assert!(record.is_success(), "{}: {:#?}", record.route_id, record);
        let speeds = record.infractions.min_speed_infractions.len();
        assert!((15..=21).contains(&speeds), "{speeds} speed messages on {}", record.route_id);
        let file = motion.join(&record.save_name).join("metric_info.json");
        let log = MotionLog::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        let windows = log.windows(Rule::Corrected).unwrap();
        let ticks = record.meta.duration_game / 0.05;
        assert!((windows.len() as f64 - ticks / 20.0).abs() <= 1.0, "{} {ticks}", windows.len());
    }
    let unit =
        |record: &Record| campaign.units().find(|u| campaign.route_id(*u) == record.route_id);
    let logs: Vec<RouteLog> =
        records.iter().map(|r| campaign.read_log(unit(r).unwrap()).unwrap()).collect();
    let mut run = ReportRun::new("autopilot", routes.len(), 0, None);
    for (record, log) in records.iter().zip(&logs) {
        run.add((*record).clone(), Some(log), None);
    }
    let page = render(&Report {
        title: "Autopilot on our own routes",
        note: "Privileged driver: it reads the true state. Scores of the embedded world are not CARLA scores.",
        facts: &[],
        runs: &[run],
        sweep: None,
    });
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-autopilot.html"), &page)
        .unwrap();
    assert!(page.contains("No stage was timed."));
}
