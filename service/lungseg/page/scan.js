// Scans: one request each, with its progress; one is shown, and two are compared.
import {bar, h, problem, renew, say, view} from "./ui.js";
import {checkSize, limits, send} from "./service.js";
import {Lines} from "./stream.js";
import {Opened} from "./opened.js";
import {choice} from "./controls.js";
import {comparison} from "./compare.js";
import {inWords} from "./measures.js";
import {open as openSlices} from "./slices.js";
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
let onScreen = null;
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
  onScreen?.close();
  onScreen = null;
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

// --- what is seen -------------------------------------------------------------------------------

function draw() {
  const scan = scans[shown];
  // What is looked at stays as it is, when something else has changed.
  const kept = scan.answer && onScreen?.answer === scan.answer;
  if (!kept) {
    onScreen?.close();
    onScreen = scan.answer ? new Opened(scan) : null;
  }
  const several = scans.length > 1;
  onScreen?.tell(several);
  renew(root,
    h("h2", {id: "scan-title", class: "hidden"}, several ? "Two scans" : "Scan"),
    several && tabs(),
    several && scans.every((one) => one.answer) && comparing(),
    onScreen ? onScreen.element : waiting(scan));
  if (kept || !onScreen) return;
  const {stage} = onScreen;
  onScreen.show().catch((error) => stage.replaceWith(problem(error)));
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
