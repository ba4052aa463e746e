// From values and labels to what is seen: grey by a window, tints, outlines, directions. Nothing here touches the page.

export const RIGHT = 1;
export const LEFT = 2;
export const UNSIDED = 3;
/** The colours of the service's own overlays: sky blue, orange, yellow (Okabe and Ito). */
export const COLOURS = {[RIGHT]: [86, 180, 233], [LEFT]: [230, 159, 0], [UNSIDED]: [240, 228, 66]};
export const PRESETS = {
  lung: {name: "Lung", centre: -600, width: 1500},
  mediastinum: {name: "Mediastinum", centre: 40, width: 400},
  bone: {name: "Bone", centre: 400, width: 1800},
};
/** Of each axis of the patient, where it grows and where it shrinks: left, back (posterior), head. */
const LETTERS = [["L", "R"], ["P", "A"], ["H", "F"]];

/** The window that shows all values of a slice. */
export function whole(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(high > low)) return {centre: Number.isFinite(low) ? low : 0, width: 1};
  return {centre: (low + high) / 2, width: high - low};
}

/** Writes a slice into RGBA pixels: grey by the window, lungs tinted, from 0 (not) to 1 (wholly). */
export function compose(values, labels, {centre, width}, tint, pixels) {
  const low = centre - width / 2;
  const factor = 255 / Math.max(width, 1e-6);
  const kept = 1 - tint;
  const added = [[0, 0, 0], ...[RIGHT, LEFT, UNSIDED].map((label) => COLOURS[label].map((part) => part * tint))];
  for (let at = 0, to = 0; at < values.length; at += 1, to += 4) {
    const grey = Math.min(255, Math.max(0, (values[at] - low) * factor));
    const label = labels[at];
    if (label) {
      const [red, green, blue] = added[label];
      pixels[to] = grey * kept + red;
      pixels[to + 1] = grey * kept + green;
      pixels[to + 2] = grey * kept + blue;
    } else {
      pixels[to] = grey;
      pixels[to + 1] = grey;
      pixels[to + 2] = grey;
    }
    pixels[to + 3] = 255;
  }
}

/** Of each label the lines along the edges of its pixels, x, y, x, y … in pixels from the top left corner. */
export function outlines(labels, rows, columns) {
  const found = new Map();
  const add = (label, ...line) => {
    if (!found.has(label)) found.set(label, []);
    found.get(label).push(...line);
  };
  const across = (line, from, to, label) => add(label, from, line, to, line);
  const down = (line, from, to, label) => add(label, line, from, line, to);
  follow(labels, rows, columns, columns, 1, across);
  follow(labels, columns, rows, 1, columns, down);
  return found;
}

/** Walks along all borders between neighbouring lines of pixels; edges in a row become one line. */
function follow(labels, lines, length, toNext, toPixel, add) {
  for (let line = 0; line <= lines; line += 1) {
    let [before, beforeFrom, after, afterFrom] = [0, 0, 0, 0];
    for (let step = 0; step <= length; step += 1) {
      const at = line * toNext + step * toPixel;
      const inside = step < length;
      const above = inside && line > 0 ? labels[at - toNext] : 0;
      const below = inside && line < lines ? labels[at] : 0;
      const differ = above !== below;
      if (!differ && !before && !after) continue;
      const [nowBefore, nowAfter] = differ ? [above, below] : [0, 0];
      if (nowBefore !== before) {
        if (before) add(line, beforeFrom, step, before);
        [before, beforeFrom] = [nowBefore, step];
      }
      if (nowAfter !== after) {
        if (after) add(line, afterFrom, step, after);
        [after, afterFrom] = [nowAfter, step];
      }
    }
  }
}

/** What lies at each side of a picture, as letters: those of the header, or what convention says. */
export function directions(image, laterality) {
  if (image.affine_lps) {
    const across = image.affine_lps.map((row) => row[2]);
    const down = image.affine_lps.map((row) => row[1]);
    return {left: letter(across, -1), right: letter(across, 1), top: letter(down, -1), bottom: letter(down, 1), sure: true};
  }
  if (laterality) return {left: "R", right: "L", top: "", bottom: "", sure: false};
  return {left: "", right: "", top: "", bottom: "", sure: false};
}

function letter(step, sign) {
  const sizes = step.slice(0, 3).map(Math.abs);
  const axis = sizes.indexOf(Math.max(...sizes));
  return LETTERS[axis][step[axis] * sign > 0 ? 0 : 1];
}

/** How much higher than wide a pixel is. */
export function aspectOf({spacing_mm: spacing}) {
  return spacing ? spacing[0] / spacing[1] : 1;
}

/** Where a pixel lies, in mm: within the patient, or from the picture's corner; null where nobody knows. */
export function place(image, row, column) {
  if (image.affine_lps) {
    return image.affine_lps.slice(0, 3).map((line, axis) => {
      const mm = line[1] * row + line[2] * column + line[3];
      return {letter: LETTERS[axis][mm < 0 ? 1 : 0], mm: Math.abs(mm)};
    });
  }
  if (!image.spacing_mm) return null;
  return [{letter: "x", mm: column * image.spacing_mm[1]}, {letter: "y", mm: row * image.spacing_mm[0]}];
}
