// The timeline on two canvases: all of it small above, a window of it below.
(() => {
  const { lanes, names, kinds, length_ns: whole } = data.timeline;
  const canvas = byId("lanes"), mini = byId("minimap"), hover = byId("hover");
  const ROW = 20, LABEL = 170, HEAD = 22, TALLEST = 640;
  const groups = ["loop", "task", "worker", "thread", "CPU"];
  lanes.sort((a, b) => groups.indexOf(a.group) - groups.indexOf(b.group));
  const view = { from: 0, to: Math.max(whole, 1), top: 0 };
  let shown = lanes, colors = [], wanted = "", drag = null, waiting = false;

  // spans lie flat in an array: start, duration, kind, name; ends[i] is the latest end up to i
  for (const lane of lanes) {
    const count = lane.spans.length / 4;
    lane.ends = new Float64Array(count);
    for (let i = 0, latest = 0; i < count; i++) lane.ends[i] = latest = Math.max(latest, lane.spans[4 * i] + lane.spans[4 * i + 1]);
  }

  function firstVisible(lane, from) {
    let [low, high] = [0, lane.ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane.ends[middle] < from) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function sized(target, height) {
    const ratio = devicePixelRatio || 1, width = target.clientWidth;
    if (target.width !== Math.round(width * ratio) || target.height !== Math.round(height * ratio)) {
      target.width = Math.round(width * ratio);
      target.height = Math.round(height * ratio);
      target.style.height = `${height}px`;
    }
    const pen = target.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return [pen, width];
  }

  function drawSpans(pen, lane, y, height, from, to, left, width) {
    const scale = width / (to - from), { spans } = lane, count = spans.length / 4;
    let [last, lastKind] = [-1, -1];
    for (let i = firstVisible(lane, from); i < count; i++) {
      const start = spans[4 * i];
      if (start > to) break;
      const x = Math.max((start - from) * scale, 0), kind = spans[4 * i + 2];
      const end = Math.min((start + spans[4 * i + 1] - from) * scale, width);
      if (end <= last && kind === lastKind) continue; // under what is drawn already
      pen.fillStyle = colors[kind];
      if (wanted) pen.globalAlpha = matches(lane, spans[4 * i + 3]) ? 1 : 0.15;
      pen.fillRect(left + x, y, Math.max(end - x, 1), height);
      [last, lastKind] = [Math.max(end, x + 1), kind];
    }
    pen.globalAlpha = 1;
  }

  const matches = (lane, name) => names[name].toLowerCase().includes(wanted) || lane.name.toLowerCase().includes(wanted);

  function draw() {
    waiting = false;
    colors = kinds.map(color);
    const height = Math.min(TALLEST, HEAD + shown.length * ROW + 8);
    const [pen, width] = sized(canvas, Math.max(height, HEAD + ROW));
    const plot = width - LABEL, [text, muted, line] = [color("text"), color("muted"), color("line")];
    view.top = Math.max(0, Math.min(view.top, shown.length * ROW - (height - HEAD - 8)));
    pen.font = "12px system-ui, sans-serif";
    const first = Math.floor(view.top / ROW), behind = Math.min(shown.length, Math.ceil((view.top + height) / ROW));
    for (let place = first; place < behind; place++) {
      const y = HEAD + place * ROW - view.top;
      pen.fillStyle = text;
      pen.save();
      pen.beginPath();
      pen.rect(0, y, LABEL - 8, ROW);
      pen.clip();
      pen.fillText(visible(shown[place].name), 8, y + 14);
      pen.restore();
      drawSpans(pen, shown[place], y + 3, ROW - 6, view.from, view.to, LABEL, plot);
      pen.fillStyle = line;
      pen.fillRect(0, y + ROW - 0.5, width, 0.5);
    }
    pen.fillStyle = color("panel");
    pen.fillRect(0, 0, width, HEAD - 2);
    const step = niceStep((view.to - view.from) / Math.max(plot / 110, 1));
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const x = LABEL + ((at - view.from) / (view.to - view.from)) * plot;
      pen.fillStyle = muted;
      pen.fillText(at ? formatNs(at) : "0", x + 3, 14);
      pen.fillStyle = line;
      pen.fillRect(x, 0, 1, height);
    }
    if (drag && drag.brush) {
      pen.fillStyle = color("accent");
      pen.globalAlpha = 0.2;
      pen.fillRect(Math.min(drag.x, drag.now), HEAD, Math.abs(drag.now - drag.x), height);
      pen.globalAlpha = 1;
    }
    drawMinimap();
  }

  function drawMinimap() {
    const [pen, width] = sized(mini, 36), plot = width - LABEL;
    const some = lanes.filter((lane) => lane.group === "loop").concat(lanes.filter((lane) => lane.group === "task").slice(0, 6));
    some.slice(0, 8).forEach((lane, place) => drawSpans(pen, lane, 3 + place * 4, 3, 0, Math.max(whole, 1), LABEL, plot));
    pen.fillStyle = color("accent");
    pen.globalAlpha = 0.18;
    pen.fillRect(LABEL + (view.from / whole) * plot, 0, Math.max(((view.to - view.from) / whole) * plot, 2), 36);
    pen.globalAlpha = 1;
    pen.fillStyle = color("muted");
    pen.font = "12px system-ui, sans-serif";
    pen.fillText("all", 8, 22);
  }

  function niceStep(least) {
    const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least);
  }

  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function zoom(by, around = 0.5) {
    const size = Math.min(Math.max((view.to - view.from) * by, 1000), Math.max(whole, 1));
    const at = view.from + (view.to - view.from) * around;
    move(at - size * around, size);
  }

  function move(from, size) {
    view.from = Math.max(0, Math.min(from, whole - size));
    view.to = view.from + size;
    redraw();
  }

  const fraction = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left - LABEL) / (box.width - LABEL), 0), 1);
  };

  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, fraction(event));
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(view.from + ((view.to - view.from) * event.deltaX) / 800, view.to - view.from);
    else if (shown.length * ROW > TALLEST) view.top += event.deltaY;
    else return;
    event.preventDefault();
    redraw();
  }, { passive: false });

  canvas.addEventListener("keydown", (event) => {
    const size = view.to - view.from;
    const act = { w: () => zoom(0.7), s: () => zoom(1 / 0.7), a: () => move(view.from - size / 5, size), d: () => move(view.from + size / 5, size),
      0: () => move(0, Math.max(whole, 1)), ArrowUp: () => (view.top -= 3 * ROW), ArrowDown: () => (view.top += 3 * ROW),
      ArrowLeft: () => move(view.from - size / 5, size), ArrowRight: () => move(view.from + size / 5, size) }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
    redraw();
  });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const box = canvas.getBoundingClientRect();
    drag = { x: event.clientX - box.left, now: event.clientX - box.left, y: event.clientY, top: view.top, from: view.from, brush: event.shiftKey, at: fraction(event), moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return showHover(event);
    const box = canvas.getBoundingClientRect();
    drag.now = event.clientX - box.left;
    drag.moved ||= Math.abs(drag.now - drag.x) + Math.abs(event.clientY - drag.y) > 4;
    if (!drag.brush) {
      view.top = drag.top - (event.clientY - drag.y);
      move(drag.from - ((drag.now - drag.x) / (box.width - LABEL)) * (view.to - view.from), view.to - view.from);
    }
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const [was, size] = [drag, view.to - view.from];
    drag = null;
    if (was && was.brush && was.moved) {
      const [a, b] = [was.at, fraction(event)].sort((x, y) => x - y);
      move(view.from + a * size, Math.max((b - a) * size, 1000));
    } else if (was && !was.moved) {
      const found = under(event);
      if (found && found.lane.awaits.length && found.lane.awaits[found.place]) location.hash = `#await=${found.lane.awaits[found.place]}`;
    }
    redraw();
  });
  canvas.addEventListener("pointerleave", () => (hover.hidden = true));
  mini.addEventListener("pointerdown", (event) => {
    const box = mini.getBoundingClientRect(), size = view.to - view.from;
    move(((event.clientX - box.left - LABEL) / (box.width - LABEL)) * whole - size / 2, size);
  });

  function under(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left;
    const lane = shown[Math.floor((event.clientY - box.top - HEAD + view.top) / ROW)];
    if (!lane || x < LABEL || event.clientY - box.top < HEAD) return null;
    const size = view.to - view.from, at = view.from + fraction(event) * size, near = (2 / (box.width - LABEL)) * size;
    let found = null;
    for (let i = firstVisible(lane, at - near); i < lane.ends.length && lane.spans[4 * i] <= at + near; i++) {
      if (lane.spans[4 * i] + lane.spans[4 * i + 1] >= at - near) found = i;
    }
    return found === null ? null : { lane, place: found };
  }

  function showHover(event) {
    const found = under(event);
    hover.hidden = !found;
    if (!found) return;
    const [start, duration, kind, name] = found.lane.spans.slice(4 * found.place, 4 * found.place + 4);
    const await_ = found.lane.awaits[found.place];
    hover.textContent = `${kinds[kind]}: ${visible(names[name])}\n${formatNs(duration)} at ${formatNs(start)}` + (await_ ? `\nawait ${await_}` : "");
    hover.style.left = `${Math.min(event.clientX + 14, innerWidth - 300)}px`;
    hover.style.top = `${Math.min(event.clientY + 14, innerHeight - 90)}px`;
  }

  byId("find").addEventListener("input", (event) => {
    wanted = event.target.value.toLowerCase();
    const hits = new Set(names.flatMap((name, n) => (name.toLowerCase().includes(wanted) ? [n] : [])));
    const has = (lane) => lane.name.toLowerCase().includes(wanted) || lane.spans.some((value, i) => i % 4 === 3 && hits.has(value));
    shown = wanted ? lanes.filter(has) : lanes;
    view.top = 0;
    redraw();
  });

  addEventListener("resize", redraw);
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.awaitscopeView = view; // what the tests and the benchmark look at
  window.awaitscopeZoom = (by) => { zoom(by); };
  draw();
})();
