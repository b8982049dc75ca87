const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let chosen = null; // the Blob on the stage

// Theme

const root = document.documentElement;
function setTheme(name) {
  root.dataset.theme = name;
  localStorage.setItem("theme", name);
}
setTheme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").onclick = () => setTheme(root.dataset.theme === "dark" ? "light" : "dark");

// Choosing an image

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function choose(blob) {
  chosen = blob;
  URL.revokeObjectURL($("image").src);
  $("image").src = URL.createObjectURL(blob);
  $("boxes").replaceChildren();
  $("report").hidden = true;
  $("live").textContent = "";
  $("analyse").disabled = false;
  say("Ready to analyse.");
}

$("file").onchange = ({ target }) => {
  if (target.files[0]) choose(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};
$("demo").onclick = async () => {
  try {
    choose(await (await answered(await fetch("demo.png"))).blob());
  } catch (error) {
    say(error.message, "failed");
  }
};

const stage = $("stage");
stage.ondragover = (event) => { event.preventDefault(); stage.classList.add("over"); };
stage.ondragleave = () => stage.classList.remove("over");
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
};

// The API, with its key where the server asks for one

let key = sessionStorage.getItem("key");

async function api(path, options = {}) {
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  const response = await fetch(path, { ...options, headers });
  if (response.status !== 401) return response;
  key = await askForKey();
  return key ? api(path, options) : response;
}

function askForKey() {
  const dialog = $("key");
  $("key-text").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const given = dialog.returnValue === "ok" ? $("key-text").value.trim() : "";
      if (given) sessionStorage.setItem("key", given);
      else sessionStorage.removeItem("key");
      resolve(given || null);
    };
  });
}

// Analysing

async function answered(response) {
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Error(problem.detail ?? `The server answered ${response.status}.`);
}

async function analyse() {
  const image = chosen;
  const began = performance.now();
  const seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  $("analyse").disabled = true;
  $("report").hidden = true;
  $("boxes").replaceChildren();
  say("Sending …", "busy");
  try {
    const form = new FormData();
    form.append("file", image, "image");
    form.append("priority", "stat");
    const { id } = await (await answered(await api("v1/jobs", { method: "POST", body: form }))).json();
    let state = "queued";
    const clock = setInterval(() => {
      if (image === chosen) say(`${state === "queued" ? "Waiting for a worker" : "Reading"} … ${seconds()}`, "busy");
    }, 100);
    const job = await ended(id, (now) => { state = now; }, (text) => {
      if (image === chosen) $("live").textContent = text;
    }).finally(() => clearInterval(clock));
    if (image !== chosen) return;
    $("live").textContent = "";
    if (!shownByBrowser && job.state === "succeeded") await showAsRead(id);
    if (job.state !== "succeeded") throw new Error(job.failure?.message ?? `The job was ${job.state}.`);
    showReport(job);
    say(`Report after ${seconds()}`);
  } catch (error) {
    if (image === chosen) say(error.message, "failed");
  } finally {
    if (image === chosen) $("analyse").disabled = false;
  }
}
$("analyse").onclick = analyse;

// Follows a job's events to its end: what state it is in, and its report's text as it is written.
async function ended(id, onState, onText) {
  let text = "";
  for (let tries = 0; tries < 100; tries++) {
    const response = await answered(await api(`v1/jobs/${id}/events`));
    for await (const [event, data] of events(response.body)) {
      if (event === "state") onState(data.state);
      if (event === "text") onText(text = text.slice(0, data.offset) + data.text);
      if (event === "ended") return data;
    }
    await new Promise((resume) => setTimeout(resume, 500)); // the stream broke off
  }
  throw new Error("The connection to the server keeps breaking off.");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    const blocks = (unread + value).split(/\r?\n\r?\n/);
    unread = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split(/\r?\n/).map((line) => line.split(/: ?(.*)/s, 2)));
      if (fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

// A browser shows no DICOM and no TIFF: such an image is shown once the server has read it.
let shownByBrowser = true;
$("image").onload = () => { shownByBrowser = true; $("figure").hidden = false; $("hint").hidden = true; };
$("image").onerror = () => {
  shownByBrowser = false;
  $("figure").hidden = true;
  $("hint").hidden = false;
  $("hint").textContent = "This browser can't show this file. It appears here once it was read.";
};

async function showAsRead(id) {
  const picture = await (await answered(await api(`v1/jobs/${id}/image.png`))).blob();
  URL.revokeObjectURL($("image").src);
  const loaded = new Promise((resolve) => $("image").addEventListener("load", resolve, { once: true }));
  $("image").src = URL.createObjectURL(picture);
  await loaded;
}

// The report and its boxes

function showReport({ id, report }) {
  for (const section of ["findings", "impression", "disclaimer"]) $(section).textContent = report[section];
  const { name, revision, quantisation } = report.model;
  $("provenance").textContent = `${name} ${revision.slice(0, 12)} · ${quantisation}`;
  $("warnings").replaceChildren(...report.warnings.map((text) => element("li", text)));
  $("locations").replaceChildren(...report.locations.map(locationLine));
  if (!report.locations.length) $("locations").append(element("li", report.abstained ? "not assessed" : "none"));
  $("report").classList.toggle("abstained", report.abstained);
  $("links").replaceChildren(
    ...Object.entries(FORMS).map(([part, text]) => {
      const link = element("a", text);
      link.href = `v1/jobs/${id}/${part}`;
      link.target = "_blank";
      link.rel = "noopener";
      if (key) link.onclick = (event) => { event.preventDefault(); saveWithKey(link.href, `${id}-${part}`); };
      return link;
    }),
  );
  drawBoxes(report);
  $("report").hidden = false;
}

const FORMS = {
  "overlay.png": "Overlay PNG",
  "report.html": "HTML",
  "report.pdf": "PDF",
  "report.txt": "Text",
  "report.json": "JSON",
};

// A link can't show the key. What a page made itself, such as a blob, would open with this page's content policy,
// which keeps the picture out of a report, and could reach this page and its key. So the file is saved instead.
async function saveWithKey(address, name) {
  const link = element("a", "");
  link.href = URL.createObjectURL(await (await answered(await api(address))).blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const title = ({ label, laterality }) => (laterality ? `${label}, ${laterality}` : label);

function locationLine(location, number) {
  const line = element("li", "");
  const swatch = shape("svg", { class: "swatch", viewBox: "0 0 1 1" });
  swatch.append(shape("rect", { width: 1, height: 1, fill: location.colour }));
  const { xmin, ymin, xmax, ymax } = location.box;
  const corners = [xmin, ymin, xmax, ymax].map(Math.round);
  const sure = location.probability == null ? "" : ` · ${Math.round(location.probability * 100)} %`;
  const place = element("span", `(${corners.join(", ")}) px${sure}`);
  place.className = "small";
  line.append(swatch, title(location), " ", place);
  line.tabIndex = 0;
  line.onmouseenter = line.onfocus = () => emphasise(number);
  line.onmouseleave = line.onblur = () => emphasise(null);
  return line;
}

function drawBoxes({ image, locations }) {
  const size = Math.max(image.width, image.height);
  const letters = size / 40;
  $("boxes").setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  $("boxes").replaceChildren(
    ...locations.map((location) => {
      const { xmin, ymin, xmax, ymax } = location.box;
      const group = shape("g", {});
      const frame = { x: xmin, y: ymin, width: xmax - xmin, height: ymax - ymin };
      group.append(shape("rect", { ...frame, fill: "none", stroke: location.colour, "stroke-width": size / 300 }));
      const above = ymin > letters * 1.3;
      const right = xmin > image.width / 2;
      const name = { x: right ? xmax : xmin, y: above ? ymin - letters * 0.35 : ymax + letters };
      const look = { "font-size": letters, "stroke-width": letters / 5, "text-anchor": right ? "end" : "start" };
      group.append(shape("text", { ...name, ...look, fill: location.colour }, title(location)));
      return group;
    }),
  );
}

function emphasise(number) {
  [...$("boxes").children].forEach((group, n) => group.classList.toggle("dim", number !== null && n !== number));
}

$("shown").onchange = ({ target }) => $("boxes").classList.toggle("off", !target.checked);
