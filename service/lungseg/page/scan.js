// Scans: one request each, with its progress; planes, surfaces and figures; two are compared.
import {about as facts, inWords, lungsTable, thirdsTable} from "./measures.js";
import {bar, flags, h, offers, problem, renew, say, view} from "./ui.js";
import {checkSize, limits, send} from "./service.js";
import {choice, lookControls} from "./controls.js";
import {Planes} from "./planes.js";
import {open as openSlices} from "./slices.js";
import {comparison} from "./compare.js";
import {profile} from "./profile.js";
import {unzip} from "./zip.js";

const SAMPLE = {
  name: "chest.nii.gz",
  note: "A chest of LIDC-IDRI (Armato et al. 2011, Med Phys 38:915) through The Cancer Imaging Archive "
    + "(Clark et al. 2013, J Digit Imaging 26:1045), CC BY 3.0; here in coarser voxels.",
};
const MOST = 2;
const LINES = "application/x-ndjson";
/** Words, where the bar is when a stage begins, and how much of it the stage takes. */
const STAGES = {
  read: ["Reading files", 0.3, 0.1],
  decode: ["Reading slices", 0.4, 0.15],
  segment: ["Finding the lungs", 0.55, 0.4],
};
const SENT = 0.3;
const WORKED = 0.95;
/** Phases of one file or series, as the refusal says them. */
const PHASES = /volume=0 to (?:volume=)?(\d+)/;
const ASKS_UNIT = /unit=hu/;
const root = document.getElementById("scan");
let scans = [];
let shown = 0;
let open_ = null;
let styled = null;

/** Segments the files of one scan, and shows it, beside the one that is shown already. */
export async function open(files, note = null) {
  await style();
  const scan = new Scan(files, note);
  if (scans.length === MOST) scans.pop().stop();
  scans.push(scan);
  shown = scans.length - 1;
  const ready = scan.run();
  view("scan", close);
  await ready;
}

/** Segments and shows the sample scan. */
export async function openSample() {
  await style();
  const {bytes} = await send(`page/samples/${SAMPLE.name}`, {method: "GET"});
  await open([new File([bytes], SAMPLE.name)], SAMPLE.note);
}

/** Forgets all scans, and leaves what is still under way. */
function close() {
  for (const scan of scans) scan.stop();
  scans = [];
  shown = 0;
  open_?.close();
  open_ = null;
  root.replaceChildren();
}

function style() {
  styled ??= new Promise((done) => {
    const href = new URL("scan.css", import.meta.url);
    document.head.append(h("link", {rel: "stylesheet", href, onload: done, onerror: done}));
  });
  return styled;
}

// --- one scan -----------------------------------------------------------------------------------

class Scan {
  constructor(files, note) {
    this.files = files;
    this.note = note;
    this.name = nameOf(files);
    this.query = {};
    this.stopped = new AbortController();
  }

  stop() {
    this.stopped.abort();
  }

  /** Sends the files with what was told about them; the answer, or the error, is kept. */
  async run(query = this.query) {
    Object.assign(this, {query, answer: null, error: null, stopped: new AbortController(), progress: bar("Sending")});
    this.tell("being sent…");
    try {
      const most = await limits();
      checkSize(this.files.reduce((sum, file) => sum + file.size, 0), most.max_volume_bytes);
      const begun = performance.now();
      const found = await this.ask({format: "zip", include: "volume"}, LINES);
      this.zip = found.zip;
      this.parts = unzip(found.zip);
      this.answer = found.answer;
      this.tell(`${inWords(found.answer)} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
    } catch (error) {
      this.error = error;
      this.tell(`${error.title ?? "this page made a mistake"}.`);
    }
  }

  /** Says and draws what has changed, unless this scan was closed meanwhile. */
  tell(words) {
    if (!scans.includes(this)) return;
    draw();
    say(`${this.name}: ${words}`);
  }

  /** One request: lines of progress, then the answer with the file that was asked for. */
  async ask(query, accept, onProgress = (fraction, words) => this.progress.set(fraction, words)) {
    const lines = new Lines((line) => {
      const [words, start, share] = STAGES[line.stage] ?? ["Working", SENT, 0];
      onProgress(start + (share * line.done) / Math.max(1, line.total), `${words}: ${line.done} of ${line.total}`);
      if (line.stage === "segment" && line.done >= line.total) onProgress(WORKED, "Measuring and packing");
    });
    const options = {query: {...this.query, ...query}, body: form(this.files), accept, signal: this.stopped.signal};
    options.onUpload = (fraction) => onProgress(fraction === null ? null : SENT * fraction, fraction === 1 ? "Waiting for the server" : "Sending");
    options.onText = (text) => lines.add(text);
    options.onBusy = () => onProgress(null, "The server is busy: it is asked again");
    await send("segment/volume", options);
    return lines.last();
  }

  /** The bytes of another form; the files are still here, and are sent again. */
  async form(format, signal) {
    const {bytes} = await send("segment/volume", {query: {...this.query, format}, body: form(this.files), signal});
    return bytes;
  }
}

/** The name of the only file, or of the folder that holds them all. */
function nameOf(files) {
  const [first] = files;
  if (files.length === 1) return first.name || "scan";
  const folder = (first.path || "").split("/").slice(0, -1).at(-1);
  return folder || `${files.length} files`;
}

/** Files as the service takes them, without their names, which may say whose they are. */
function form(files) {
  const body = new FormData();
  const part = files.length > 1 ? "files" : "file";
  files.forEach((file, place) => body.append(part, file, `${place}`));
  return body;
}

/** Lines of an answer as they come; the last is long, and is put together only once. */
class Lines {
  constructor(heard) {
    this.heard = heard;
    this.pieces = [];
    this.line = null;
  }

  add(text) {
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this.pieces.push(text.slice(from, end));
      this.take(this.pieces.join(""));
      this.pieces = [];
      from = end + 1;
    }
    this.pieces.push(text.slice(from));
  }

  take(line) {
    const parsed = JSON.parse(line);
    if ("stage" in parsed) this.heard(parsed);
    else this.line = parsed;
  }

  last() {
    if (this.line?.error) throw problemOf(this.line.error);
    if (!this.line) throw problemOf({code: "broken_off", title: "The answer broke off", detail: "the connection ended before the answer was whole"});
    const {file, ...answer} = this.line;
    return {answer, zip: fromBase64(file.base64)};
  }
}

const problemOf = (document) => Object.assign(new Error(document.detail), document, {requestId: document.request_id});

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = characters.charCodeAt(at);
  return bytes;
}

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// --- what is seen -------------------------------------------------------------------------------

function draw() {
  const scan = scans[shown];
  // What is looked at stays as it is, when something else has changed.
  const kept = scan.answer && open_?.answer === scan.answer;
  if (!kept) {
    open_?.close();
    open_ = scan.answer ? new Opened(scan) : null;
  }
  open_?.tell();
  const several = scans.length > 1;
  renew(root,
    h("h2", {id: "scan-title", class: "hidden"}, several ? "Two scans" : "Scan"),
    several && tabs(),
    several && scans.every((one) => one.answer) && comparing(),
    open_ ? open_.element : waiting(scan));
  if (kept || !open_) return;
  const {stage} = open_;
  open_.show().catch((error) => stage.replaceWith(problem(error)));
}

function tabs() {
  const names = ["First", "Second"];
  const choices = scans.map((scan, place) => {
    const label = choice("scan", String(place), `${names[place]}: ${scan.name}`, () => {
      shown = place;
      draw();
    });
    label.querySelector("input").checked = place === shown;
    return label;
  });
  return h("div", {class: "tools pairing"},
    h("fieldset", {class: "choices"}, h("legend", {}, "Shown"), choices),
    h("button", {type: "button", onclick: () => {
      scans.reverse();
      shown = 1 - shown;
      draw();
    }}, "Swap first and second"),
    h("button", {type: "button", onclick: () => {
      scans.splice(shown, 1)[0].stop();
      shown = 0;
      draw();
    }}, "Close the one that is shown"));
}

function comparing() {
  const content = h("div", {}, h("p", {}, "They are compared…"));
  comparison(scans[0].answer, scans[1].answer)
    .then((found) => content.replaceChildren(found))
    .catch((error) => content.replaceChildren(problem(error)));
  return h("section", {class: "panel compared", "aria-label": "Comparison"}, h("h3", {}, "What differs between the two"), content);
}

/** A scan that is sent or computed, or that could not be used, and what can be done about it. */
function waiting(scan) {
  if (!scan.error) {
    return h("div", {class: "card waiting"}, h("h3", {class: "filename"}, scan.name), scan.progress.element,
      h("p", {class: "buttons"}, h("button", {type: "button", onclick: () => scan.stop()}, "Cancel")));
  }
  const again = () => scan.run();
  return h("div", {class: "waiting"}, problem(scan.error, {name: scan.name, again}), remedies(scan));
}

/** What the service asks to be told, as buttons that tell it. */
function remedies(scan) {
  const detail = scan.error.detail ?? "";
  const [, last] = PHASES.exec(detail) ?? [];
  if (last) {
    const phases = Array.from({length: Number(last) + 1}, (_, phase) => phase);
    return h("p", {class: "buttons"}, "Which is meant?", phases.map((phase) =>
      h("button", {type: "button", onclick: () => scan.run({...scan.query, volume: phase})}, `Volume ${phase + 1}`)));
  }
  if (ASKS_UNIT.test(detail)) {
    return h("p", {class: "buttons"},
      h("button", {type: "button", onclick: () => scan.run({...scan.query, unit: "hu"})}, "The values are HU all the same"),
      h("button", {type: "button", onclick: () => scan.run({...scan.query, unit: "grey"})}, "They are grey levels"));
  }
  if (scan.files.length > 1 && scan.error.code !== "cancelled") {
    return h("p", {class: "buttons"}, "No scan at all? ",
      h("button", {type: "button", onclick: () => openSlices(scan.files)}, "Show them as single slices"));
  }
  return null;
}

/** A scan that is shown: planes and surfaces at the left, figures at the right. */
class Opened {
  constructor(scan) {
    this.scan = scan;
    this.answer = scan.answer;
    this.stage = h("div", {class: "planes", "data-shown": "all"});
    this.tools = h("div", {});
    this.below = h("div", {});
    this.beside = h("div", {class: "beside"});
    this.element = h("div", {class: "work"},
      h("div", {class: "sight"}, this.tools, this.stage, this.below, keysHelp()),
      this.beside);
    this.closed = false;
  }

  /** Says beside the planes what there is to say now. */
  tell() {
    this.beside.replaceChildren(panel(this.scan));
  }

  close() {
    this.closed = true;
    this.planes?.close();
    this.lungs?.close();
  }

  async show() {
    const {parts, answer} = this.scan;
    const [volume, mask] = await Promise.all(["volume.nii.gz", "mask.nii.gz"].map(async (name) => gunzip(await parts.get(name)())));
    if (this.closed) return;
    this.planes = new Planes(volume, mask, answer, () => this.plot?.show());
    this.stage.append(...this.planes.views.map((one) => one.element));
    this.controls = lookControls(this.planes.look, {viewer: () => this.planes.views[0], extra: this.choices()});
    this.tools.replaceChildren(this.controls.element);
    this.controls.update();
    this.plot = profile(this.planes, answer.statistics.profile);
    this.below.replaceChildren(this.plot.element);
    for (const one of this.planes.views) one.draw();
    this.stage.dataset.state = "ready";
    await this.showSurfaces();
  }

  /** Which planes are shown. */
  choices() {
    const names = {all: "All", axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", surfaces: "Surface"};
    const labels = Object.entries(names).map(([value, text]) => choice("planes", value, text, () => {
      this.stage.dataset.shown = value;
    }));
    labels[0].querySelector("input").checked = true;
    return h("fieldset", {class: "choices"}, h("legend", {}, "Show"), labels);
  }

  async showSurfaces() {
    const glb = this.scan.parts.get("lungs.glb");
    const frame = h("div", {class: "stage surfaces"});
    this.stage.append(frame);
    const {canShow, showLungs} = await import("./lungs.js");
    const lacking = !glb ? "There is no surface: nothing says how far slices and pixels lie apart."
      : !this.answer.statistics.voxels ? "There is no surface: no lung was found."
        : !canShow() && "This browser has no WebGL, so the surface of the lungs cannot be drawn. All else is here.";
    if (lacking) {
      frame.append(h("p", {class: "cover"}, lacking));
      frame.dataset.state = "none";
      return;
    }
    const cover = h("p", {class: "cover"}, "The surface is drawn…");
    const canvas = h("canvas", {tabindex: "0", role: "img", "aria-label": "Surface of the lungs, seen from the front; arrow keys turn it"});
    const marks = ["left", "right"].map((side) => h("span", {class: `mark ${side}`, "aria-hidden": "true"}));
    frame.append(canvas, ...marks, h("span", {class: "name"}, "Surface"), cover);
    try {
      this.lungs = await showLungs(canvas, await glb(), (...sides) => marks.forEach((mark, place) => { mark.textContent = sides[place]; }));
      cover.remove();
      frame.dataset.state = "ready";
      if (this.closed) this.lungs.close();
    } catch (error) {
      cover.textContent = "The surface of the lungs could not be drawn here. All else is here.";
      frame.dataset.state = "none";
      console.warn(error);
    }
  }
}

function panel(scan) {
  const {answer} = scan;
  const {statistics, volume} = answer;
  const content = [
    h("h3", {class: "filename"}, scan.name),
    h("p", {}, inWords(answer)),
    scan.note && h("p", {class: "fine"}, scan.note),
    seriesChoice(scan, volume.series),
    h("h4", {}, "What to doubt"),
    flags(answer.quality.flags),
    h("h4", {}, "Figures"),
    lungsTable(statistics),
    thirdsTable(statistics),
    sides(statistics),
    h("details", {}, h("summary", {}, "About this scan"), facts(answer)),
    h("h4", {}, "Download"),
    downloads(scan),
    h("h4", {}, "Compare"),
    h("p", {class: "fine"}, scans.length > 1
      ? "Another scan that is dropped here takes the place of the second."
      : "Drop a second scan of the same patient here, to see what differs."),
    h("p", {class: "buttons"},
      h("button", {type: "button", onclick: () => document.getElementById("files").click()}, "Choose the other scan"),
      h("button", {type: "button", onclick: () => document.getElementById("folder").click()}, "Choose its folder")),
  ];
  return h("aside", {class: "panel"}, content);
}

function sides({laterality}) {
  const words = {
    dicom_orientation: "Right and left are the patient's, by the header.",
    radiological_convention: "Right and left are the patient's if the file follows the convention: its header does not say.",
  }[laterality];
  return words && h("p", {class: "fine"}, words);
}

/** Where several series came: which was taken, and the others, to be taken instead. */
function seriesChoice(scan, series) {
  if (series.length < 2) return null;
  const select = h("select", {id: "series", onchange: () => {
    const {volume, ...told} = scan.query; // a phase is one of its series
    scan.run({...told, series: select.value});
  }},
    series.map(({uid, slices, step_mm: step, kernel, chosen}) => h("option", {value: uid, selected: chosen},
      [`${slices} slices`, step && `every ${step.toFixed(2)} mm`, kernel].filter(Boolean).join(", "))));
  return h("p", {class: "series"}, h("label", {for: "series"}, `${series.length} series came; this is measured: `), select);
}

function downloads(scan) {
  const trouble = h("div", {});
  const stem = scan.name.replace(/(\.nii)?\.[^.]+$/, "");
  const offer = offers(trouble);
  const part = (name) => scan.parts.get(name);
  const asked = (format) => () => scan.form(format, scan.stopped.signal);
  const isDicom = scan.answer.volume.media_type === "application/dicom";
  const hasSurface = scan.parts.has("lungs.glb");
  return h("div", {},
    h("p", {class: "buttons"},
      offer("All, ZIP", `${stem}_lungs.zip`, "application/zip", async () => scan.zip),
      offer("Mask, NIfTI", `${stem}_mask.nii.gz`, "application/gzip", part("mask.nii.gz")),
      offer("Mask, NRRD", `${stem}_mask.nrrd`, "application/x-nrrd", asked("nrrd")),
      offer("Mask, NPZ", `${stem}_mask.npz`, "application/x-npz", asked("npz")),
      isDicom && offer("DICOM SEG", `${stem}_seg.dcm`, "application/dicom", asked("dicom-seg")),
      isDicom && offer("DICOM SEG, label map", `${stem}_labelmap.dcm`, "application/dicom", asked("dicom-seg-labelmap")),
      isDicom && offer("DICOM report, SR", `${stem}_sr.dcm`, "application/dicom", asked("dicom-sr")),
      offer("Figures, JSON", `${stem}.json`, "application/json", part("statistics.json")),
      offer("Profile, CSV", `${stem}_profile.csv`, "text/csv", part("profile.csv")),
      offer("Montage, PNG", `${stem}_montage.png`, "image/png", part("montage.png")),
      hasSurface && offer("Surface, STL", `${stem}_lungs.stl`, "model/stl", asked("stl")),
      hasSurface && offer("Surface, GLB", `${stem}_lungs.glb`, "model/gltf-binary", part("lungs.glb"))),
    trouble);
}

function keysHelp() {
  const keys = [
    ["arrows", "slice by slice, in the plane that has the focus"], ["Page up, Page down", "ten slices"],
    ["Home, End", "first and last slice"], ["1 2 3", "window presets"], ["+ − 0", "zoom, fit"], ["h", "hide or show the lungs"],
  ];
  return h("details", {class: "keys"}, h("summary", {}, "Mouse and keys"),
    h("p", {}, "The wheel goes through slices, with Ctrl it zooms. A click brings the other planes there. Dragging changes contrast: "
      + "to the right softer, upwards brighter; with the right button or Shift it moves the picture. The surface turns with the mouse."),
    h("dl", {}, keys.flatMap(([name, what]) => [h("dt", {}, name), h("dd", {}, what)])));
}
