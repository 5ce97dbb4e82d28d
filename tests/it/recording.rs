//! Recordings are read back bit for bit, and refused if a part is damaged, missing or foreign.

use glam::DVec3;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem::model::automot::{CAMERA, sensors};
use tandem::scene::{
    CameraFrame, CameraId, Cameras, Driver, FrameId, GeoReference, Gnss, Imu, LidarSweep,
    Observation, RoadOption, RoutePlan, RoutePoint, SensorSuite, World,
};
use tandem::timing::Timestamp;
use tandem_drivers::Autopilot;
use tandem_evaluation::routes::read_routes;
use tandem_recording::{Recording, RecordingError, RecordingReader, RecordingWriter, recover};
use tandem_world::EmbeddedWorld;

fn plan() -> RoutePlan {
    let commands = [
        RoadOption::Void,
        RoadOption::Left,
        RoadOption::Right,
        RoadOption::Straight,
        RoadOption::LaneFollow,
        RoadOption::ChangeLaneLeft,
        RoadOption::ChangeLaneRight,
    ];
    let point = |(idx, command): (usize, RoadOption)| RoutePoint {
        position: DVec3::new(idx as f64 / 3.0, -0.1 * idx as f64, 1e-300),
        heading_rad: -2.0 / 3.0,
        command,
        is_junction: idx % 2 == 1,
    };
    let points = commands.into_iter().enumerate().map(point).collect();
    RoutePlan { points, reference: GeoReference { latitude_deg: 48.1, longitude_deg: -0.0 } }
}

/// An observation with values derived from `bits`;
/// `has` selects whether it has image and point cloud.
fn observation(tick: u64, bits: u64, has: [bool; 2]) -> Observation {
    let number = |place: u64| f64::from_bits(bits.rotate_left(place as u32 * 7) ^ place);
    let (width, height) = (1 + (bits % 9) as u32, 1 + (bits % 5) as u32);
    let image = has[0].then(|| {
        let rgb = (0..u64::from(width * height * 3)).map(|i| (bits >> (i % 57)) as u8).collect();
        let captured_at = Timestamp::after(Duration::from_nanos(bits >> 2));
        Arc::new(CameraFrame {
            id: FrameId(tick.saturating_sub(1)),
            captured_at,
            width,
            height,
            rgb,
        })
    });
    let cameras = image.map_or(Cameras::NONE, |image| Cameras::one(CameraId::FRONT, image));
    let lidar = has[1].then(|| {
        let float = |i: u32| f32::from_bits((bits >> 11) as u32 ^ i);
        let points = (0..(bits % 7) as u32).map(|i| [i, i + 1, i + 2, i + 3].map(float)).collect();
        Arc::new(LidarSweep { id: FrameId(tick), points })
    });
    Observation {
        frame: FrameId(tick),
        time: Timestamp::after(Duration::from_millis(50) * tick as u32),
        cameras,
        lidar,
        imu: Imu {
            acceleration_mps2: [1, 2, 3].map(number),
            angular_velocity_radps: [4, 5, 6].map(number),
            compass_rad: f64::NAN,
        },
        gnss: Gnss { latitude_deg: number(7), longitude_deg: number(8), altitude_m: -0.0 },
        speed_mps: number(9),
        truth: None,
    }
}

fn write(path: &Path, plan: &RoutePlan, observations: &[Observation]) -> u64 {
    let mut writer = RecordingWriter::create(path, plan, &sensors()).unwrap();
    for observation in observations {
        writer.write(observation).unwrap();
    }
    assert!(!path.exists(), "the file appeared before it was complete");
    writer.finish().unwrap()
}

/// Bit patterns of all values of an observation.
fn bits(observation: &Observation) -> Vec<u64> {
    let (imu, gnss) = (&observation.imu, &observation.gnss);
    let nanos = |time: Timestamp| time.since(Timestamp::ZERO).as_nanos() as u64;
    let mut bits = vec![observation.frame.0, nanos(observation.time)];
    bits.extend(imu.acceleration_mps2.map(f64::to_bits));
    bits.extend(imu.angular_velocity_radps.map(f64::to_bits));
    bits.extend([imu.compass_rad, gnss.latitude_deg, gnss.longitude_deg].map(f64::to_bits));
    bits.extend([gnss.altitude_m, observation.speed_mps].map(f64::to_bits));
    for (_, camera) in observation.cameras.iter() {
        bits.extend([1, camera.id.0, nanos(camera.captured_at)]);
        bits.extend([u64::from(camera.width), u64::from(camera.height)]);
        bits.extend(camera.rgb.iter().map(|&byte| u64::from(byte)));
    }
    if let Some(lidar) = &observation.lidar {
        bits.extend([2, lidar.id.0]);
        bits.extend(lidar.points.iter().flatten().map(|number| u64::from(number.to_bits())));
    }
    bits
}

/// An observation whose second camera has an image only at even ticks.
fn of_cameras(tick: u64, names: &[&str]) -> Observation {
    let mut cameras = Cameras::NONE;
    for (place, name) in (1..).zip(names) {
        if place != 2 || tick.is_multiple_of(2) {
            let (width, height) = (place, 2);
            let rgb = vec![(tick * 10 + u64::from(place)) as u8; (3 * width * height) as usize];
            let id = FrameId(tick - u64::from(place % 2));
            let captured_at = Timestamp::after(Duration::from_millis(tick));
            let image = CameraFrame { id, captured_at, width, height, rgb };
            cameras.insert(CameraId::named(name), Arc::new(image)).unwrap();
        }
    }
    Observation { cameras, ..observation(tick, 77, [false, true]) }
}

fn suite_of(names: &[&str]) -> SensorSuite {
    let mut suite = SensorSuite { cameras: Cameras::NONE, ..sensors() };
    for name in names {
        suite.cameras.insert(CameraId::named(name), CAMERA).unwrap();
    }
    suite
}

#[test]
fn several_cameras_are_read_back_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for names in [&["front", "rear", "left_3"][..], &["calibration", "front"], &["rear"]] {
        let path = folder.path().join(format!("{}.mcap", names.join("-")));
        let written: Vec<_> = (1..6).map(|tick| of_cameras(tick, names)).collect();
        let mut writer = RecordingWriter::create(&path, &plan(), &suite_of(names)).unwrap();
        for observation in &written {
            writer.write(observation).unwrap();
        }
        writer.finish().unwrap();
        let read = Recording::read(&path).unwrap();
        let ids = |observation: &Observation| {
            observation.cameras.iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(read.observations.len(), written.len());
        for (read, written) in read.observations.iter().zip(&written) {
            assert_eq!(ids(read), ids(written));
            assert_eq!(bits(read), bits(written));
        }
    }
}

#[test]
fn one_front_camera_keeps_the_old_topics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.mcap");
    write(&path, &plan(), &[of_cameras(1, &["front"])]);
    let file = fs::read(&path).unwrap();
    let summary = mcap::Summary::read(&file).unwrap().unwrap();
    let mut topics: Vec<String> =
        summary.channels.values().map(|channel| channel.topic.clone()).collect();
    topics.sort();
    let expected = ["/camera", "/camera/calibration", "/lidar", "/observation", "/plan", "/tf"];
    assert_eq!(topics, expected);
    let schemas: Vec<String> = summary.schemas.values().map(|schema| schema.name.clone()).collect();
    assert!(schemas.iter().any(|name| name == "tandem.Observation/2"), "{schemas:?}");
}

#[test]
#[should_panic(expected = "camera is in the recording's suite")]
fn image_of_an_unnamed_camera_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.mcap");
    write(&path, &plan(), &[of_cameras(1, &["rear"])]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn recording_survives_write_and_read(
        ticks in prop::collection::vec((1..5_u64, any::<u64>(), any::<[bool; 2]>()), 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drive.mcap");
        let mut tick = 0;
        let written: Vec<Observation> = ticks
            .into_iter()
            .map(|(ahead, bits, has)| {
                tick += ahead;
                observation(tick, bits, has)
            })
            .collect();
        let bytes = write(&path, &plan(), &written);
        prop_assert_eq!(bytes, fs::metadata(&path).unwrap().len());
        let read = Recording::read(&path).unwrap();
        prop_assert_eq!(&read.plan, &plan());
        prop_assert_eq!(read.plan.reference.longitude_deg.to_bits(), (-0.0_f64).to_bits());
        prop_assert_eq!(read.observations.len(), written.len());
        for (read, written) in read.observations.iter().zip(&written) {
            prop_assert_eq!(bits(read), bits(written));
        }
    }
}

/// Writes `complete.mcap` with three ticks and returns its bytes.
fn complete(folder: &Path) -> Vec<u8> {
    let path = folder.join("complete.mcap");
    let observations: Vec<_> =
        (1..4).map(|tick| observation(tick, tick * 0x1234_5678_9abc, [true; 2])).collect();
    write(&path, &plan(), &observations);
    fs::read(path).unwrap()
}

#[track_caller]
fn refused(path: &Path, fragments: &[&str]) {
    let error = match Recording::read(path) {
        Ok(_) => panic!("the file was read"),
        Err(error) => error.to_string(),
    };
    for fragment in fragments.iter().chain(&[".mcap"]) {
        assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
    }
}

#[test]
fn truncated_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = complete(folder.path());
    let path = folder.path().join("cut.mcap");
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(Recording::read(&path).is_err(), "{length} of {} bytes were read", bytes.len());
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(&path, &["not a complete recording", "interrupted"]);
    fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
    refused(&path, &["more bytes"]);
}

#[test]
fn flipped_bit_is_refused_or_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = complete(folder.path());
    let path = folder.path().join("complete.mcap");
    let original: Vec<_> = Recording::read(&path).unwrap().observations.iter().map(bits).collect();
    let path = folder.path().join("flipped.mcap");
    let mut read = Vec::new();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, damaged).unwrap();
        if let Ok(recording) = Recording::read(&path) {
            assert_eq!(recording.plan, plan(), "byte {at}");
            let found: Vec<_> = recording.observations.iter().map(bits).collect();
            assert_eq!(found, original, "byte {at}");
            read.push(at);
        }
    }
    assert!(read.len() < 20, "{} flips that change nothing, at bytes {read:?}", bytes.len());
}

#[test]
fn reader_returns_complete_ticks_before_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.mcap");
    let large = |tick| {
        let (width, height) = (1024, 512);
        let rgb = (0..width * height * 3).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
        let captured_at = Timestamp::ZERO;
        let camera = CameraFrame { id: FrameId(tick), captured_at, width, height, rgb };
        Observation {
            cameras: Cameras::one(CameraId::FRONT, Arc::new(camera)),
            ..observation(tick, 5, [false; 2])
        }
    };
    let observations: Vec<_> = (1..13).map(large).collect();
    write(&path, &plan(), &observations);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() * 9 / 10]).unwrap();
    let mut reader = RecordingReader::open(&path).unwrap();
    assert_eq!(reader.plan(), &plan());
    let ticks: Vec<_> = reader.by_ref().take_while(Result::is_ok).collect();
    assert!((8..12).contains(&ticks.len()), "{} ticks before the damage", ticks.len());
    assert!(reader.next().is_none(), "an item follows the error");
}

/// A message whose fields a test changes.
#[derive(Clone)]
struct ByHand {
    topic: String,
    schema: String,
    encoding: String,
    sequence: u32,
    data: Vec<u8>,
}

/// Writes an MCAP file with the layout of recordings and these messages.
fn by_hand(path: &Path, options: mcap::WriteOptions, messages: &[ByHand]) {
    let file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut writer = mcap::Writer::with_options(file, options).unwrap();
    for ByHand { topic, schema, encoding, sequence, data } in messages {
        let schema = writer.add_schema(schema, "text", b"").unwrap();
        let channel_id = writer.add_channel(schema, topic, encoding, &BTreeMap::new()).unwrap();
        let (sequence, log_time, publish_time) = (*sequence, 0, 0);
        let header = mcap::records::MessageHeader { channel_id, sequence, log_time, publish_time };
        writer.write_to_known_channel(&header, data).unwrap();
    }
    writer.finish().unwrap();
}

fn messages_of(bytes: &[u8]) -> Vec<ByHand> {
    mcap::MessageStream::new(bytes)
        .unwrap()
        .map(|message| {
            let message = message.unwrap();
            let channel = &message.channel;
            ByHand {
                topic: channel.topic.clone(),
                schema: channel.schema.as_ref().unwrap().name.clone(),
                encoding: channel.message_encoding.clone(),
                sequence: message.sequence,
                data: message.data.to_vec(),
            }
        })
        .collect()
}

/// Messages of a recording of two ticks.
fn messages() -> Vec<ByHand> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("complete.mcap");
    write(&path, &plan(), &[observation(1, 6, [true; 2]), observation(2, 6, [true; 2])]);
    let messages = messages_of(&fs::read(&path).unwrap());
    let found: Vec<_> = messages.iter().map(|m| (m.topic.as_str(), m.schema.as_str())).collect();
    let tick = [
        ("/camera", "foxglove.RawImage"),
        ("/lidar", "foxglove.PointCloud"),
        ("/observation", "tandem.Observation/2"),
    ];
    let first = [
        ("/plan", "tandem.RoutePlan/1"),
        ("/tf", "foxglove.FrameTransforms"),
        ("/camera/calibration", "foxglove.CameraCalibration"),
    ];
    assert_eq!(found, [first, tick, tick].concat());
    messages
}

/// Bytes of an MCAP record.
fn record(opcode: u8, content: &[u8]) -> Vec<u8> {
    [&[opcode][..], &(content.len() as u64).to_le_bytes(), content].concat()
}

#[test]
fn name_longer_than_its_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.mcap");
    const MAGIC: &[u8] = b"\x89MCAP0\r\n";
    let name = |length: u32| [&length.to_le_bytes()[..], b"x"].concat();
    let schema = |length| record(3, &[&[1, 0][..], &name(length), &name(1), &[0; 4]].concat());
    let header = record(1, &[0; 8]);
    let end = [record(15, &[0; 4]), record(2, &[0; 20])].concat();
    let file = |length| [MAGIC, &header, &schema(length), &end, MAGIC].concat();
    let printed = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        RecordingReader::open(&path).err().unwrap().to_string()
    };
    // Well formed, but not a recording.
    assert!(printed(&file(1)).contains("it contains no message"));
    for length in [12, 1 << 30, u32::MAX] {
        let printed = printed(&file(length));
        assert!(printed.contains("in the middle of a record"), "{length}: {printed}");
    }
}

/// Byte ranges of the contents of the MCAP records with this opcode.
fn places_of(opcode: u8, bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut places) = (8, Vec::new());
    while at + 9 <= bytes.len() - 8 {
        let length = u64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap()) as usize;
        if bytes[at] == opcode {
            places.push(at + 9..at + 9 + length);
        }
        at += 9 + length;
    }
    places
}

#[test]
fn lengths_in_a_zstd_chunk_reserve_no_memory() {
    const CHUNK: u8 = 6;
    let folder = tempfile::tempdir().unwrap();
    let bytes = complete(folder.path());
    let path = folder.path().join("huge.mcap");
    let chunk = places_of(CHUNK, &bytes)[1].clone();
    assert_eq!(&bytes[chunk.start + 32..chunk.start + 36], b"zstd");
    // Offsets of the uncompressed size, its CRC, the compressed size and the frame.
    let place = |offset: usize, length: usize| chunk.start + offset..chunk.start + offset + length;
    let (size, crc, compressed, frame) = (place(16, 8), place(24, 4), place(36, 8), place(44, 13));
    let printed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(&path, changed).unwrap();
        Recording::read(&path).err().unwrap().to_string()
    };
    for huge in [65 << 20, 1 << 40, u64::MAX >> 1, u64::MAX] {
        let huge = huge.to_le_bytes();
        let error = printed(&|bytes| bytes[size.clone()].copy_from_slice(&huge));
        assert!(error.contains("huge.mcap") && error.contains("exceeds limit"), "{error}");
        // Without a CRC a chunk is read record by record.
        let error = printed(&|bytes| {
            bytes[size.clone()].copy_from_slice(&huge);
            bytes[crc.clone()].fill(0);
        });
        assert!(error.contains("not a complete recording"), "{error}");
        let error = printed(&|bytes| bytes[compressed.clone()].copy_from_slice(&huge));
        assert!(error.contains("not a complete recording"), "{error}");
        // A frame with an eight-byte content size, which is also its window size.
        let error = printed(&|bytes| {
            let frame = &mut bytes[frame.clone()];
            frame[..5].copy_from_slice(b"\x28\xb5\x2f\xfd\xe0");
            frame[5..].copy_from_slice(&huge);
        });
        assert!(error.contains("not a complete recording"), "{error}");
    }
}

#[test]
fn contradictory_recordings_are_refused_with_the_topic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hand.mcap");
    let complete = messages();
    by_hand(&path, mcap::WriteOptions::new(), &complete);
    assert_eq!(Recording::read(&path).unwrap().observations.len(), 2);
    let check = |change: &dyn Fn(&mut Vec<ByHand>), fragments: &[&str]| {
        let mut changed = messages();
        change(&mut changed);
        by_hand(&path, mcap::WriteOptions::new(), &changed);
        refused(&path, fragments);
    };
    // [plan, mounts, calibration, camera 1, lidar 1, observation 1, camera 2, lidar 2, observation
    // 2]
    check(&|m| m.clear(), &["no message", "/plan"]);
    check(&|m| drop(m.remove(0)), &["/plan is missing"]);
    check(&|m| drop(m.remove(6)), &["/observation", "after tick 1", "/camera", "lacks"]);
    check(&|m| drop(m.remove(8)), &["/observation", "missing"]);
    check(&|m| drop(m.remove(5)), &["/camera", "two of one tick"]);
    check(&|m| m.swap(5, 8), &["/observation", "tick 2", "sequence number 1"]);
    check(
        &|m| drop(m.splice(6..6, complete[3..6].to_vec())),
        &["/observation", "tick 1 does not come"],
    );
    check(&|m| drop(m.splice(6..6, complete[..1].to_vec())), &["/plan", "second"]);
    check(&|m| m[5].data.push(0), &["/observation", "1 bytes too many"]);
    check(&|m| m[5].data[104] = 9, &["/observation", "flag is 9"]);
    check(&|m| m[5].data.truncate(20), &["/observation", "field of 8"]);
    check(&|m| m[0].data.truncate(50), &["/plan", "points"]);
    check(&|m| m[0].data[52] = 99, &["/plan", "maneuver 99"]);
    check(&|m| m[0].data[16..20].fill(255), &["/plan", "4294967295 points"]);
    check(&|m| m[4].topic = "/radar".to_owned(), &["/radar", "expected one of", "/lidar"]);
    check(
        &|m| m[5].schema = "tandem.Observation/9".to_owned(),
        &["tandem.Observation/9", "tandem.Observation/2"],
    );
    check(&|m| m[3].encoding = "json".to_owned(), &["/camera", "\"json\"", "\"protobuf\""]);
}

/// A field of a protobuf message: its number, wire type and content.
fn field(number: u8, wire: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | wire][..], content].concat()
}

#[test]
fn foxglove_messages_of_other_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hand.mcap");
    let check = |place: usize, more: &[u8], fragments: &[&str]| {
        let mut changed = messages();
        // Of a repeated field the last value counts.
        changed[place].data.extend(more);
        by_hand(&path, mcap::WriteOptions::new(), &changed);
        refused(&path, fragments);
    };
    const FIXED32: u8 = 5;
    const BYTES: u8 = 2;
    let huge = u32::MAX.to_le_bytes();
    check(3, &field(2, FIXED32, &huge), &["/camera", "a row of 4294967295 pixels"]);
    check(3, &field(3, FIXED32, &huge), &["/camera", "4294967295 pixels does not have"]);
    check(3, &field(5, FIXED32, &huge), &["/camera", "does not have 4294967295 bytes"]);
    check(3, &field(4, BYTES, b"\x05bgra8"), &["/camera", "bgra8", "rgb8"]);
    check(3, &field(6, BYTES, b"\x01x"), &["/camera", "does not have 1 bytes"]);
    // A length of 4 GB in a message of a few bytes, and a timestamp of -1 seconds.
    check(3, &field(6, BYTES, b"\xff\xff\xff\xff\x0f"), &["/camera", "buffer underflow"]);
    let minus_one = b"\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    check(3, &field(1, BYTES, minus_one), &["/camera", "-1 s"]);
    check(4, &field(6, BYTES, b"\x01x"), &["/lidar", "multiple of 16"]);
    check(4, &field(4, FIXED32, &huge), &["/lidar", "x, y, z, intensity of f32"]);
    check(4, &field(5, BYTES, b"\x03\x0a\x01x"), &["/lidar", "x, y, z, intensity of f32"]);
}

#[test]
fn recording_of_version_1_is_still_read() {
    let path = Path::new(tandem_testkit::ROOT).join("tests/data/cases/recording-1.mcap");
    let recording = Recording::read(&path).unwrap();
    assert_eq!(recording.plan, plan());
    let expected = [
        observation(1, 0x0123_4567_89ab_cdef, [true; 2]),
        observation(2, 0x3333, [false, true]),
        observation(4, 0xfeed_beef_1234, [true, false]),
    ];
    let read: Vec<_> = recording.observations.iter().map(bits).collect();
    assert_eq!(read, expected.each_ref().map(bits));
}

#[test]
fn recordings_in_every_compression_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hand.mcap");
    let messages = messages();
    let compressions = [None, Some(mcap::Compression::Lz4), Some(mcap::Compression::Zstd)];
    let read = compressions.map(|compression| {
        by_hand(&path, mcap::WriteOptions::new().compression(compression), &messages);
        Recording::read(&path).unwrap().observations.iter().map(bits).collect::<Vec<_>>()
    });
    assert_eq!(
        read[0],
        [observation(1, 6, [true; 2]), observation(2, 6, [true; 2])].map(|o| bits(&o))
    );
    assert!(read[0] == read[1] && read[0] == read[2]);
}

#[test]
fn axes_of_a_cloud_are_converted_to_foxglove() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turned.mcap");
    let points = vec![[1.5, 2.5, 3.5, 0.25], [-1.5, -0.0, f32::NAN, 0.5]];
    let lidar = Some(Arc::new(LidarSweep { id: FrameId(3), points }));
    write(&path, &plan(), &[Observation { lidar, ..observation(3, 6, [false; 2]) }]);
    let messages = messages_of(&fs::read(&path).unwrap());
    let cloud = &messages.iter().find(|message| message.topic == "/lidar").unwrap().data;
    let turned = [[1.5_f32, -2.5, 3.5, 0.25], [-1.5, 0.0, f32::NAN, 0.5]];
    let bytes: Vec<u8> = turned.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    assert!(cloud.windows(bytes.len()).any(|window| window == bytes), "{cloud:?}");
}

#[test]
fn foreign_and_missing_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.mcap");
    refused(&path, &["absent", "tandem record"]);
    fs::write(&path, b"not an MCAP file, but long enough to be one").unwrap();
    refused(&path, &["MCAP"]);
    fs::write(&path, b"").unwrap();
    refused(&path, &["not a complete recording"]);
    let nowhere = folder.path().join("no/such/folder.mcap");
    let error = RecordingWriter::create(&nowhere, &plan(), &sensors()).err().unwrap();
    assert!(matches!(error, RecordingError::Write { .. }) && error.to_string().contains("such"));
}

#[test]
fn message_that_is_too_large_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mcap");
    let mut writer = RecordingWriter::create(&path, &plan(), &sensors()).unwrap();
    let (width, height) = (4096, 4096);
    let rgb = vec![0; 4096 * 4096 * 3];
    let captured_at = Timestamp::ZERO;
    let camera = CameraFrame { id: FrameId(1), captured_at, width, height, rgb };
    let mut large = observation(1, 5, [false; 2]);
    large.cameras = Cameras::one(CameraId::FRONT, Arc::new(camera));
    let error = writer.write(&large).unwrap_err().to_string();
    assert!(error.contains("tick 1") && error.contains("holds at most 33554432"), "{error}");
}

/// Reads recordings with public Python packages, which `.ci/run` fetches.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test takes its files from the environment")]
fn public_readers_read_the_same() {
    let Ok(python) = std::env::var("TANDEM_MCAP_PYTHON") else {
        eprintln!("SKIPPED: TANDEM_MCAP_PYTHON does not name a Python with the packages of .ci");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read.mcap");
    let written: Vec<_> =
        (1..5).map(|tick| observation(tick, tick * 0x0123_4567_89ab, [true, tick != 2])).collect();
    write(&path, &plan(), &written);
    let script = Path::new(tandem_testkit::ROOT).join(".ci/read_recording.py");
    let output =
        std::process::Command::new(python).arg("-I").arg(script).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sha256 = |bytes: &[u8]| {
        let hash = Sha256::digest(bytes);
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let cameras: Vec<_> = written.iter().filter_map(|it| it.camera(CameraId::FRONT)).collect();
    assert_eq!(read["/camera"].as_array().unwrap().len(), cameras.len());
    for (image, camera) in read["/camera"].as_array().unwrap().iter().zip(cameras) {
        assert_eq!(image["data"], sha256(&camera.rgb));
        assert_eq!(image["encoding"], "rgb8");
        assert_eq!(image["frame_id"], "camera");
        let size = [&image["width"], &image["height"]].map(|number| number.as_u64().unwrap());
        assert_eq!(size, [u64::from(camera.width), u64::from(camera.height)]);
    }
    let sweeps: Vec<_> = written.iter().filter_map(|it| it.lidar.as_ref()).collect();
    assert_eq!(read["/lidar"].as_array().unwrap().len(), sweeps.len());
    for (cloud, sweep) in read["/lidar"].as_array().unwrap().iter().zip(sweeps) {
        let turned = sweep.points.iter().flat_map(|&[x, y, z, intensity]| [x, -y, z, intensity]);
        let bytes: Vec<u8> = turned.flat_map(f32::to_le_bytes).collect();
        // Empty parts are absent.
        let expected = if bytes.is_empty() { None } else { Some(sha256(&bytes)) };
        assert_eq!(cloud.get("data").and_then(|data| data.as_str()), expected.as_deref());
        let offsets = cloud["fields"].as_array().unwrap().iter().map(|field| &field["name"]);
        assert_eq!(offsets.collect::<Vec<_>>(), ["x", "y", "z", "intensity"]);
    }
    assert_eq!(read["/observation"].as_array().unwrap().len(), written.len());
    let frames = read["/tf"][0]["transforms"].as_array().unwrap();
    let frames: Vec<_> = frames.iter().map(|frame| &frame["child_frame_id"]).collect();
    assert_eq!(frames, ["camera", "lidar"]);
    // 1024 pixels over 110 degrees.
    let focal_px = read["/camera/calibration"][0]["K"][0].as_f64().unwrap();
    assert!((focal_px - 512.0 / 55.0_f64.to_radians().tan()).abs() < 1e-9, "{focal_px}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn complete_ticks_before_a_cut_are_recovered(
        cut in 0.0..1.0_f64,
        seeds in prop::collection::vec(any::<u64>(), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let [path, partial, complete] =
            ["drive.mcap", "partial.mcap", "complete.mcap"].map(|name| folder.path().join(name));
        let written: Vec<_> =
            (1..).zip(seeds).map(|(tick, seed)| observation(tick, seed, [true; 2])).collect();
        write(&path, &plan(), &written);
        let bytes = fs::read(&path).unwrap();
        let length = (bytes.len() as f64 * cut) as usize;
        fs::write(&partial, &bytes[..length]).unwrap();
        // Of the chunks that end before the cut, the first is the plan and each other one a tick.
        let chunks = places_of(6, &bytes).iter().filter(|chunk| chunk.end <= length).count();
        let recovered = recover(&partial, &complete);
        prop_assert_eq!(fs::read(&partial).unwrap().len(), length, "the partial file was changed");
        if chunks == 0 {
            prop_assert!(recovered.is_err() && !complete.exists());
            return Ok(());
        }
        let recovery = recovered.unwrap();
        prop_assert_eq!(recovery.ticks, chunks as u64 - 1);
        prop_assert_eq!(recovery.last.map_or(0, |(frame, _)| frame.0), recovery.ticks);
        // After the end of the data only the index is lost.
        let has_all = places_of(15, &bytes)[0].end <= length;
        prop_assert_eq!(recovery.loss.is_none(), has_all);
        if let Some(loss) = recovery.loss {
            prop_assert!(loss.kept_bytes <= loss.total_bytes);
            prop_assert_eq!(loss.total_bytes, length as u64);
        }
        let read = Recording::read(&complete).unwrap();
        prop_assert_eq!(&read.plan, &plan());
        let read: Vec<_> = read.observations.iter().map(bits).collect();
        let kept: Vec<_> = written[..chunks - 1].iter().map(bits).collect();
        prop_assert_eq!(read, kept);
    }
}

#[test]
fn ticks_before_a_damaged_byte_are_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = complete(folder.path());
    let chunks = places_of(6, &bytes);
    let [partial, out] = ["partial.mcap", "out.mcap"].map(|name| folder.path().join(name));
    // A byte of the second of three ticks.
    bytes[chunks[2].end - 5] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    let recovery = recover(&partial, &out).unwrap();
    let loss = recovery.loss.unwrap();
    assert_eq!((recovery.ticks, loss.total_bytes), (1, bytes.len() as u64));
    assert!(loss.kept_bytes < chunks[2].start as u64 + 200, "{}", loss.kept_bytes);
    assert!(!loss.reason.contains("record it again"), "{}", loss.reason);
    assert_eq!(Recording::read(&out).unwrap().observations.len(), 1);
    // A complete recording is copied completely, with its schemas.
    let recovery = recover(&folder.path().join("complete.mcap"), &out).unwrap();
    assert!(recovery.loss.is_none() && recovery.ticks == 3);
    let [copy, original] = ["out.mcap", "complete.mcap"].map(|name| {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
        (summary.schemas, summary.channels, messages_of(&bytes).len())
    });
    assert_eq!(copy, original);
}

#[test]
fn recovery_refuses_to_overwrite_files_in_use() {
    let folder = tempfile::tempdir().unwrap();
    complete(folder.path());
    let complete = folder.path().join("complete.mcap");
    let before = fs::read(&complete).unwrap();
    let error = recover(&complete, &complete).err().unwrap();
    assert!(matches!(error, RecordingError::Write { .. }), "{error}");
    let path = folder.path().join("new.mcap");
    let writer = RecordingWriter::create(&path, &plan(), &sensors()).unwrap();
    let part = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let part = part.into_iter().find(|path| path.extension().is_some_and(|e| e == "part")).unwrap();
    let error = recover(&part, &folder.path().join("out.mcap")).err().unwrap();
    assert!(matches!(error, RecordingError::InUse { .. }), "{error}");
    // A recording recovered to its own name stays until the next writer of that name.
    let left = writer.leave().unwrap();
    assert_eq!(left, part);
    assert_eq!(recover(&part, &path).unwrap().ticks, 0);
    assert!(part.exists() && path.exists());
    assert_eq!(fs::read(&complete).unwrap(), before);
}

#[test]
fn killed_recording_is_recovered_up_to_its_last_tick() {
    let folder = tempfile::tempdir().unwrap();
    let tandem = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.current_dir(folder.path());
        command
    };
    let routes = Path::new(tandem_testkit::ROOT).join("routes/demo.xml");
    // The signal arrives at a file size of 1 to 2 MB, in the middle of a tick.
    let killed = std::process::Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_tandem"))
        .args(["record", "--out", "drive.mcap", "--routes"])
        .arg(&routes)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = entries.collect();
    let [part] = &left[..] else { panic!("{left:?}") };
    let name = part.to_string_lossy();
    assert!(name.starts_with(".drive.mcap.") && name.ends_with(".part"), "{name}");
    let recover = |from: &std::ffi::OsStr| {
        let output = tandem()
            .args(["record", "--json", "--out", "drive.mcap", "--recover"])
            .arg(from)
            .output();
        let output = output.unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr.clone()].concat()).unwrap();
        (output.status.code(), printed)
    };
    let (code, printed) = recover(part);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("lost: all data after tick"), "{printed}");
    let recording = Recording::read(&folder.path().join("drive.mcap")).unwrap();
    let ticks = recording.observations.len();
    assert!(ticks > 2 && printed.contains(&format!("\"ticks\": {ticks},")), "{printed}");
    assert!(
        recording
            .observations
            .iter()
            .all(|it| it.camera(CameraId::FRONT).is_some() && it.lidar.is_some())
    );
    let last = recording.observations[ticks - 1].frame;
    assert_eq!(last, FrameId(ticks as u64));

    fs::write(folder.path().join("nothing.mcap"), b"\x89MCAP0\r\n").unwrap();
    let (code, printed) = recover("nothing.mcap".as_ref());
    assert!(code == Some(2) && printed.contains("not even its plan"), "{printed}");
    let (code, printed) = recover("absent.mcap".as_ref());
    assert!(code == Some(2) && printed.contains("absent.mcap"), "{printed}");
    assert_eq!(
        Recording::read(&folder.path().join("drive.mcap")).unwrap().observations.len(),
        ticks
    );
}

#[test]
fn record_writes_the_observations_of_the_world() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.mcap");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tandem"))
            .current_dir(tandem_testkit::ROOT)
            .args(["record", "--routes", "routes/demo.xml", "--out", path.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, printed) = run(&["--ticks", "12", "--seed", "5", "--json"]);
    assert_eq!(code, Some(0), "{printed}");
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    assert_eq!((printed["ticks"].as_u64(), printed["bytes"].as_u64()), (Some(12), Some(bytes)));

    let routes = Path::new(tandem_testkit::ROOT).join("routes/demo.xml");
    let route = &read_routes(&routes).unwrap()[0];
    let suite = SensorSuite { truth: true, ..sensors() };
    let mut world = EmbeddedWorld::new(route, suite, 5).unwrap();
    let mut autopilot = Autopilot::new();
    let recording = Recording::read(&path).unwrap();
    assert_eq!(recording.plan, **world.plan());
    assert_eq!(recording.observations.len(), 12);
    for read in &recording.observations {
        let seen = world.observe();
        assert!(
            seen.camera(CameraId::FRONT).is_some() && seen.lidar.is_some() && read.truth.is_none()
        );
        assert_eq!(bits(read), bits(&seen), "tick {}", seen.frame.0);
        world.step(&autopilot.drive(&seen).unwrap().command);
    }

    let (code, printed) = run(&["--route", "77"]);
    assert!(
        code == Some(2) && printed.contains("does not contain this route; it contains 1"),
        "{printed}"
    );
    assert_eq!(run(&["--ticks", "0"]).0, Some(2));
}
