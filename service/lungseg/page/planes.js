// A volume in three planes, in radiological convention: the patient's right at the picture's left,
// the front up or left, the head up. They are plain canvases, as slices are, and need no WebGL.
import {axesOf, positionOf, readNifti} from "./nifti.js";
import {whole} from "./picture.js";
import {h, number} from "./ui.js";
import {Look} from "./look.js";
import {Viewer} from "./viewer.js";

/** By axis of the patient (right to left, front to back, head to feet): across, down and through. */
const PLANES = [
  {name: "Axial", across: 0, down: 1, through: 2},
  {name: "Coronal", across: 0, down: 2, through: 1},
  {name: "Sagittal", across: 1, down: 2, through: 0},
];
const LINE = 1.25;
const FAR = 10;
/** A pointer that moved less, in pixels, was not dragged. */
const TAP = 3;
/** What planes have in common; each is moved by itself. */
const TOGETHER = ["preset", "centre", "width", "tint", "outline", "drag", "zoom"];

/** The three planes of a volume; `moved()` is called when another place is shown. */
export class Planes {
  constructor(volumeBytes, maskBytes, {volume, statistics}, moved) {
    const scan = readNifti(volumeBytes);
    this.values = scan.values;
    this.labels = readNifti(maskBytes).values;
    this.grid = axesOf(scan, volume.affine_lps);
    this.unit = volume.intensity_unit;
    this.spaced = volume.spacing_mm !== null;
    this.laterality = statistics.laterality;
    this.whole = whole(this.values);
    this.moved = moved;
    this.place = this.mostLung();
    this.views = PLANES.map((plane) => new Plane(this, plane));
    this.look = this.views[0].look;
    for (const view of this.views) view.look.listeners.add(() => this.keepTogether(view.look));
    for (const view of this.views) view.update();
  }

  get slices() {
    return this.grid.axes[2].size;
  }

  /** The axial slice that is shown, from 1 at the head. */
  get slice() {
    return this.place[2] + 1;
  }

  set slice(number) {
    this.go(2, number - 1);
  }

  /** Position of an axial slice along the body in mm, null where nobody knows. */
  heightOf(index) {
    if (!this.grid.placed) return null;
    const [x, y] = this.grid.axes;
    return positionOf(this.grid, [(x.size - 1) / 2, (y.size - 1) / 2, index])[2];
  }

  /** The slices of each plane that show most lung, or the middle ones. */
  mostLung() {
    const [x, y, z] = this.grid.axes;
    const counts = this.grid.axes.map((axis) => new Uint32Array(axis.size));
    const {labels} = this;
    for (let k = 0; k < z.size; k += 1) {
      for (let j = 0; j < y.size; j += 1) {
        let at = x.start + y.start + z.start + j * y.step + k * z.step;
        for (let i = 0; i < x.size; i += 1, at += x.step) {
          if (!labels[at]) continue;
          counts[0][i] += 1;
          counts[1][j] += 1;
          counts[2][k] += 1;
        }
      }
    }
    if (!counts[2].some(Boolean)) return this.grid.axes.map((axis) => axis.size >> 1);
    return counts.map((some) => some.indexOf(some.reduce((most, one) => Math.max(most, one), 0)));
  }

  go(axis, index) {
    const place = [...this.place];
    place[axis] = Math.min(Math.max(index, 0), this.grid.axes[axis].size - 1);
    this.goTo(place);
  }

  goTo(place) {
    if (place.every((one, axis) => one === this.place[axis])) return;
    this.place = place;
    // Wheels and held keys are faster than a large slice is drawn.
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      for (const view of this.views) view.update();
      this.moved();
    });
  }

  keepTogether(look) {
    for (const {look: other} of this.views) {
      const differs = TOGETHER.filter((name) => other[name] !== look[name]);
      if (!differs.length) continue;
      const what = Object.fromEntries(differs.map((name) => [name, look[name]]));
      other.change(what.zoom === 1 ? {...what, shift: [0, 0]} : what);
    }
  }

  close() {
    cancelAnimationFrame(this.frame);
    for (const view of this.views) view.remove();
  }
}

class Plane extends Viewer {
  constructor(planes, plane) {
    super(new Look(), {wheel: (steps) => this.scroll(steps), line: LINE});
    Object.assign(this, {planes, plane});
    const {axes} = planes.grid;
    [this.across, this.down, this.through] = [plane.across, plane.down, plane.through].map((axis) => axes[axis]);
    this.element.classList.add(plane.name.toLowerCase());
    for (const [name, value] of Object.entries({
      role: "slider", "aria-label": `${plane.name} plane`, "aria-orientation": "vertical",
      "aria-valuemin": 1, "aria-valuemax": this.through.size,
    })) this.canvas.setAttribute(name, value);
    this.cross = {upright: h("i", {class: "cross upright"}), level: h("i", {class: "cross level"})};
    this.canvas.after(this.cross.upright, this.cross.level);
    this.canvas.addEventListener("click", (event) => this.click(event));
  }

  get index() {
    return this.planes.place[this.plane.through];
  }

  scroll(steps) {
    this.planes.go(this.plane.through, this.index + steps);
    return true;
  }

  press(event) {
    this.pressed = [event.clientX, event.clientY];
    super.press(event);
  }

  /** Brings the other planes to a place that is clicked, not to one that was dragged from. */
  click(event) {
    const [x, y] = this.pressed ?? [event.clientX, event.clientY];
    const pixel = this.under(event);
    if (!pixel || Math.hypot(event.clientX - x, event.clientY - y) >= TAP) return;
    const place = [...this.planes.place];
    [place[this.plane.down], place[this.plane.across]] = pixel;
    this.planes.goTo(place);
  }

  type(event) {
    const steps = {ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -FAR, PageDown: FAR,
      Home: -this.through.size, End: this.through.size}[event.key];
    if (!steps || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) {
      super.type(event);
      return;
    }
    event.preventDefault();
    this.scroll(steps);
  }

  /** Shows the slice of the volume's place, and where the other planes cut it. */
  update() {
    if (this.shown !== this.index) {
      this.shown = this.index;
      this.show(this.cut());
      this.say();
    } else {
      this.placeCross();
    }
  }

  /** The slice as a slice of its own: values, labels, and where it lies. */
  cut() {
    const {across, down, through, planes} = this;
    const [columns, rows] = [across.size, down.size];
    const values = new planes.values.constructor(rows * columns);
    const labels = new Uint8Array(rows * columns);
    const first = across.start + down.start + through.start + this.index * through.step;
    for (let row = 0, pixel = 0; row < rows; row += 1) {
      let at = first + row * down.step;
      for (let column = 0; column < columns; column += 1, at += across.step, pixel += 1) {
        values[pixel] = planes.values[at];
        labels[pixel] = planes.labels[at];
      }
    }
    return {
      name: `${this.plane.name} ${this.index + 1} of ${through.size}`,
      rows, columns, values, labels,
      whole: planes.whole,
      image: {
        intensity_unit: planes.unit,
        spacing_mm: planes.spaced ? [down.spacing, across.spacing] : null,
        affine_lps: planes.grid.placed ? this.affine() : null,
      },
      statistics: {laterality: this.plane.through === 0 ? null : planes.laterality, lungs: {}, pixels: 0},
    };
  }

  /** From (slice, row, column, 1) to LPS mm, as slices have it. */
  affine() {
    const {grid, place} = this.planes;
    const at = (row, column) => {
      const there = [...place];
      there[this.plane.down] = row;
      there[this.plane.across] = column;
      return positionOf(grid, there);
    };
    const [corner, below, beside] = [at(0, 0), at(1, 0), at(0, 1)];
    return [0, 1, 2].map((axis) => [0, below[axis] - corner[axis], beside[axis] - corner[axis], corner[axis]]);
  }

  say() {
    const words = `slice ${this.index + 1} of ${this.through.size}`;
    const height = this.plane.through === 2 ? this.planes.heightOf(this.index) : null;
    this.canvas.setAttribute("aria-label", `${this.plane.name} plane`);
    this.canvas.setAttribute("aria-valuenow", this.index + 1);
    this.canvas.setAttribute("aria-valuetext", height === null ? words : `${words}, at ${number(height, 1)} mm`);
  }

  draw() {
    super.draw();
    this.placeCross();
  }

  /** Where the other planes cut this one: thin lines above the picture, which is not drawn anew for them. */
  placeCross() {
    if (!this.slice) return;
    const {x, y, left, top} = this.layout;
    const {place} = this.planes;
    this.cross.upright.style.left = `${(left + (place[this.plane.across] + 0.5) * x) / devicePixelRatio}px`;
    this.cross.level.style.top = `${(top + (place[this.plane.down] + 0.5) * y) / devicePixelRatio}px`;
  }
}
