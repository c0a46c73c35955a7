"use strict";
// The page's tables, the distribution, one await, the loop's lag. Texts of the traced program are
// set as text nodes only.
const data = JSON.parse(document.getElementById("data").textContent);
const STAGES = ["prepare", "send", "remote", "receive", "wake", "queue", "read", "resume"];
const byId = (id) => document.getElementById(id);
const visible = (text) => String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function formatNs(ns) {
  if (ns === null || ns === undefined) return "–";
  const [unit, scale] = Math.abs(ns) < 1e6 ? ["µs", 1e3] : Math.abs(ns) < 1e9 ? ["ms", 1e6] : ["s", 1e9];
  const value = ns / scale;
  return `${Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))} ${unit}`;
}

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "text", "line", "path", "g", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- light and dark ----
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.dispatchEvent(new Event("themechange"));
});

// ---- awaits by source line ----
const body = document.querySelector("#by-line tbody");
const rows = [...body.rows];
let order = { key: "sum", down: true };

function sortRows() {
  const value = (row) => data.lines[row.dataset.row][order.key];
  const compare = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
  rows.sort((a, b) => (order.down ? compare(b, a) : compare(a, b)));
  body.append(...rows);
  for (const head of document.querySelectorAll("#by-line th[data-key]")) {
    if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

for (const head of document.querySelectorAll("#by-line th[data-key]")) {
  const sort = () => {
    const text = ["where", "kind"].includes(head.dataset.key);
    order = { key: head.dataset.key, down: order.key === head.dataset.key ? !order.down : !text };
    sortRows();
  };
  head.tabIndex = 0;
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
}

byId("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const line = data.lines[row.dataset.row];
    const text = [line.where, line.kind, ...line.tasks].join("\n").toLowerCase();
    row.hidden = !text.includes(wanted);
    shown += !row.hidden;
  }
  byId("shown").textContent = wanted ? `${shown} of ${rows.length}` : "";
});

function showDistribution(row) {
  const line = data.lines[row.dataset.row];
  for (const other of rows) other.setAttribute("aria-selected", other === row);
  const bins = Object.entries(line.bins).map(([bin, count]) => [Number(bin), count]);
  const first = Math.min(...bins.map(([bin]) => bin)), last = Math.max(...bins.map(([bin]) => bin));
  const most = Math.max(...bins.map(([, count]) => count));
  const [width, height, step] = [Math.max(240, (last - first + 1) * 34), 120, 34];
  const svg = document.querySelector("#distribution svg");
  svg.setAttribute("width", width + 20);
  svg.setAttribute("height", height + 40);
  svg.replaceChildren();
  for (const [bin, count] of bins) {
    const size = (count / most) * height, x = (bin - first) * step;
    const bar = make("rect", { x, y: height - size + 14, width: step - 4, height: size, fill: color("send"), rx: 2 });
    const from = 10 ** (bin / 5), to = 10 ** ((bin + 1) / 5);
    bar.append(make("title", {}, `${count} awaits from ${formatNs(from)} to ${formatNs(to)}`));
    svg.append(bar, make("text", { x: x + step / 2 - 2, y: height - size + 10, "text-anchor": "middle" }, String(count)));
    if ((bin - first) % 2 === 0) svg.append(make("text", { x, y: height + 32, class: "muted" }, formatNs(from)));
  }
  const figure = byId("distribution");
  figure.hidden = false;
  figure.querySelector("figcaption").textContent = `${line.count} awaits at ${visible(line.where)}, by duration`;
  svg.setAttribute("aria-label", bins.map(([bin, count]) => `${count} from ${formatNs(10 ** (bin / 5))}`).join(", "));
}

for (const row of rows) {
  row.addEventListener("click", (event) => event.target.closest("a") || showDistribution(row));
  row.addEventListener("keydown", (event) => event.key === "Enter" && event.target === row && showDistribution(row));
}

// ---- one await ----
const LANE = { H: 30, LABEL: 130, WIDTH: 1100 };

function proofOf(step) {
  const names = step.evidence.slice(0, 3).map((e) => ("id" in e && e.id !== null ? `${e.event}#${e.id}` : e.event));
  return names.join(" → ") + (step.reason ? ` (${step.reason})` : "");
}

function drawSwimlane(one) {
  const svg = byId("swimlane"), steps = new Map(one.steps.map((step) => [step.step, step]));
  const end = Math.max(one.end_ns, ...one.steps.filter((s) => s.step !== 13 && s.start_ns !== null && s.dur_ns !== null).map((s) => s.start_ns + s.dur_ns));
  const span = Math.max(end - one.start_ns, 1), plot = LANE.WIDTH - LANE.LABEL - 20;
  const x = (ns) => LANE.LABEL + Math.min(Math.max((ns - one.start_ns) / span, 0), 1) * plot;
  const setup = one.await.setup.filter((part) => part.start_ns >= one.start_ns && part.start_ns <= end);
  const above = setup.length ? 2 : 1; // rows before the lanes
  const height = (one.lanes.length + above) * LANE.H + 34;
  svg.setAttribute("viewBox", `0 0 ${LANE.WIDTH} ${height}`);
  svg.setAttribute("width", LANE.WIDTH);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  const boxes = new Map();
  const row = (place) => 24 + place * LANE.H;
  for (let tick = 0; tick <= 4; tick++) {
    const at = one.start_ns + (span * tick) / 4;
    svg.append(make("line", { x1: x(at), x2: x(at), y1: 18, y2: height - 8, stroke: color("line") }),
      make("text", { x: x(at), y: 13, class: "muted", "text-anchor": tick === 4 ? "end" : tick ? "middle" : "start" }, tick ? formatNs(at - one.start_ns) : "0"));
  }
  svg.append(make("text", { x: 8, y: row(0) + 17 }, "stages"));
  for (const stage of one.stages) {
    const box = make("rect", { x: x(stage.start_ns), y: row(0) + 5, width: Math.max(x(stage.end_ns) - x(stage.start_ns), 1), height: LANE.H - 12, fill: color(stage.stage) });
    box.append(make("title", {}, `${stage.stage}: ${formatNs(stage.end_ns - stage.start_ns)}`));
    svg.append(box);
  }
  if (setup.length) svg.append(make("text", { x: 8, y: row(1) + 17 }, "set-up"));
  for (const part of setup) {
    const from = x(part.start_ns), size = Math.max(x(part.start_ns + part.dur_ns) - from, 2.5);
    const box = make("rect", { x: from, y: row(1) + 5, width: size, height: LANE.H - 12, rx: 2, class: "setup", fill: color("setup") });
    box.append(make("title", {}, `${part.what}: ${formatNs(part.dur_ns)} (${part.outcome})\n${proofOf(part)}`));
    svg.append(box, make("text", { x: from + 3, y: row(1) + 19, "font-size": 11, "pointer-events": "none" }, size > 8 * part.what.length ? part.what : ""));
  }
  one.lanes.forEach((lane, place) => {
    const y = row(place + above);
    svg.append(make("line", { x1: 0, x2: LANE.WIDTH, y1: y, y2: y, stroke: color("line") }), make("text", { x: 8, y: y + 19 }, lane.lane));
    for (const number of lane.steps) {
      const step = steps.get(number), from = x(step.start_ns), to = x(step.start_ns + step.dur_ns);
      const box = make("rect", { x: from, y: y + 6, width: Math.max(to - from, 2.5), height: LANE.H - 12, rx: 2,
        fill: color(step.status === "inferred" ? "running" : "step"), "fill-opacity": step.status === "inferred" ? .6 : .95, tabindex: 0 });
      const proof = step.evidence[0];
      const facts = proof ? `\n${proofOf(step)}${proof.cpu === null || proof.cpu === undefined ? "" : `\nCPU ${proof.cpu}`}${proof.tid ? `, thread ${proof.tid}` : ""}, at ${proof.ts_ns} ns` : `\n${step.reason ?? ""}`;
      box.append(make("title", {}, `${visible(`${number}. ${step.what}`)}\nat ${formatNs(step.start_ns - one.start_ns)}, took ${formatNs(step.dur_ns)}${facts}`));
      svg.append(box, make("text", { x: Math.min(from + 3, LANE.WIDTH - 22), y: y + 19, "font-size": 11, "pointer-events": "none" }, to - from > 16 ? String(number) : ""));
      boxes.set(number, { from, to: Math.max(to, from + 2.5), y: y + LANE.H / 2 });
    }
  });
  // packet -> socket ready -> wakeup -> callback -> task
  const path = one.order.filter((number) => boxes.has(number));
  for (let i = 1; i < path.length; i++) {
    const a = boxes.get(path[i - 1]), b = boxes.get(path[i]);
    if (a.y === b.y) continue;
    const [x1, x2] = [Math.min(a.to, b.from), b.from];
    svg.append(make("path", { d: `M${x1},${a.y} C${x1 + 8},${a.y} ${x2 - 8},${b.y} ${x2},${b.y}`, fill: "none", stroke: color("muted"), "stroke-opacity": .55, "pointer-events": "none" }));
  }
  svg.setAttribute("aria-label", "Swimlane of the await; the table below says the same");
}

function tripsOf(one) {
  const trips = Math.max(one.await.round_trips, one.trip);
  return trips < 2 ? "one trip" : `picture and steps: trip ${one.trip} of ${trips}; the times of the stages below: all trips`;
}

function tableRow(cells) {
  return make("tr", {}, ...cells.map(([text, kind]) => make("td", kind ? { class: kind } : {}, String(text))));
}

function showSetup(row) {
  byId("one-setup").hidden = !row.setup.length;
  document.querySelector("#one-setup tbody").replaceChildren(...row.setup.map((part) => tableRow([
    [part.what], [formatNs(part.start_ns - row.start_ns), "n"], [formatNs(part.dur_ns), "n"],
    [part.dur_ns === null ? "–" : `${Number(((100 * part.dur_ns) / row.total_ns).toPrecision(2))} %`, "n"],
    [part.outcome], [part.task_id, "n"], [proofOf(part)]])));
}

function showAwait(id) {
  const one = data.awaits[id];
  byId("one-body").hidden = !one;
  byId("one-none").hidden = Boolean(one);
  if (!one) {
    byId("one-none").textContent = `Await ${id} is not explained on this page: awaitscope steps --await ${id}`;
    return;
  }
  const row = one.await;
  byId("one-title").textContent = visible(`await ${row.await_id}: task ${row.task_name}, ${row.where}`);
  byId("one-more").textContent = visible(`${row.kind}, ${row.outcome}, ${formatNs(row.total_ns)} in all; ${row.peer ?? "no peer"}; sent ${row.sent_bytes} bytes, received ${row.recv_bytes}; ${tripsOf(one)}` + (row.reasons.length ? `; ${row.reasons.join(", ")}` : ""));
  byId("one-stages").replaceChildren(...STAGES.filter((n) => row.stages[`${n}_ns`]).map((n) => {
    const key = make("i");
    key.style.background = `var(--${n})`;
    return make("span", {}, key, `${n} ${formatNs(row.stages[`${n}_ns`])}`);
  }));
  const insight = one.insight;
  byId("one-insight").textContent = insight.on_cpu_4_to_9_ns === null ? "" : `Between steps 4 and 9 (${formatNs(insight.window_ns)}), threads of this process were on a CPU for ${formatNs(insight.on_cpu_4_to_9_ns)}.`;
  const seen = new Map(one.order.map((number, place) => [number, place + 1]));
  document.querySelector("#steps tbody").replaceChildren(...one.steps.map((step) => {
    const cells = [[step.step, "n"], [seen.get(step.step) ?? "–", "n"], [step.layer], [visible(step.what)],
      [step.start_ns === null ? "–" : formatNs(step.start_ns - one.start_ns), "n"], [formatNs(step.dur_ns), "n"], [step.status], [proofOf(step)]];
    const line = tableRow(cells);
    line.className = `status-${step.status}`;
    return line;
  }));
  showSetup(row);
  byId("one-notes").replaceChildren(...one.notes.map((note) => make("li", {}, note)));
  drawSwimlane(one);
}

function followHash() {
  const wanted = /^#await=(\d+)$/.exec(location.hash);
  if (!wanted) return;
  showAwait(wanted[1]);
  byId("one").scrollIntoView();
}

addEventListener("hashchange", followHash);

// ---- the loop's lag ----
const CAUSES = { loop_busy_ns: "queue", runq_ns: "resume", throttled_ns: "packet", gil_ns: "callback", syscall_ns: "send", loop_ns: "running" };

function drawLag() {
  if (!data.lag.length) return;
  const svg = byId("lag"), [width, height] = [1100, 150];
  const sum = (slice) => Object.keys(CAUSES).reduce((all, cause) => all + (slice[cause] > 0 ? slice[cause] : 0), 0);
  const most = Math.max(...data.lag.map(sum), 1), deepest = Math.max(...data.lag.map((s) => s.ready), 1);
  svg.removeAttribute("hidden");
  svg.setAttribute("viewBox", `0 0 ${width} ${height + 50}`);
  svg.setAttribute("width", "100%");
  svg.replaceChildren(make("text", { x: 0, y: 12, class: "muted" }, `up to ${formatNs(most)} of lag in a slice of ${formatNs(data.lag[0].width_ns)}; ready queue up to ${deepest} (line)`));
  const x = (ns) => (ns / data.duration_ns) * (width - 8);
  for (const slice of data.lag) {
    let y = height + 20;
    for (const [cause, name] of Object.entries(CAUSES)) {
      const size = (Math.max(slice[cause], 0) / most) * height;
      if (!size) continue;
      y -= size;
      const box = make("rect", { x: x(slice.at_ns), y, width: Math.max(x(slice.width_ns) - 1, 1), height: size, fill: color(name) });
      box.append(make("title", {}, `${cause.replace("_ns", "")}: ${formatNs(slice[cause])}, ${slice.awaits} awaits ended, ready queue up to ${slice.ready}`));
      svg.append(box);
    }
  }
  const level = (s) => `M${x(s.at_ns)},${height + 20 - (s.ready / deepest) * height}H${x(s.at_ns + s.width_ns)}`;
  svg.append(make("path", { d: data.lag.map(level).join(""), fill: "none", stroke: color("text"), "stroke-opacity": .5 }));
  let at = 0;
  for (const [cause, name] of Object.entries(CAUSES)) {
    svg.append(make("rect", { x: at, y: height + 30, width: 11, height: 11, fill: color(name), rx: 2 }), make("text", { x: at + 16, y: height + 40 }, cause.replace("_ns", "")));
    at += 110;
  }
}

document.addEventListener("themechange", () => {
  drawLag();
  followHash();
});
drawLag();
if (data.first_await !== null) showAwait(data.first_await);
followHash();
