const $ = (id) => document.getElementById(id);
const root = document.documentElement;
let chosen = null;
let plain = null;
let overlay = null;

function theme(name) {
  root.dataset.theme = name;
  localStorage.setItem("theme", name);
}
theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").onclick = () => theme(root.dataset.theme === "dark" ? "light" : "dark");

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("failed", failed);
}

function choose(blob) {
  chosen = blob;
  if (plain) URL.revokeObjectURL(plain);
  plain = URL.createObjectURL(blob);
  overlay = null;
  $("image").hidden = false;
  $("hint").hidden = true;
  $("report").hidden = true;
  $("analyse").disabled = false;
  say("Ready to analyse.");
  show();
}

function show() {
  $("image").src = overlay && $("boxes").checked ? overlay : plain;
}

async function answered(response) {
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw new Error(problem.detail);
}

async function analyse() {
  const image = chosen;
  $("analyse").disabled = true;
  say("Sending …");
  try {
    const form = new FormData();
    form.append("file", image, "image");
    form.append("priority", "stat");
    let job = await answered(await fetch("/v1/jobs", { method: "POST", body: form }));
    while (job.state === "queued" || job.state === "running") {
      say(job.state === "queued" ? "Waiting for a worker …" : "Reading …");
      await new Promise((resume) => setTimeout(resume, 300));
      job = await answered(await fetch(`/v1/jobs/${job.id}`));
    }
    if (job.state !== "succeeded") throw new Error(job.failure?.message ?? `The job was ${job.state}.`);
    if (image === chosen) render(job);
  } catch (error) {
    if (image === chosen) say(error.message, true);
  } finally {
    $("analyse").disabled = chosen === null;
  }
}

function render({ id, report }) {
  overlay = `/v1/jobs/${id}/overlay.png`;
  show();
  $("findings").textContent = report.findings;
  $("impression").textContent = report.impression;
  $("disclaimer").textContent = report.disclaimer;
  $("provenance").textContent =
    `${report.model.name} ${report.model.revision.slice(0, 12)} · ${report.model.quantisation}`;
  $("locations").replaceChildren(...report.locations.map(located));
  if (!report.locations.length) $("locations").replaceChildren(item("none"));
  $("warnings").replaceChildren(...report.warnings.map(item));
  $("report").hidden = false;
  say("Finished.");
}

function item(text) {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}

function located({ label, laterality, box, colour }) {
  const corners = [box.xmin, box.ymin, box.xmax, box.ymax].map(Math.round);
  const line = item(`${label}${laterality ? `, ${laterality}` : ""} (${corners.join(", ")} px)`);
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = colour;
  line.prepend(swatch);
  return line;
}

$("file").onchange = ({ target }) => target.files[0] && choose(target.files[0]);
$("demo").onclick = async () => choose(await (await fetch("/demo.png")).blob());
$("boxes").onchange = show;
$("analyse").onclick = analyse;

const stage = $("stage");
stage.ondragover = (event) => { event.preventDefault(); stage.classList.add("over"); };
stage.ondragleave = () => stage.classList.remove("over");
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
};
