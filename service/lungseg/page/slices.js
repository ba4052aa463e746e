// Slices: one request each, a few at a time; one is shown large, or all side by side.
import {PRESETS, aspectOf, compose, whole} from "./picture.js";
import {lookControls} from "./controls.js";
import {checkSize, limits, scanView, send} from "./service.js";
import {allOf, panel, tableOf, untold} from "./panel.js";
import {h, mouseAndKeys, offers, problem, renew, say, view} from "./ui.js";
import {readNpy} from "./npy.js";
import {unzip} from "./zip.js";
import {Look} from "./look.js";
import {Viewer} from "./viewer.js";

/** As many requests as a browser and a small server do well at once. */
const AT_A_TIME = 2;
const THUMB = 72;
const SAMPLE = {
  name: "chest.dcm",
  note: "One slice of LIDC-IDRI (Armato et al. 2011, Med Phys 38:915) through The Cancer Imaging Archive "
    + "(Clark et al. 2013, J Digit Imaging 26:1045), CC BY 3.0.",
};
let shown = null;

/** Segments some files and shows them as they are ready. */
export async function open(files, note = null) {
  close();
  const batch = new Batch(files, note);
  shown = batch;
  document.getElementById("slices").replaceChildren(...batch.build());
  batch.choose(0);
  view("slices", close);
  await batch.run(batch.items);
}

/** Segments and shows the sample slice. */
export async function openSample() {
  const {bytes} = await send(`page/samples/${SAMPLE.name}`, {method: "GET"});
  await open([new File([bytes], SAMPLE.name)], SAMPLE.note);
}

/** Forgets all slices, and leaves what is still under way. */
function close() {
  shown?.end();
  shown = null;
  document.getElementById("slices").replaceChildren();
}

class Batch {
  constructor(files, note) {
    this.note = note;
    this.query = {};
    this.stopped = new AbortController();
    this.look = new Look();
    this.place = 0;
    this.beside = false;
    this.viewers = [];
    this.items = files.map((file) => ({file, name: file.name || "pasted picture", query: this.query, state: "waiting"}));
  }

  end() {
    this.stopped.abort();
    for (const viewer of this.viewers) viewer.remove();
  }

  // --- the work -------------------------------------------------------------------------------

  async run(items) {
    say(items.length > 1 ? "The lungs are being found…" : `${items[0].name}: the lungs are being found…`);
    const most = await limits();
    const waiting = [...items];
    const worker = async () => {
      while (waiting.length && !this.stopped.signal.aborted) {
        const item = waiting.shift();
        await this.segment(item, most);
        // Who gives no key is not asked for each slice.
        if (item.error?.code === "unauthorized") waiting.splice(0).forEach((other) => this.fail(other, item.error));
      }
    };
    await Promise.all(Array.from({length: AT_A_TIME}, worker));
    if (this.stopped.signal.aborted) return;
    const failed = this.items.filter((item) => item.state === "failed").length;
    if (this.items.length > 1) {
      const done = this.items.length - failed;
      say(`${done} of ${this.items.length} slices are ready${failed ? `, ${failed} could not be used` : ""}.`);
    }
  }

  async segment(item, most = {}) {
    const begun = performance.now();
    item.query = this.query;
    this.mark(item, "working");
    try {
      checkSize(item.file.size, most.max_body_bytes);
      const answer = await send("segment", {
        body: item.file,
        type: "application/octet-stream",
        query: {...item.query, format: "zip"},
        signal: this.stopped.signal,
        onBusy: () => say("The server is busy: it is asked again."),
      });
      await this.keep(item, answer);
      this.mark(item, "done");
      if (this.items.length === 1) say(this.summary(item, performance.now() - begun));
    } catch (error) {
      if (this.stopped.signal.aborted) return;
      let reason = error;
      if (error.code === "multi_frame" && item.file.kind === "dicom" && this.items.length === 1) {
        try {
          await (await scanView()).open([item.file]);
          return;
        } catch (other) {
          reason = other;
        }
      }
      this.fail(item, reason);
    }
  }

  fail(item, error) {
    item.error = error;
    this.mark(item, "failed");
    if (this.items.length === 1) say(`${item.name} could not be used. ${error.title || ""}`);
  }

  /** What failed for one reason is tried again together: the server may have been away. */
  failedAs({error}) {
    return this.items.filter((item) => item.state === "failed" && item.error.code === error.code);
  }

  async keep(item, answer) {
    item.files = unzip(answer.bytes);
    const read = async (name) => item.files.get(name)();
    const [statistics, labels, values] = await Promise.all(
      ["statistics.json", "labels.npy", "slice.npy"].map(read));
    item.answer = JSON.parse(new TextDecoder().decode(statistics));
    const {shape, data} = readNpy(values);
    item.slice = {
      name: item.name,
      rows: shape[0],
      columns: shape[1],
      values: data,
      labels: readNpy(labels).data,
      image: item.answer.image,
      statistics: item.answer.statistics,
    };
  }

  summary(item, spent_ms) {
    const doubts = item.answer.quality.flags.length;
    const found = item.answer.statistics.pixels ? "Lungs outlined" : "No lung found";
    const what = doubts ? `${doubts} thing${doubts > 1 ? "s" : ""} to doubt` : "nothing was found to doubt";
    return `${found} in ${Math.round(spent_ms)} ms; ${what}.`;
  }

  /** Sends slices anew with what was told about their pictures. */
  async again(query) {
    this.query = query;
    say("Measuring again…");
    await this.run(this.items);
  }

  mark(item, state) {
    item.state = state;
    if (state === "working") item.error = null;
    this.drawTile(item);
    if (this.beside) this.drawGrid();
    if (item === this.current) this.drawCurrent();
    this.more.hidden = !this.items.some((other) => other.state === "done");
  }

  // --- what is seen ---------------------------------------------------------------------------

  get current() {
    return this.items[this.place];
  }

  build() {
    const several = this.items.length > 1;
    this.stages = h("div", {class: "stages"});
    this.side = h("aside", {class: "panel", "aria-live": "off"});
    this.strip = h("ol", {class: "strip", "aria-label": "Slices", hidden: !several});
    for (const item of this.items) this.strip.append(this.tile(item));
    this.trouble = h("div", {});
    const offer = offers(this.trouble);
    const ready = () => this.items.filter((item) => item.state === "done");
    this.more = h("p", {class: "buttons batch", hidden: true},
      several && offer("All masks and table, ZIP", "lungs.zip", "application/zip", () => allOf(ready())),
      several && offer("Table of all, CSV", "lungs.csv", "text/csv", () => tableOf(ready())));
    this.drawStages();
    return [
      h("h2", {id: "slices-title", class: "hidden"}, several ? `${this.items.length} slices` : "Slice"),
      h("div", {class: "work"},
        this.sight = h("div", {class: "sight"}, this.tools(several), this.stages, this.strip, keysHelp(several)),
        h("div", {class: "beside"}, this.side, this.more, this.trouble, this.scanOffer())),
    ];
  }

  /** Slices that may be meant as one scan can be had as one. */
  scanOffer() {
    return this.items.filter((item) => item.file.kind === "dicom").length > 1 && h("p", {class: "fine"}, "Do these belong to one scan? ",
      h("button", {type: "button", class: "link", onclick: async () => {
        const files = this.items.map((item) => item.file);
        try {
          await (await scanView()).open(files);
        } catch (error) {
          this.trouble.replaceChildren(problem(error));
        }
      }}, "Read them as one"));
  }

  tile(item) {
    item.thumb = h("canvas", {width: THUMB, height: THUMB, "aria-hidden": "true"});
    item.stateText = h("span", {class: "state"});
    item.button = h("button", {type: "button", onclick: () => this.choose(this.items.indexOf(item))},
      item.thumb, h("span", {class: "label"}, item.name), item.stateText);
    return h("li", {}, item.button);
  }

  drawTile(item) {
    const words = {
      waiting: "waits", working: "is computed", failed: "not usable",
      done: item.answer?.quality.flags.length ? `${item.answer.quality.flags.length} to doubt` : "ready",
    };
    item.button.dataset.state = item.state;
    item.stateText.textContent = words[item.state];
    item.button.classList.toggle("doubt", item.state === "done" && item.answer.quality.flags.length > 0);
    if (item.state === "done") drawThumb(item);
  }

  choose(place) {
    if (place < 0 || place >= this.items.length) return false;
    this.current?.button.removeAttribute("aria-current");
    this.place = place;
    this.current.button.setAttribute("aria-current", "true");
    const {button} = this.current;
    this.strip.scrollLeft = button.offsetLeft - (this.strip.clientWidth - button.offsetWidth) / 2;
    this.drawCurrent();
    if (this.items.length > 1) {
      this.counter.textContent = `${place + 1} of ${this.items.length}`;
      say(`${this.current.name}, ${place + 1} of ${this.items.length}`);
    }
    return true;
  }

  /** One large viewer, or one for each slice that is ready. */
  drawStages() {
    for (const viewer of this.viewers) viewer.remove();
    this.stages.replaceChildren();
    this.stages.classList.toggle("grid", this.beside);
    if (this.beside) {
      this.viewers = this.items.map((item, place) => this.small(item, place));
    } else {
      this.viewers = [new Viewer(this.look, {wheel: (steps) => this.items.length > 1 && (this.choose(this.place + steps) || true)})];
      this.viewers[0].element.addEventListener("keydown", (event) => this.flick(event));
      this.cover = h("div", {class: "cover"});
      this.viewers[0].element.append(this.cover);
    }
    this.stages.append(...this.viewers.map((viewer) => viewer.element));
    if (this.beside) this.drawGrid();
  }

  small(item, place) {
    const viewer = new Viewer(this.look, {heading: item.name, wheel: null});
    viewer.clear(item.name);
    viewer.element.addEventListener("focusin", () => this.place === place || this.choose(place));
    viewer.element.addEventListener("pointerdown", () => this.place === place || this.choose(place));
    return viewer;
  }

  drawGrid() {
    this.items.forEach((item, place) => {
      const viewer = this.viewers[place];
      viewer.element.classList.toggle("chosen", place === this.place);
      if (item.slice && viewer.slice !== item.slice) viewer.show(item.slice);
      viewer.element.dataset.state = item.state;
    });
  }

  drawCurrent() {
    const item = this.current;
    this.sight.hidden = this.items.length === 1 && item.state === "failed" && !item.slice;
    if (this.beside) this.drawGrid();
    else this.drawLarge(item);
    if (item.state === "failed") {
      const told = item.answer && untold(item, (query) => this.again(query)); // it may be what is wrong
      renew(this.side, problem(item.error, {name: item.name, again: () => this.run(this.failedAs(item))}), told);
    } else if (item.state === "done") {
      renew(this.side, ...panel(item, {again: (query) => this.again(query), note: this.note}));
    } else if (!item.answer) {
      renew(this.side, h("h3", {class: "filename"}, item.name), h("p", {class: "facts busy"}, "The lungs are being found…"));
    }
  }

  drawLarge(item) {
    const [viewer] = this.viewers;
    viewer.element.setAttribute("aria-busy", String(item.state === "working"));
    viewer.element.dataset.state = item.state;
    this.cover.textContent = {failed: "There is no picture of this file", working: "Finding the lungs…", waiting: "Waits for its turn"}[item.state] || "";
    this.cover.hidden = Boolean(item.slice);
    if (item.slice) {
      if (viewer.slice !== item.slice) viewer.show(item.slice);
      this.controls.update();
    } else {
      viewer.clear(item.name);
    }
  }

  flick(event) {
    const to = {PageDown: this.place + 1, PageUp: this.place - 1, Home: 0, End: this.items.length - 1}[event.key];
    if (to === undefined || this.items.length < 2) return;
    event.preventDefault();
    this.choose(to);
  }

  // --- controls -------------------------------------------------------------------------------

  tools(several) {
    this.counter = h("output", {});
    const flick = several && h("div", {class: "pair flick", role: "group", "aria-label": "Slices"},
      h("button", {type: "button", "aria-label": "Slice before", onclick: () => this.choose(this.place - 1)}, "‹"),
      this.counter,
      h("button", {type: "button", "aria-label": "Next slice", onclick: () => this.choose(this.place + 1)}, "›"),
      h("button", {type: "button", "aria-pressed": "false", onclick: (event) => {
        this.beside = !this.beside;
        event.currentTarget.setAttribute("aria-pressed", String(this.beside));
        this.drawStages();
        this.drawCurrent();
      }}, "Side by side"));
    this.controls = lookControls(this.look, {viewer: () => this.viewers.find((one) => one.slice), extra: flick});
    return this.controls.element;
  }
}

function drawThumb(item) {
  const {rows, columns, values, labels, image} = item.slice;
  const full = new OffscreenCanvas(columns, rows);
  const context = full.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  const own = image.intensity_unit === "HU" ? PRESETS.lung : whole(values);
  compose(values, labels, own, 0.45, pixels.data);
  context.putImageData(pixels, 0, 0);
  const aspect = aspectOf(image);
  const scale = Math.min(THUMB / columns, THUMB / (rows * aspect));
  const [width, height] = [columns * scale, rows * scale * aspect];
  const small = item.thumb.getContext("2d");
  small.clearRect(0, 0, THUMB, THUMB);
  small.imageSmoothingQuality = "high";
  small.drawImage(full, (THUMB - width) / 2, (THUMB - height) / 2, width, height);
}

function keysHelp(several) {
  const wheel = several ? "The wheel flicks through slices, with Ctrl it zooms." : "The wheel zooms.";
  return mouseAndKeys(wheel, "A double click fits it.", [
    ["arrows", "read values pixel by pixel"], ["Shift + arrows", "move the picture"],
    ...(several ? [["Page up, Page down, Home, End", "other slices"]] : []),
  ]);
}
