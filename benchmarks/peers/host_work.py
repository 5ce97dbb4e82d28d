"""The host work of one tick in Python, as an agent of the release's stack does it.

Reads the folder that `tandem-benchmarks host-work record DIR` wrote, does the same steps on the same
data with the libraries that the release names, checks them against tandem's answers, times each
stage and prints one line of JSON of the same form as `host-work measure DIR`.

Written for this comparison from a description of the release; no code of the release is in here.
Where the release has slower habits (frames kept as floats on a GPU, prints, pictures saved to disk)
this peer does not copy them. One thread: `compare_host_work.py` sets the environment and the core.

    python3 -m venv VENV && VENV/bin/pip install numpy==2.2.6 opencv-python-headless==4.12.0.88 \
        pillow==11.3.0 scipy==1.15.3 filterpy==1.4.5 tokenizers==0.22.1 safetensors==0.6.2
    VENV/bin/python benchmarks/peers/host_work.py DIR
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json
import math
import platform
from collections import deque
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns

import cv2
import numpy as np
from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter
from PIL import Image
from safetensors.numpy import load_file
from scipy.interpolate import PchipInterpolator
from tokenizers import Tokenizer

cv2.setNumThreads(1)

LIBRARIES = [
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scipy",
    "filterpy",
    "tokenizers",
    "safetensors",
]

EARTH_RADIUS = 6378137.0
TICK = 0.05

LOCALIZE, LIDAR, PLANNER, VIEW, JPEG, CONTROL, PROMPT, FRAME = (
    "localize",
    "lidar",
    "planner",
    "view",
    "jpeg",
    "control",
    "prompt",
    "frame",
)
RUNS = {
    LOCALIZE: "tick",
    LIDAR: "tick",
    PLANNER: "tick",
    VIEW: "tick, without JPEG",
    JPEG: "tick, with JPEG",
    CONTROL: "tick",
    PROMPT: "refresh",
    FRAME: "refresh, each of four frames",
}


def wrap(angle):
    angle = angle % (2 * math.pi)
    return angle - 2 * math.pi if angle > math.pi else angle


def rotation(yaw):
    return np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])


# --- Localization ---------------------------------------------------------------------------------


def metres(latitude, longitude, reference):
    """Latitude and longitude in the map's plane."""
    scale = math.cos(reference[0] * math.pi / 180)
    x = scale * EARTH_RADIUS * math.pi / 180 * (longitude - reference[1])
    north = math.log(math.tan((90 + latitude) * math.pi / 360))
    origin = math.log(math.tan((90 + reference[0]) * math.pi / 360))
    return np.array([x, scale * EARTH_RADIUS * (origin - north)])


def bicycle(state, dt, steer, throttle, brake):
    front, rear = -0.090769015, 1.4178275
    slip = math.atan(rear / (front + rear) * math.tan(0.36848336 * steer))
    acceleration = -4.952399 if brake else 0.5633837 * throttle
    x, y, yaw, speed = state
    return np.array(
        [
            x + speed * math.cos(yaw + slip) * dt,
            y + speed * math.sin(yaw + slip) * dt,
            yaw + speed / rear * math.sin(slip) * dt,
            max(0.0, speed + acceleration * dt),
        ]
    )


def mean_state(points, weights):
    mean = np.dot(weights, points)
    sine = np.sum(np.dot(np.sin(points[:, 2]), weights))
    cosine = np.sum(np.dot(np.cos(points[:, 2]), weights))
    mean[2] = math.atan2(sine, cosine)
    return mean


def difference(a, b):
    offset = a - b
    offset[2] = wrap(offset[2])
    return offset


class Localizer:
    def __init__(self, reference):
        self.reference = reference
        points = MerweScaledSigmaPoints(4, 1e-5, 2.0, 0.0, subtract=difference)
        self.filter = UnscentedKalmanFilter(
            dim_x=4,
            dim_z=4,
            dt=TICK,
            hx=lambda state: state,
            fx=bicycle,
            points=points,
            x_mean_fn=mean_state,
            z_mean_fn=mean_state,
            residual_x=difference,
            residual_z=difference,
        )
        self.filter.P = np.diag([0.5, 0.5, 1e-6, 1e-6])
        self.filter.R = np.diag([0.5, 0.5, 1e-15, 1e-15])
        self.filter.Q = np.diag([1e-4, 1e-4, 1e-3, 1e-3])
        self.started = False

    def update(self, latitude, longitude, compass, speed, last_command):
        place = metres(latitude, longitude, self.reference)
        yaw = wrap((0.0 if math.isnan(compass) else compass) - math.pi / 2)
        reading = np.array([place[0], place[1], yaw, speed])
        if not self.started:
            self.filter.x = reading
            self.started = True
        steer, throttle, brake = last_command
        self.filter.predict(steer=steer, throttle=throttle, brake=brake)
        self.filter.update(reading)
        return self.filter.x[:3].copy()


# --- LiDAR ----------------------------------------------------------------------------------------

EDGES = np.linspace(-32, 32, 257)


class Sweeps:
    def __init__(self):
        yaw = np.deg2rad(-90.0)
        self.turn = np.array(
            [
                [math.cos(yaw), -math.sin(yaw), 0.0],
                [math.sin(yaw), math.cos(yaw), 0.0],
                [0.0, 0.0, 1.0],
            ]
        )
        self.mount = np.array([0.0, 0.0, 2.5])
        self.previous = None
        self.previous_pose = None

    def push(self, returns, pose):
        current = (self.turn @ returns[:, :3].T).T + self.mount
        points = current
        if self.previous is not None:
            driven = rotation(pose[2]).T @ (pose[:2] - self.previous_pose[:2])
            turned = wrap(pose[2] - self.previous_pose[2])
            turn = np.eye(3)
            turn[:2, :2] = rotation(turned)
            aligned = (turn.T @ (self.previous - np.array([driven[0], driven[1], 0.0])).T).T
            points = np.concatenate([current, aligned])
        self.previous, self.previous_pose = current, pose
        points = points[points[:, 2] < 100]
        points = points[points[:, 2] > 0.2]
        histogram = np.histogramdd(points[:, :2], bins=(EDGES, EDGES))[0]
        histogram[histogram > 5] = 5
        return (histogram / 5).T[np.newaxis].astype(np.float32)


# --- Route ----------------------------------------------------------------------------------------

LANE_FOLLOW, LANE_CHANGES = 4, (5, 6)


class Planner:
    def __init__(self, plan):
        self.ahead = deque((np.array(row[:2]), int(row[3])) for row in plan)

    def advance(self, ego):
        if len(self.ahead) <= 2:
            return
        reached, farthest, along = 0, -math.inf, 0.0
        for index in range(1, len(self.ahead)):
            if along > 50.0:
                break
            place, command = self.ahead[index]
            along += np.linalg.norm(place - self.ahead[index - 1][0])
            distance = np.linalg.norm(place - ego)
            limit = 7.5
            if command in LANE_CHANGES and index + 1 < len(self.ahead):
                next_place, next_command = self.ahead[index + 1]
                if next_command == LANE_FOLLOW or np.linalg.norm(next_place - place) < 7.5:
                    limit = 15.0
            if distance <= limit and distance > farthest:
                reached, farthest = index, distance
        for _ in range(min(reached, len(self.ahead) - 2)):
            self.ahead.popleft()

    def targets(self, pose):
        ego, forward = pose[:2], rotation(pose[2])[:, 0]

        def beyond(place):
            length = np.linalg.norm(place - ego)
            return place + 5.0 * ((place - ego) / length if length > 1e-3 else forward)

        places = [place for place, _ in list(self.ahead)[:3]]
        if len(places) > 2:
            pair = places[1], places[2]
        elif places:
            pair = places[-1], beyond(places[-1])
        else:
            pair = ego, ego + 50.0 * forward
        return [rotation(pose[2]).T @ (place - ego) for place in pair]


# --- Pictures -------------------------------------------------------------------------------------


def view(rgb):
    return rgb[:384]


def jpeg(bgr):
    """Through a file at OpenCV's default quality, and the part that the encoder sees, RGB."""
    _, data = cv2.imencode(".jpg", bgr)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)[:384]


def resize(rgb):
    return np.asarray(Image.fromarray(rgb).resize((512, 256), Image.Resampling.LANCZOS))


def patches(rgb):
    """Rescaled and normalized in one step, one frame for both of a patch, blocks of 2 × 2 patches."""
    planes = (rgb.astype(np.float32) - 127.5) / 127.5
    planes = np.broadcast_to(planes.transpose(2, 0, 1), (2, 3, 256, 512))
    blocks = planes.reshape(2, 3, 8, 2, 16, 16, 2, 16)
    # frame, channel, (block row, row, y), (block column, column, x)
    return blocks.transpose(2, 5, 3, 6, 1, 0, 4, 7).reshape(512, 1536)


# --- Prompt ---------------------------------------------------------------------------------------


def prompt(speed, target, following):
    speed, x1, y1, x2, y2 = (float(np.float32(value)) for value in (speed, *target, *following))
    return (
        f"Your current and next target point is ({x1:.6f}, {y1:.6f}), ({x2:.6f}, {y2:.6f}), "
        f"and your current velocity is {speed:.2f} m/s. Predict the driving actions ( now, +1s, "
        "+2s) and plan the trajectory for the next 3 seconds.<|im_end|>"
    )


# --- Control --------------------------------------------------------------------------------------


class Follower:
    def __init__(self):
        self.speed_errors = deque([0.0] * 20, maxlen=20)
        self.heading_errors = deque(maxlen=6)
        self.stuck = 0
        self.force_move = 0

    def follow(self, path, waypoints, speed):
        desired = float(np.linalg.norm(waypoints[1] - waypoints[0]) * 2.0)
        brake = desired < 0.4 or speed / max(desired, 1e-5) > 1.1
        self.speed_errors.append(float(np.clip(desired - speed, 0.0, 1.0)))
        errors = self.speed_errors
        throttle = 1.75 * errors[-1] + 1.0 * np.mean(errors) + 2.0 * (errors[-1] - errors[-2])
        throttle = 0.0 if brake else float(np.clip(throttle, 0.0, 1.0))

        points = np.concatenate([np.zeros((1, 2), dtype=path.dtype), path])
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        lengths = np.concatenate([np.zeros(1, dtype=steps.dtype), np.cumsum(steps)])
        lengths = (lengths + 1e-4 * np.arange(len(lengths))).astype(np.float32)
        at = np.arange(0.1, lengths[-1], 0.1)
        if len(at):
            along = np.stack(
                [PchipInterpolator(lengths, points[:, axis])(at) for axis in (0, 1)],
                axis=1,
            )
        else:
            along = path[-1:]
        index = np.clip(0.9755321901954155 * speed * 3.6 + 1.195, 24, 105)
        x, y = along[int(min(index, len(along) - 1))]
        self.heading_errors.append(wrap(math.atan2(y, x)) / (math.pi / 2))
        errors = self.heading_errors
        change = errors[-1] - errors[-2] if len(errors) > 1 else 0.0
        steer = 3.118 * errors[-1] + 1.3782508892109167 * change + 0.6406067986034124 * np.mean(errors)
        steer = round(float(np.clip(steer, -1.0, 1.0)), 3)

        if speed < 0.1:
            self.stuck += 1
        elif speed > 0.2:
            self.stuck = 0
        if self.stuck > 300:
            self.force_move = 14
        if self.force_move > 0:
            throttle, brake = max(0.4, throttle), False
            self.force_move -= 1
        if speed * 3.6 > 35:
            throttle, brake = 0.0, True
        return steer, throttle, float(brake)


# --- The run --------------------------------------------------------------------------------------


class Recording:
    def __init__(self, folder):
        data = load_file(folder / "observations.safetensors")
        self.rgb = data["frames"]
        ends = np.cumsum(data["lidar.counts"])[:-1]
        self.sweeps = np.split(data["lidar.points"], ends)
        self.readings = data["gnss_compass_speed"].tolist()
        self.commands = data["last_command"].tolist()
        self.paths, self.waypoints = data["path"], data["waypoints"]
        self.plan, self.reference = data["plan"], data["reference"].tolist()
        self.ticks = len(self.rgb)


def drive(recording, tokenizer, lap, answer):
    localizer, sweeps = Localizer(recording.reference), Sweeps()
    planner, follower = Planner(recording.plan), Follower()
    for tick in range(recording.ticks):
        latitude, longitude, _, compass, speed = recording.readings[tick]
        rgb = recording.rgb[tick]
        bgr = np.ascontiguousarray(rgb[..., ::-1])  # Channel order of the camera; not timed.

        start = perf_counter_ns()
        pose = localizer.update(latitude, longitude, compass, speed, recording.commands[tick])
        lap(LOCALIZE, perf_counter_ns() - start)

        start = perf_counter_ns()
        histogram = sweeps.push(recording.sweeps[tick], pose)
        lap(LIDAR, perf_counter_ns() - start)

        start = perf_counter_ns()
        planner.advance(pose[:2])
        target, following = planner.targets(pose)
        lap(PLANNER, perf_counter_ns() - start)

        start = perf_counter_ns()
        view(rgb)
        lap(VIEW, perf_counter_ns() - start)

        start = perf_counter_ns()
        decoded = jpeg(bgr)
        lap(JPEG, perf_counter_ns() - start)

        start = perf_counter_ns()
        command = follower.follow(recording.paths[tick], recording.waypoints[tick], speed)
        lap(CONTROL, perf_counter_ns() - start)

        start = perf_counter_ns()
        tokens = tokenizer.encode(prompt(speed, target, following), add_special_tokens=False).ids
        lap(PROMPT, perf_counter_ns() - start)

        start = perf_counter_ns()
        resized = resize(rgb)
        cut = patches(resized)
        lap(FRAME, perf_counter_ns() - start)
        answer(tick, pose, histogram, (*target, *following), decoded, command, tokens, resized, cut)


class Check:
    """Compares each answer with tandem's and keeps the largest differences."""

    def __init__(self, folder):
        self.expected = load_file(folder / "expected.safetensors")
        counts = self.expected["tokens.counts"]
        self.tokens = np.split(self.expected["tokens"], np.cumsum(counts)[:-1])
        self.worst = dict.fromkeys(("pose_m", "yaw_rad", "targets_m", "command"), 0.0)
        self.differing = dict.fromkeys(("histogram", "tokens", "resized", "patches", "jpeg"), 0)
        self.jpeg_worst = 0

    def see(self, tick, pose, histogram, targets, decoded, command, tokens, resized, cut):
        expected = self.expected

        def worst(name, found, wanted):
            self.worst[name] = max(self.worst[name], float(np.max(np.abs(np.asarray(found) - wanted))))

        worst("pose_m", pose[:2], expected["pose"][tick, :2])
        worst("yaw_rad", wrap(pose[2] - expected["pose"][tick, 2]), 0.0)
        worst("targets_m", targets, expected["targets"][tick])
        worst("command", command, expected["command"][tick])
        counts = np.rint(histogram[0] * 5).astype(np.uint8)
        # A point on an edge may be on either side if the poses differ by a millimetre.
        self.differing["histogram"] += int(np.sum(counts != expected["histogram.counts"][tick]))
        self.differing["tokens"] += int(not np.array_equal(tokens, self.tokens[tick]))
        place = np.flatnonzero(expected["pictures.ticks"] == tick)
        if len(place):
            place = place[0]
            self.differing["resized"] += int(np.sum(resized != expected["pictures.resized"][place]))
            self.differing["patches"] += int(np.sum(cut != expected["pictures.patches"][place]))
            other = np.abs(decoded.astype(int) - expected["pictures.jpeg"][place])
            self.differing["jpeg"] += int(np.sum(other > 0))
            self.jpeg_worst = max(self.jpeg_worst, int(other.max()))

    def result(self):
        return {"worst": self.worst, "differing": self.differing, "jpeg_worst_level": self.jpeg_worst}


def check_exactly(folder, recording):
    """Histogram and text from tandem's poses and targets, independent of rounding in the filter."""
    expected = load_file(folder / "expected.safetensors")
    sweeps, cells = Sweeps(), 0
    for tick in range(recording.ticks):
        counts = np.rint(sweeps.push(recording.sweeps[tick], expected["pose"][tick])[0] * 5)
        cells += int(np.sum(counts != expected["histogram.counts"][tick]))
    return cells


def check_tokens(folder, recording, tokenizer):
    expected = load_file(folder / "expected.safetensors")
    wanted = np.split(expected["tokens"], np.cumsum(expected["tokens.counts"])[:-1])
    prompts = 0
    for tick in range(recording.ticks):
        targets = expected["targets"][tick]
        text = prompt(recording.readings[tick][4], targets[:2], targets[2:])
        found = tokenizer.encode(text, add_special_tokens=False).ids
        prompts += int(not np.array_equal(found, wanted[tick]))
    return prompts


def distribution(runs, samples):
    ordered = sorted(samples)
    rank = lambda part: ordered[max(1, math.ceil(part * len(ordered))) - 1]
    return {
        "runs": runs,
        "count": len(ordered),
        "p50": rank(0.5),
        "p99": rank(0.99),
        "max": ordered[-1],
        "samples": samples,
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder
    root = Path(__file__).resolve().parents[2]
    tokenizer = Tokenizer.from_file(str(root / "tests/data/automot/tokenizer.json"))
    recording = Recording(folder)

    check = Check(folder)
    drive(recording, tokenizer, lambda *_: None, check.see)  # Also warms up.
    checks = check.result()
    checks["histogram_cells_differing_at_tandems_poses"] = check_exactly(folder, recording)
    checks["prompts_differing_at_tandems_targets"] = check_tokens(folder, recording, tokenizer)
    checks["ok"] = (
        checks["worst"]["pose_m"] < 3e-3
        and checks["worst"]["command"] < 2e-3
        and checks["differing"]["resized"] == 0
        and checks["histogram_cells_differing_at_tandems_poses"] == 0
        and checks["prompts_differing_at_tandems_targets"] == 0
    )

    samples = {stage: [] for stage in RUNS}
    drive(recording, tokenizer, lambda stage, took: samples[stage].append(took), lambda *_: None)

    both = zip(*(samples[stage] for stage in (LOCALIZE, LIDAR, PLANNER, CONTROL)))
    common = [sum(parts) for parts in both]
    plain = [a + b for a, b in zip(common, samples[VIEW])]
    lossy = [a + b for a, b in zip(common, samples[JPEG])]
    history = 15
    refresh = [
        samples[PROMPT][tick] + sum(samples[FRAME][tick - age] for age in (0, 5, 10, 15))
        for tick in range(history, recording.ticks)
    ]
    in_turn = [a + b for a, b in zip(lossy[history:], refresh)]
    print(
        json.dumps(
            {
                "bench": "host-work measure",
                "implementation": "python",
                "version": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in LIBRARIES},
                },
                "ticks": recording.ticks,
                "unit": "ns",
                "checks": checks,
                "stages": {stage: distribution(RUNS[stage], samples[stage]) for stage in RUNS},
                "totals": {
                    "tick": distribution("tick, without JPEG", plain),
                    "tick_jpeg": distribution("tick, with JPEG", lossy),
                    "refresh": distribution("refresh, four frames", refresh),
                    "refresh_tick_jpeg": distribution(
                        "tick with JPEG and a refresh of four frames, one after the other", in_turn
                    ),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
