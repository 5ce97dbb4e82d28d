// Replay: a drive from above, with the duration of every stage.
"use strict";

// Decodes a log file into arrays: lengths in meters, angles in radians, times in milliseconds.
const Replay = (() => {
  const column = (differences, count, scale) => {
    const values = new Float64Array(count);
    let value = 0;
    for (let i = 0; i < count; i++) {
      if (i < differences.length) value += differences[i];
      values[i] = value / scale;
    }
    return values;
  };

  // NaN at entries without a value.
  const spread = (runs, count, scale) => {
    const values = new Float64Array(count).fill(NaN);
    let at = 0;
    for (const [first, length] of runs.runs) {
      for (let i = first; i < first + length; i++) values[i] = runs.values[at++] / scale;
    }
    return values;
  };

  const line = (entry) => ({ x: column(entry.x, entry.points, 100), y: column(entry.y, entry.points, 100) });

  const decode = (file) => {
    const drive = file.drive;
    const count = drive.ticks;
    const log = {
      count,
      planned: line(file.planned),
      strips: file.strips.map((s) => ({ kind: s.kind, width: s.width / 100, center: line(s.center) })),
      events: file.events,
      time: column(drive.time, count, 1000),
      x: column(drive.x, count, 100),
      y: column(drive.y, count, 100),
      yaw: column(drive.yaw, count, 1000),
      speed: column(drive.speed, count, 100),
      steer: column(drive.steer, count, 1000),
      throttle: column(drive.throttle, count, 1000),
      brake: column(drive.brake, count, 1000),
      stages: new Map(Object.entries(drive.stages).map(([name, runs]) => [name, spread(runs, count, 1e4)])),
      version: spread(drive.prefix_version, count, 1),
      age: spread(drive.prefix_age, count, 1e4),
      late: spread(drive.late_by, count, 1e4),
      held: spread(drive.held, count, 1),
      lights: file.lights,
      signs: file.signs,
      scenarios: file.scenarios,
      waypoints: new Map(file.waypoints.map(([scene, spacing, numbers]) => [scene, { spacing, numbers }])),
      actors: file.actors.map((actor) => ({
        id: actor.id,
        kind: actor.kind,
        type: actor.type,
        half: actor.half.map((v) => v / 100),
        runs: actor.runs.map((run) => ({
          scene: run.scene,
          scenes: run.scenes,
          x: column(run.x, run.scenes, 100),
          y: column(run.y, run.scenes, 100),
          yaw: column(run.yaw, run.scenes, 1000),
        })),
      })),
    };
    return log;
  };

  const unpack = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return decode(JSON.parse(await new Response(stream).text()));
  };

  // Pose of an actor at tick `at` (from 0, may be fractional); null if it is not in the log there.
  const poseOf = (actor, at) => {
    const scene = at / 2;
    for (const run of actor.runs) {
      const offset = scene - run.scene;
      if (offset < 0 || offset > run.scenes - 1 + 0.5) continue;
      const i = Math.min(Math.floor(offset), run.scenes - 1);
      const j = Math.min(i + 1, run.scenes - 1);
      const part = Math.min(offset - i, 1);
      let turn = (run.yaw[j] - run.yaw[i]) % (2 * Math.PI);
      if (turn > Math.PI) turn -= 2 * Math.PI;
      if (turn < -Math.PI) turn += 2 * Math.PI;
      return {
        x: run.x[i] + (run.x[j] - run.x[i]) * part,
        y: run.y[i] + (run.y[j] - run.y[i]) * part,
        yaw: run.yaw[i] + turn * part,
      };
    }
    return null;
  };

  const shown = (light, tick) => {
    let color = null;
    for (const [from, name] of light.shows) if (from <= tick) color = name;
    return color;
  };

  return { unpack, poseOf, shown };
})();

// Viewer of the page.
const Viewer = (() => {
  const by = (id) => document.getElementById(id);
  const TICK_MS = 50;
  // Half sizes of the benchmark's ego vehicle, meters.
  const EGO = [2.45, 1.06];
  // Stages of a tick, drawn as a stacked bar, and their colors.
  const PARTS = [
    ["state filter", "--s5"], ["lidar histogram", "--s3"], ["planner", "--s5"], ["publish", "--s5"],
    ["refresh request", "--s5"], ["picture", "--s3"], ["upload", "--s3"], ["bev", "--s1"],
    ["action", "--s4"], ["download", "--s3"], ["trajectory", "--s5"], ["control", "--s2"],
  ];
  const REFRESH_PARTS = ["hand-off", "prompt", "resize", "patchify", "vision", "gather", "understanding", "seal"];

  let routes = [];
  let route = null;
  let log = null;
  let tick = 1;
  let playing = false;
  let lastFrame = 0;
  let carry = 0;
  let zoom = 7;
  let center = null;
  let loading = 0;
  const cache = new Map();

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Sets a canvas to its displayed size; returns its context in CSS pixels.
  const context = (canvas) => {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = canvas.getBoundingClientRect();
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    return { ctx, width, height };
  };

  const followLine = (ctx, points, from = 0) => {
    ctx.beginPath();
    for (let i = from; i < points.x.length; i++) ctx.lineTo(points.x[i], points.y[i]);
  };

  const box = (ctx, pose, half) => {
    ctx.save();
    ctx.translate(pose.x, pose.y);
    ctx.rotate(pose.yaw);
    ctx.beginPath();
    ctx.rect(-half[0], -half[1], 2 * half[0], 2 * half[1]);
    ctx.fill();
    ctx.stroke();
    // The front.
    ctx.beginPath();
    ctx.moveTo(half[0], 0);
    ctx.lineTo(half[0] * 0.4, half[1] * 0.7);
    ctx.lineTo(half[0] * 0.4, -half[1] * 0.7);
    ctx.closePath();
    ctx.globalAlpha = 0.35;
    ctx.fillStyle = "#000";
    ctx.fill();
    ctx.restore();
  };

  const groundBox = (ctx, [x, y, yaw, halfX, halfY]) => {
    ctx.save();
    ctx.translate(x / 100, y / 100);
    ctx.rotate(yaw / 1000);
    ctx.strokeRect(-halfX / 100, -halfY / 100, halfX / 50, halfY / 50);
    ctx.restore();
  };

  const drawMap = () => {
    const { ctx, width, height } = context(by("map"));
    const i = tick - 1;
    const ego = { x: log.x[i], y: log.y[i], yaw: log.yaw[i] };
    const middle = center || ego;
    const turned = !center && by("heading-up").checked;
    ctx.fillStyle = color("--ground");
    ctx.fillRect(0, 0, width, height);
    ctx.translate(width / 2, height * (turned ? 0.68 : 0.5));
    ctx.scale(zoom, zoom);
    if (turned) ctx.rotate(-ego.yaw - Math.PI / 2);
    ctx.translate(-middle.x, -middle.y);
    ctx.lineJoin = "round";

    ctx.lineCap = "butt";
    for (const kind of ["sidewalk", "parking", "bicycle", "driving"]) {
      for (const strip of log.strips) {
        if (strip.kind !== kind) continue;
        followLine(ctx, strip.center);
        ctx.strokeStyle = color("--lane-edge");
        ctx.lineWidth = strip.width;
        ctx.stroke();
        ctx.strokeStyle = color("--lane-" + kind);
        ctx.lineWidth = Math.max(strip.width - 0.24, 0.1);
        ctx.stroke();
      }
    }
    ctx.lineCap = "round";
    ctx.strokeStyle = color("--planned");
    ctx.lineWidth = 0.9;
    ctx.globalAlpha = 0.55;
    followLine(ctx, log.planned);
    ctx.stroke();
    ctx.globalAlpha = 1;
    // Path driven so far.
    ctx.beginPath();
    for (let j = 0; j <= i; j++) ctx.lineTo(log.x[j], log.y[j]);
    ctx.strokeStyle = color("--s1");
    ctx.lineWidth = 0.3;
    ctx.stroke();

    const lamps = { red: "#e5352b", yellow: "#f0b400", green: "#21b35b", off: "#888" };
    for (const light of log.lights) {
      const shows = Replay.shown(light, tick);
      if (!shows) continue;
      ctx.strokeStyle = lamps[shows];
      ctx.lineWidth = 0.35;
      groundBox(ctx, light.watches);
      ctx.fillStyle = lamps[shows];
      ctx.beginPath();
      ctx.arc(light.at[0] / 100, light.at[1] / 100, 0.9, 0, 2 * Math.PI);
      ctx.fill();
    }
    for (const sign of log.signs) {
      ctx.strokeStyle = lamps.red;
      ctx.lineWidth = 0.2;
      groundBox(ctx, sign.watches);
      ctx.fillStyle = lamps.red;
      ctx.beginPath();
      for (let k = 0; k < 8; k++) {
        const angle = (k + 0.5) * Math.PI / 4;
        ctx.lineTo(sign.at[0] / 100 + Math.cos(angle), sign.at[1] / 100 + Math.sin(angle));
      }
      ctx.fill();
    }

    ctx.lineWidth = 0.12;
    let near = 0;
    for (const actor of log.actors) {
      const pose = Replay.poseOf(actor, i);
      if (!pose) continue;
      near++;
      ctx.fillStyle = color("--actor-" + actor.kind);
      ctx.strokeStyle = color("--ink");
      // Pedestrians and bicycles are drawn larger than they are, to be visible.
      const least = actor.kind === "pedestrian" || actor.kind === "bicycle" ? 0.45 : 0.2;
      box(ctx, pose, actor.half.map((v) => Math.max(v, least)));
    }
    ctx.fillStyle = color("--s1");
    ctx.strokeStyle = color("--ink");
    box(ctx, ego, EGO);

    const planned = log.waypoints.get(Math.floor(i / 2));
    if (planned) {
      const scene = Math.floor(i / 2) * 2;
      const [cos, sin] = [Math.cos(log.yaw[scene]), Math.sin(log.yaw[scene])];
      ctx.fillStyle = color("--s2");
      for (let k = 0; k + 1 < planned.numbers.length; k += 2) {
        const [x, y] = [planned.numbers[k] / 100, planned.numbers[k + 1] / 100];
        ctx.beginPath();
        ctx.arc(log.x[scene] + cos * x - sin * y, log.y[scene] + sin * x + cos * y, 0.32, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
    ctx.lineWidth = 0.35;
    ctx.strokeStyle = color("--bad");
    for (const event of log.events) {
      if (!event.tick || event.tick > log.count) continue;
      const [x, y] = [log.x[event.tick - 1], log.y[event.tick - 1]];
      ctx.beginPath();
      ctx.moveTo(x - 1.2, y - 1.2); ctx.lineTo(x + 1.2, y + 1.2);
      ctx.moveTo(x - 1.2, y + 1.2); ctx.lineTo(x + 1.2, y - 1.2);
      ctx.stroke();
    }

    // Scale bar of 10 m.
    ctx.setTransform(window.devicePixelRatio || 1, 0, 0, window.devicePixelRatio || 1, 0, 0);
    ctx.strokeStyle = color("--ink");
    ctx.fillStyle = color("--ink");
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.moveTo(12, height - 12);
    ctx.lineTo(12 + 10 * zoom, height - 12);
    ctx.stroke();
    ctx.font = "12px system-ui, sans-serif";
    ctx.fillText("10 m", 12, height - 18);
    return near;
  };

  // Overview of the drive: speed, late ticks and infractions.
  const drawOverview = () => {
    const { ctx, width, height } = context(by("overview"));
    const x = (i) => (log.count > 1 ? (i / (log.count - 1)) * width : 0);
    const top = Math.max(1, ...log.speed);
    ctx.fillStyle = color("--s1");
    ctx.globalAlpha = 0.35;
    ctx.beginPath();
    ctx.moveTo(0, height);
    for (let i = 0; i < log.count; i++) ctx.lineTo(x(i), height - (log.speed[i] / top) * (height - 8));
    ctx.lineTo(x(log.count - 1), height);
    ctx.fill();
    ctx.globalAlpha = 1;
    for (const [, first, last] of log.scenarios) {
      ctx.fillStyle = color("--s5");
      ctx.fillRect(x(first - 1), height - 4, Math.max(x(last - 1) - x(first - 1), 2), 4);
    }
    ctx.fillStyle = color("--s2");
    for (let i = 0; i < log.count; i++) if (!Number.isNaN(log.late[i])) ctx.fillRect(x(i), 0, 1, 4);
    ctx.fillStyle = color("--bad");
    for (const event of log.events) if (event.tick) ctx.fillRect(x(event.tick - 1) - 1.5, 0, 3, height);
    ctx.fillStyle = color("--ink");
    ctx.fillRect(x(tick - 1) - 1, 0, 2, height);
  };

  // Ticks around this one: duration of each stage, prefills (refreshes), and age of the prefix.
  const drawTimeline = () => {
    by("timeline").hidden = log.stages.size === 0;
    by("untimed").hidden = log.stages.size > 0;
    if (log.stages.size === 0) return;
    const { ctx, width, height } = context(by("timeline"));
    const left = 64;
    const span = Math.max(21, Math.min(81, Math.floor((width - left) / 12) | 1));
    const first = tick - 1 - Math.floor(span / 2);
    const w = (width - left) / span;
    const x = (i) => left + (i - first) * w;
    const rows = { ticks: [16, height * 0.52], refresh: [height * 0.58, height * 0.7], age: [height * 0.78, height - 6] };
    ctx.font = "12px system-ui, sans-serif";
    ctx.fillStyle = color("--soft");
    const label = (text, y) => ctx.fillText(text, 0, y);

    const budget = route.budget;
    let most = budget || 1;
    const total = log.stages.get("tick");
    for (let i = Math.max(first, 0); i < Math.min(first + span, log.count); i++) {
      if (total && total[i] > most) most = total[i];
    }
    const [top, bottom] = rows.ticks;
    const y = (ms) => bottom - (ms / most) * (bottom - top);
    label(most.toFixed(most < 10 ? 1 : 0) + " ms", top + 4);
    label("tick", bottom);
    label("refresh", (rows.refresh[0] + rows.refresh[1]) / 2 + 4);
    ctx.fillStyle = color("--highlight");
    ctx.fillRect(x(tick - 1), 0, w, height);

    for (let i = Math.max(first, 0); i < Math.min(first + span, log.count); i++) {
      let stacked = 0;
      if (total && !Number.isNaN(total[i])) {
        ctx.fillStyle = color("--band");
        ctx.fillRect(x(i) + 0.5, y(total[i]), w - 1, bottom - y(total[i]));
      }
      for (const [name, ink] of PARTS) {
        const took = log.stages.get(name)?.[i];
        if (!(took > 0)) continue;
        ctx.fillStyle = color(ink);
        ctx.fillRect(x(i) + 0.5, y(stacked + took), w - 1, y(stacked) - y(stacked + took));
        stacked += took;
      }
      if (!Number.isNaN(log.held[i])) {
        ctx.fillStyle = color("--faint");
        ctx.fillRect(x(i) + 0.5, bottom + 2, w - 1, 3);
      }
      if (!Number.isNaN(log.late[i])) {
        ctx.fillStyle = color("--bad");
        ctx.fillRect(x(i) + 0.5, top - 6, w - 1, 4);
      }
    }
    if (budget) {
      ctx.strokeStyle = color("--bad");
      ctx.setLineDash([5, 4]);
      ctx.beginPath();
      ctx.moveTo(left, y(budget));
      ctx.lineTo(width, y(budget));
      ctx.stroke();
      ctx.setLineDash([]);
    }
    // A refresh is recorded at the tick at which it ended.
    const refresh = log.stages.get("refresh");
    if (refresh) {
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, 0, width - left, height);
      ctx.clip();
      for (let i = Math.max(first, 0); i < Math.min(first + span * 2, log.count); i++) {
        if (Number.isNaN(refresh[i])) continue;
        const long = Math.max((refresh[i] / TICK_MS) * w, 2);
        ctx.fillStyle = color("--s5");
        ctx.fillRect(x(i) - long, rows.refresh[0], long, rows.refresh[1] - rows.refresh[0]);
        let at = x(i) - long;
        for (const [k, name] of REFRESH_PARTS.entries()) {
          const took = log.stages.get(name)?.[i];
          if (!(took > 0)) continue;
          ctx.fillStyle = color(["--s1", "--s3", "--s4", "--s2"][k % 4]);
          ctx.fillRect(at, rows.refresh[0] + 4, (took / TICK_MS) * w, rows.refresh[1] - rows.refresh[0] - 8);
          at += (took / TICK_MS) * w;
        }
      }
      ctx.restore();
    }
    const [ageTop, ageBottom] = rows.age;
    let oldest = 1;
    for (let i = Math.max(first, 0); i < Math.min(first + span, log.count); i++) if (log.age[i] > oldest) oldest = log.age[i];
    ctx.fillStyle = color("--soft");
    label("age", ageBottom);
    label(oldest.toFixed(0) + " ms", ageTop + 8);
    ctx.strokeStyle = color("--s2");
    ctx.lineWidth = 1.8;
    ctx.beginPath();
    let pen = false;
    for (let i = Math.max(first, 0); i < Math.min(first + span, log.count); i++) {
      if (Number.isNaN(log.age[i])) { pen = false; continue; }
      const at = ageBottom - (log.age[i] / oldest) * (ageBottom - ageTop);
      if (pen) ctx.lineTo(x(i) + w / 2, at); else ctx.moveTo(x(i) + w / 2, at);
      pen = true;
    }
    ctx.stroke();
  };

  const describe = (near) => {
    const i = tick - 1;
    const ms = (value) => (value >= 10 ? value.toFixed(1) : value.toFixed(3)) + " ms";
    by("tick-label").textContent =
      `tick ${tick} of ${log.count} · ${log.time[i].toFixed(2)} s · ${log.speed[i].toFixed(2)} m/s`;
    const rows = [
      ["steer", log.steer[i].toFixed(3)],
      ["throttle", log.throttle[i].toFixed(2)],
      ["brake", log.brake[i].toFixed(2)],
      ["actors near", String(near)],
    ];
    if (!Number.isNaN(log.version[i])) {
      rows.push(["prefix", `version ${log.version[i]}`]);
      rows.push(["age of the prefix", ms(log.age[i])]);
    } else if (log.stages.size) rows.push(["prefix", "none yet"]);
    if (!Number.isNaN(log.held[i])) rows.push(["command", "held"]);
    if (!Number.isNaN(log.late[i])) rows.push(["late by", ms(log.late[i])]);
    const running = log.scenarios.filter(([, first, last]) => first <= tick && tick <= last);
    if (running.length) rows.push(["scenarios with rules", running.map(([id]) => id).join(", ")]);
    for (const [name, took] of log.stages) if (!Number.isNaN(took[i])) rows.push([name, ms(took[i])]);
    const list = by("now");
    list.replaceChildren(...rows.map(([name, value]) => {
      const row = document.createElement("div");
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = name;
      dd.textContent = value;
      row.append(dt, dd);
      return row;
    }));
    const marks = log.events.filter((event) => event.tick && Math.abs(event.tick - tick) <= 10);
    by("happening").textContent = marks.map((event) => event.message).join(" · ");
  };

  const draw = () => {
    if (!log || log.count === 0) return;
    describe(drawMap());
    drawOverview();
    drawTimeline();
    by("scrub").value = tick;
    by("scrub").setAttribute("aria-valuetext", by("tick-label").textContent);
  };

  let pendingLink = 0;
  const link = () => {
    clearTimeout(pendingLink);
    pendingLink = setTimeout(() => {
      const fragment = fragmentOf(route, tick);
      if (location.hash !== fragment) history.replaceState(null, "", fragment);
    }, 250);
  };

  const fragmentOf = (of, at) => `#${encodeURIComponent(of.id)}/${of.rep}/${at}` + (of.run ? `/${of.run}` : "");

  const go = (to) => {
    if (!log) return;
    tick = Math.max(1, Math.min(Math.round(to), log.count));
    draw();
    if (!playing) link();
  };

  const play = (wanted) => {
    playing = wanted && log !== null && log.count > 0;
    if (playing && tick >= log.count) tick = 1;
    by("play").textContent = playing ? "Pause" : "Play";
    by("play").setAttribute("aria-pressed", String(playing));
    lastFrame = 0;
    carry = 0;
    if (playing) requestAnimationFrame(frame);
    else if (log) link();
  };

  const frame = (now) => {
    if (!playing) return;
    if (lastFrame) {
      carry += ((now - lastFrame) / TICK_MS) * Number(by("rate").value);
      const steps = Math.floor(carry);
      carry -= steps;
      if (steps) {
        tick = Math.min(tick + steps, log.count);
        draw();
        if (tick >= log.count) return play(false);
      }
    }
    lastFrame = now;
    requestAnimationFrame(frame);
  };

  const open = async (place, at = 1) => {
    play(false);
    const wanted = ++loading;
    route = routes[place];
    by("pick").value = String(place);
    by("route-title").textContent = route.title;
    by("still").hidden = !route.still;
    if (route.still) by("still").src = by(route.still).textContent.trim();
    const element = by(route.replay);
    const message = by("no-replay");
    if (!element) {
      log = null;
      message.hidden = false;
      message.textContent = route.why || "This drive has no log.";
      by("viewer").hidden = true;
      return;
    }
    if (!cache.has(place)) {
      // At most two drives are cached: a long one has several megabytes.
      if (cache.size > 1) cache.delete(cache.keys().next().value);
      cache.set(place, await Replay.unpack(element.textContent.trim()));
    }
    if (wanted !== loading) return;
    log = cache.get(place);
    const isEmpty = log.count === 0;
    message.hidden = !isEmpty;
    message.textContent = isEmpty ? "This drive has no ticks." : "";
    by("viewer").hidden = isEmpty;
    by("scrub").max = Math.max(log.count, 1);
    center = null;
    go(at);
    document.documentElement.dataset.ready = fragmentOf(route, tick);
  };

  // #route/repetition/tick, followed by the run's number if the page has several runs.
  const follow = () => {
    const found = /^#([^/]*)\/(\d+)\/(\d+)(?:\/(\d+))?$/.exec(location.hash);
    if (!found) return false;
    const [rep, at, run] = found.slice(2).map((part) => Number(part || 0));
    const place = routes.findIndex((one) => encodeURIComponent(one.id) === found[1] && one.rep === rep && (one.run || 0) === run);
    if (place < 0) return false;
    const opened = routes[place] === route && log ? Promise.resolve(go(at)) : open(place, at);
    opened.then(() => { document.documentElement.dataset.ready = fragmentOf(routes[place], tick); });
    return true;
  };

  const keys = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const wide = event.shiftKey ? 20 : 1;
    const actions = {
      " ": () => play(!playing),
      ArrowLeft: () => go(tick - wide),
      ArrowRight: () => go(tick + wide),
      Home: () => go(1),
      End: () => go(log.count),
      "+": () => { zoom = Math.min(zoom * 1.25, 40); draw(); },
      "-": () => { zoom = Math.max(zoom / 1.25, 1); draw(); },
    };
    const act = actions[event.key];
    if (!act || !log) return;
    event.preventDefault();
    act();
  };

  const start = (all) => {
    routes = all;
    if (!routes.length) return;
    const pick = by("pick");
    pick.append(...routes.map((one, place) => new Option(one.title, String(place))));
    pick.addEventListener("change", () => open(Number(pick.value)));
    by("play").addEventListener("click", () => play(!playing));
    by("back").addEventListener("click", () => { play(false); go(tick - 1); });
    by("ahead").addEventListener("click", () => { play(false); go(tick + 1); });
    by("scrub").addEventListener("input", (event) => go(Number(event.target.value)));
    by("closer").addEventListener("click", () => { zoom = Math.min(zoom * 1.25, 40); draw(); });
    by("wider").addEventListener("click", () => { zoom = Math.max(zoom / 1.25, 1); draw(); });
    by("heading-up").addEventListener("change", () => { center = null; draw(); });
    by("follow").addEventListener("click", () => { center = null; draw(); });
    const map = by("map");
    map.addEventListener("keydown", keys);
    map.addEventListener("wheel", (event) => {
      if (document.activeElement !== map) return;
      event.preventDefault();
      zoom = Math.max(1, Math.min(zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15), 40));
      draw();
    }, { passive: false });
    let grabbed = null;
    map.addEventListener("pointerdown", (event) => {
      map.focus();
      grabbed = [event.clientX, event.clientY];
      map.setPointerCapture(event.pointerId);
    });
    map.addEventListener("pointermove", (event) => {
      if (!grabbed || !log) return;
      const [dx, dy] = [(event.clientX - grabbed[0]) / zoom, (event.clientY - grabbed[1]) / zoom];
      if (!center && Math.hypot(dx, dy) * zoom < 4) return;
      center = center || { x: log.x[tick - 1], y: log.y[tick - 1] };
      center = { x: center.x - dx, y: center.y - dy };
      grabbed = [event.clientX, event.clientY];
      draw();
    });
    map.addEventListener("pointerup", () => { grabbed = null; });
    const overview = by("overview");
    overview.addEventListener("click", (event) => {
      const { left, width } = overview.getBoundingClientRect();
      go(1 + ((event.clientX - left) / width) * (log.count - 1));
    });
    window.addEventListener("hashchange", () => {
      if (follow()) by("replay").scrollIntoView();
    });
    window.addEventListener("resize", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    if (!follow()) open(0);
    else by("replay").scrollIntoView();
  };

  return { start };
})();
