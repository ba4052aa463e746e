// The area of each lung along the body, with the slice that is shown, and the slider that moves it.
import {h, number} from "./ui.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [600, 110];
const TOP = 8;
const BOTTOM = 4;

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Plot and slider of a volume's planes: `element`, and `show()` after the slice has changed. */
export function profile(planes, {position_mm: heights, area_mm2: areas}) {
  const last = planes.slices - 1;
  const [first, end] = [planes.heightOf(0), planes.heightOf(last)];
  const x = (entry) => {
    const index = heights && first !== null && end !== first
      ? ((first - heights[entry]) / (first - end)) * last
      : last - entry; // entries run from the feet to the head, slices from the head
    return (index / Math.max(1, last)) * WIDTH;
  };
  const most = Math.max(1, ...Object.values(areas).flatMap((some) => some ?? []));
  const y = (area) => HEIGHT - BOTTOM - (area / most) * (HEIGHT - TOP - BOTTOM);
  const plot = draw("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true"});
  for (const [side, values] of Object.entries(areas)) {
    if (!values) continue;
    const points = values.map((area, entry) => [x(entry), y(area ?? 0)]).sort((one, other) => one[0] - other[0]);
    const line = points.map((point) => point.map((part) => part.toFixed(1)).join(" ")).join("L");
    const floor = HEIGHT - BOTTOM;
    plot.append(
      draw("path", {class: `area ${side}`, d: `M${points[0][0]} ${floor}L${line}L${points.at(-1)[0]} ${floor}Z`}),
      draw("path", {class: `line ${side}`, d: `M${line}`, "vector-effect": "non-scaling-stroke"}),
    );
  }
  const marker = draw("line", {class: "marker", y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke"});
  plot.append(marker);
  plot.addEventListener("pointerdown", (event) => {
    const share = event.offsetX / plot.getBoundingClientRect().width;
    planes.slice = Math.round(share * last) + 1;
  });
  const slider = h("input", {
    type: "range", min: 1, max: planes.slices, step: 1, "aria-label": "Axial slice, from the head",
    oninput: () => { planes.slice = Number(slider.value); },
  });
  const said = h("output", {class: "place"});
  const known = Object.values(areas).some(Boolean);
  const legend = [
    "Area of the lungs from head to feet: ",
    h("span", {class: "swatch right"}), " right ",
    h("span", {class: "swatch left"}), " left, up to ", number(most / 100, 0, "cm²"),
  ];
  const element = h("div", {class: "profile"},
    h("p", {class: "legend"}, known ? legend : "The area of each lung along the body is not known here.", said),
    known && plot, slider);
  function show() {
    slider.value = planes.slice;
    const at = ((planes.slice - 1) / Math.max(1, last)) * WIDTH;
    marker.setAttribute("x1", at);
    marker.setAttribute("x2", at);
    const height = planes.heightOf(planes.slice - 1);
    const words = `slice ${planes.slice} of ${planes.slices}` + (height === null ? "" : `, at ${number(height, 1, "mm")}`);
    slider.setAttribute("aria-valuetext", words);
    said.textContent = words;
  }
  show();
  return {element, show};
}
