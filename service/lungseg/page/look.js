// How slices are looked at: window, tint, outline, zoom and place.
import {PRESETS} from "./picture.js";

export const ZOOM_STEP = 1.25;
const [LEAST_ZOOM, MOST_ZOOM] = [0.2, 40];

/** What all viewers of a batch share: a change redraws each of them. */
export class Look {
  constructor() {
    this.preset = "lung";
    this.centre = PRESETS.lung.centre;
    this.width = PRESETS.lung.width;
    this.tint = 0.2;
    this.outline = true;
    this.drag = "contrast";
    this.zoom = 1;
    this.shift = [0, 0];
    this.listeners = new Set();
  }

  change(what) {
    Object.assign(this, what);
    for (const listener of this.listeners) listener();
  }

  use(preset) {
    const {centre, width} = PRESETS[preset] || {};
    this.change(PRESETS[preset] ? {preset, centre, width} : {preset});
  }

  zoomBy(factor, about = [0, 0]) {
    const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.zoom * factor));
    const real = zoom / this.zoom;
    this.change({zoom, shift: this.shift.map((one, axis) => about[axis] + (one - about[axis]) * real)});
  }

  step(steps) {
    this.zoomBy(ZOOM_STEP ** steps);
  }

  fit() {
    this.change({zoom: 1, shift: [0, 0]});
  }
}
