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
  $("figure").hidden = false;
  $("hint").hidden = true;
  $("report").hidden = true;
  $("analyse").disabled = false;
  say("Ready to analyse.");
}

$("file").onchange = ({ target }) => {
  if (target.files[0]) choose(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};
$("demo").onclick = async () => {
  try {
    choose(await (await answered(await fetch("/demo.png"))).blob());
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
    let job = await (await answered(await fetch("/v1/jobs", { method: "POST", body: form }))).json();
    while (job.state === "queued" || job.state === "running") {
      if (image !== chosen) return;
      say(`${job.state === "queued" ? "Waiting for a worker" : "Reading"} … ${seconds()}`, "busy");
      await new Promise((resume) => setTimeout(resume, 250));
      job = await (await answered(await fetch(`/v1/jobs/${job.id}`))).json();
    }
    if (image !== chosen) return;
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
    ...[["overlay.png", "Overlay PNG"], ["report.txt", "Text"], ["", "JSON"]].map(([part, text]) => {
      const link = element("a", text);
      link.href = `/v1/jobs/${id}${part && `/${part}`}`;
      link.target = "_blank";
      return link;
    }),
  );
  drawBoxes(report);
  $("report").hidden = false;
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
