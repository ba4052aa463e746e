// One slice on one canvas: what is seen, and what mouse, finger and keys do to it.
import {COLOURS, PRESETS, aspectOf, compose, directions, outlines, place, whole} from "./picture.js";
import {ZOOM_STEP} from "./look.js";
import {h, number} from "./ui.js";

const LINE = 2;
/** How much wider than the line its dark rim is. */
const HALO = 2.5;
/** A scale bar takes at most this part of the picture's width. */
const BAR_SHARE = 0.3;
const BARS_MM = [200, 100, 50, 20, 10, 5, 2, 1];
/** A pointer that moved less, in pixels, was not dragged. */
const TAP = 3;

export class Viewer {
  /** `wheel(steps)` may take the wheel's turns and says whether it did; null leaves them to the page. */
  constructor(look, {wheel = () => false, heading = "", line = LINE} = {}) {
    this.look = look;
    this.line = line;
    this.wheel = wheel;
    this.canvas = h("canvas", {tabindex: "0", role: "img", "aria-label": "No slice yet"});
    this.marks = Object.fromEntries(["left", "right", "top", "bottom"].map((side) =>
      [side, h("span", {class: `mark ${side}`, "aria-hidden": "true"})]));
    this.readout = h("output", {class: "readout"});
    this.windowText = h("span", {class: "window"});
    this.scale = h("span", {class: "scale", hidden: true}, h("i", {}), h("b", {}));
    this.heading = h("span", {class: "name"}, heading);
    this.element = h("div", {class: "stage"}, this.canvas, ...Object.values(this.marks),
      this.heading, this.windowText, this.readout, this.scale);
    this.slice = null;
    this.probe = null;
    this.redraw = () => this.draw();
    look.listeners.add(this.redraw);
    this.observer = new ResizeObserver(this.redraw);
    this.observer.observe(this.element);
    this.listen();
  }

  remove() {
    this.look.listeners.delete(this.redraw);
    this.observer.disconnect();
    this.element.remove();
  }

  /** Shows a slice: rows, columns, values, labels, image, statistics, name. */
  show(slice) {
    this.slice = slice;
    this.probe = null;
    this.composed = null;
    this.read(this.hover && this.under(this.hover));
    this.heading.textContent = slice.name;
    if (!slice.lines) slice.lines = outlines(slice.labels, slice.rows, slice.columns);
    const sides = directions(slice.image, slice.statistics.laterality);
    for (const [side, mark] of Object.entries(this.marks)) {
      mark.textContent = sides[side];
      mark.classList.toggle("assumed", !sides.sure);
      mark.title = sides.sure ? "" : "by convention: the file does not say";
    }
    this.canvas.setAttribute("aria-label", describe(slice));
    this.draw();
  }

  /** Shows no slice, but whose place it is. */
  clear(name) {
    this.slice = null;
    for (const mark of Object.values(this.marks)) mark.textContent = "";
    for (const part of [this.readout, this.windowText]) part.textContent = "";
    this.heading.textContent = name;
    this.scale.hidden = true;
    this.canvas.setAttribute("aria-label", `${name}: no picture yet`);
    this.draw();
  }

  /** The window of this slice: grey levels and "Full" have the slice's own. */
  get window() {
    const {preset, centre, width} = this.look;
    const own = preset === "all" || (PRESETS[preset] && this.slice.image.intensity_unit !== "HU");
    if (!own) return {centre, width};
    this.slice.whole ??= whole(this.slice.values);
    return this.slice.whole;
  }

  /** How the slice lies on the canvas, in its pixels: offset and size of one pixel of the slice. */
  get layout() {
    const {rows, columns, image} = this.slice;
    const aspect = aspectOf(image);
    const {width, height} = this.canvas;
    const fitted = Math.min(width / columns, height / (rows * aspect));
    const x = fitted * this.look.zoom;
    const y = x * aspect;
    const ratio = devicePixelRatio;
    const [right, down] = this.look.shift;
    return {
      x, y,
      left: (width - columns * x) / 2 + right * ratio,
      top: (height - rows * y) / 2 + down * ratio,
    };
  }

  draw() {
    const box = this.element.getBoundingClientRect();
    const [width, height] = [box.width, box.height].map((side) => Math.max(1, Math.round(side * devicePixelRatio)));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.slice) return;
    this.compose();
    const {rows, columns} = this.slice;
    const {x, y, left, top} = this.layout;
    context.imageSmoothingEnabled = x < 4;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, left, top, columns * x, rows * y);
    if (this.look.outline) this.drawOutlines(context);
    if (this.probe) this.drawProbe(context);
    this.tellWindow();
    this.drawScale();
  }

  /** The slice in its own size, made anew only when window or tint changed. */
  compose() {
    const {rows, columns, values, labels} = this.slice;
    const {tint} = this.look;
    const {centre, width} = this.window;
    const wanted = `${centre} ${width} ${tint}`;
    if (this.composed === wanted) return;
    this.composed = wanted;
    this.picture = new OffscreenCanvas(columns, rows);
    const context = this.picture.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    compose(values, labels, {centre, width}, tint, pixels.data);
    context.putImageData(pixels, 0, 0);
  }

  drawOutlines(context) {
    const {x, y, left, top} = this.layout;
    const ratio = devicePixelRatio;
    context.lineCap = "square";
    const paths = [...this.slice.lines].map(([label, lines]) => {
      const path = new Path2D();
      for (let at = 0; at < lines.length; at += 4) {
        path.moveTo(left + lines[at] * x, top + lines[at + 1] * y);
        path.lineTo(left + lines[at + 2] * x, top + lines[at + 3] * y);
      }
      return [label, path];
    });
    context.strokeStyle = "rgb(0 0 0 / 55%)";
    context.lineWidth = (this.line + HALO) * ratio;
    for (const [, path] of paths) context.stroke(path);
    context.lineWidth = this.line * ratio;
    for (const [label, path] of paths) {
      context.strokeStyle = `rgb(${COLOURS[label].join(" ")})`;
      context.stroke(path);
    }
  }

  drawProbe(context) {
    const {x, y, left, top} = this.layout;
    const [row, column] = this.probe;
    const ratio = devicePixelRatio;
    context.strokeStyle = "#fff";
    context.lineWidth = ratio;
    const [centreX, centreY] = [left + (column + 0.5) * x, top + (row + 0.5) * y];
    for (const [inner, outer] of [[4, 14]]) {
      for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.beginPath();
        context.moveTo(centreX + across * inner * ratio, centreY + down * inner * ratio);
        context.lineTo(centreX + across * outer * ratio, centreY + down * outer * ratio);
        context.stroke();
      }
    }
  }

  tellWindow() {
    const {centre, width} = this.window;
    this.windowText.textContent = `C ${number(centre)}  W ${number(width)}`;
  }

  drawScale() {
    const {spacing_mm: spacing} = this.slice.image;
    this.scale.hidden = !spacing;
    if (!spacing) return;
    const perMm = this.layout.x / spacing[1] / devicePixelRatio;
    const most = this.element.clientWidth * BAR_SHARE;
    const length = BARS_MM.find((mm) => mm * perMm <= most) ?? BARS_MM.at(-1);
    this.scale.firstChild.style.width = `${length * perMm}px`;
    this.scale.lastChild.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
  }

  /** Row and column under a point of the window, or null outside the slice. */
  under(event) {
    if (!this.slice) return null;
    const box = this.canvas.getBoundingClientRect();
    const {x, y, left, top} = this.layout;
    const column = Math.floor(((event.clientX - box.left) * devicePixelRatio - left) / x);
    const row = Math.floor(((event.clientY - box.top) * devicePixelRatio - top) / y);
    return this.within(row, column) ? [row, column] : null;
  }

  within(row, column) {
    return row >= 0 && column >= 0 && row < this.slice.rows && column < this.slice.columns;
  }

  /** Says what lies at a pixel. */
  read(pixel) {
    if (!pixel) {
      this.readout.textContent = "";
      return;
    }
    const [row, column] = pixel;
    const {values, labels, columns, image} = this.slice;
    const value = values[row * columns + column];
    const unit = image.intensity_unit === "HU" ? "HU" : "grey";
    const side = ["", "right lung", "left lung", "lung"][labels[row * columns + column]];
    const where = place(image, row, column);
    const position = where
      ? `${where.map(({letter, mm}) => `${letter} ${number(mm, 1)}`).join("  ")} mm`
      : `column ${column}, row ${row}`;
    this.readout.textContent = [`${number(value, Number.isInteger(value) ? 0 : 1)} ${unit}`, side, position]
      .filter(Boolean).join(" · ");
  }

  listen() {
    const {canvas} = this;
    this.pointers = new Map();
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      if (!this.probe) this.read(null);
    });
    canvas.addEventListener("wheel", (event) => this.turn(event), {passive: false});
    canvas.addEventListener("keydown", (event) => this.type(event));
    canvas.addEventListener("dblclick", () => this.look.fit());
    canvas.addEventListener("blur", () => {
      this.probe = null;
      this.draw();
    });
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, {at: [event.clientX, event.clientY], moved: 0});
    if (this.probe) {
      this.probe = null;
      this.draw();
    }
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) {
      this.hover = event; // what comes under it later is read, too
      this.read(this.under(event));
      return;
    }
    const by = [event.clientX - pointer.at[0], event.clientY - pointer.at[1]];
    pointer.moved += Math.hypot(...by);
    if (pointer.moved < TAP) return;
    if (this.pointers.size > 1) this.pinch(event, pointer);
    else if ((this.look.drag === "move") !== (event.shiftKey || event.buttons > 1)) this.shift(by);
    else this.contrast(by);
    pointer.at = [event.clientX, event.clientY];
  }

  shift(by) {
    this.look.change({shift: this.look.shift.map((one, axis) => one + by[axis])});
  }

  /** To the right is wider, upwards is brighter, by what the window now is. */
  contrast([right, down]) {
    const {centre, width} = this.window;
    const step = Math.max(width, 1) / 300;
    this.look.change({preset: "", centre: centre + down * step, width: Math.max(width + right * 2 * step, width / 50, 1e-3)});
  }

  pinch(event, pointer) {
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
    const distance = (point) => Math.max(1, Math.hypot(point[0] - other.at[0], point[1] - other.at[1]));
    const now = [event.clientX, event.clientY];
    const middle = now.map((one, axis) => (one + other.at[axis]) / 2);
    this.look.zoomBy(distance(now) / distance(pointer.at), this.fromCentre(middle));
  }

  fromCentre([x, y]) {
    const box = this.canvas.getBoundingClientRect();
    return [x - box.left - box.width / 2, y - box.top - box.height / 2];
  }

  turn(event) {
    if (!event.ctrlKey && !this.wheel) return;
    event.preventDefault();
    if (!event.ctrlKey && this.wheel(Math.sign(event.deltaY))) return;
    this.look.zoomBy(ZOOM_STEP ** (-event.deltaY / 120), this.fromCentre([event.clientX, event.clientY]));
  }

  type(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.slice) return;
    const arrows = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
    const arrow = arrows[event.key];
    const preset = Object.keys(PRESETS)[Number(event.key) - 1];
    if (arrow && event.shiftKey) this.shift([-arrow[1] * 20, -arrow[0] * 20]);
    else if (arrow) this.moveProbe(arrow);
    else if (preset) this.look.use(preset);
    else if (event.key === "+" || event.key === "=") this.look.step(1);
    else if (event.key === "-") this.look.step(-1);
    else if (event.key === "0") this.look.fit();
    else if (event.key === "h") this.look.change(this.look.outline ? {outline: false, tint: 0} : {outline: true, tint: 0.2});
    else return;
    event.preventDefault();
  }

  moveProbe([down, right]) {
    const {rows, columns} = this.slice;
    const [row, column] = this.probe || [rows >> 1, columns >> 1];
    const next = [row + down, column + right];
    this.probe = this.within(...next) ? next : [row, column];
    this.read(this.probe);
    this.draw();
  }
}

/** A picture in one sentence. */
function describe(slice) {
  const {right, left} = slice.statistics.lungs;
  const area = (lung) => (lung.area_mm2 === null ? `${lung.pixels} pixels` : `${number(lung.area_mm2 / 100, 1)} cm²`);
  if (!slice.statistics.pixels) return `${slice.name}: CT slice in which no lung was found`;
  if (!right || !left) return `${slice.name}: CT slice with the lungs outlined, ${area(slice.statistics)}`;
  return `${slice.name}: CT slice with the right lung (${area(right)}) and the left lung (${area(left)}) outlined`;
}
