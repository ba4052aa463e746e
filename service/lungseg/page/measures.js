// What was measured of a volume, in words with units.
import {h, number, table} from "./ui.js";

const percent = (share) => number(share === null || share === undefined ? null : 100 * share, 1, "%");
const density = (region) => region?.density ?? {};
const meanHu = (region) => (region?.intensity?.unit === "HU" ? region.intensity.mean : null);

/** Rows of every region: heading, note and how a region says it. */
const FIGURES = [
  ["Volume", "", (region) => number(region.volume_ml, 0, "ml")],
  ["Mass", "from density", (region) => number(region.mass_g, 0, "g")],
  ["Mean density", "air is −1000 HU", (region) => number(meanHu(region), 0, "HU")],
  ["15th percentile", "Perc15", (region) => number(density(region).perc15, 0, "HU")],
  ["Below −950 HU", "LAA-950, emphysema-like", (region) => percent(density(region).laa_950)],
  ["Below −910 HU", "LAA-910", (region) => percent(density(region).laa_910)],
  ["Below −856 HU", "LAA-856, trapped air if breathed out", (region) => percent(density(region).laa_856)],
  ["Above −700 HU", "HAA-700, dense lung", (region) => percent(density(region).haa_700)],
  ["Above −600 HU", "HAA-600", (region) => percent(density(region).haa_600)],
  ["Above −250 HU", "HAA-250", (region) => percent(density(region).haa_250)],
];
const OF_THIRDS = [0, 2, 4];
const THIRDS = ["upper", "middle", "lower"];

/** The table of both lungs and each. */
export function lungsTable(statistics) {
  const regions = [statistics.lungs?.right, statistics.lungs?.left, statistics];
  return table({
    caption: "Lungs",
    columns: [h("span", {class: "swatch right"}, "Right"), h("span", {class: "swatch left"}, "Left"), "Both"],
    rows: FIGURES.map(([name, note, says]) => ({name, note, values: regions.map((region) => (region ? says(region) : "–"))})),
  });
}

/** The table of thirds, or nothing where there are no sides. */
export function thirdsTable(statistics) {
  const {thirds} = statistics;
  if (!thirds?.right && !thirds?.left) return null;
  const figures = OF_THIRDS.map((index) => FIGURES[index]);
  const rows = ["right", "left"].filter((side) => thirds[side]).flatMap((side) => THIRDS.map((third) => ({
    name: `${side === "right" ? "Right" : "Left"} ${third}`,
    values: figures.map(([, , says]) => (thirds[side][third] ? says(thirds[side][third]) : "–")),
  })));
  return table({caption: `Thirds of ${thirds.definition}`, columns: figures.map(([name]) => name), rows});
}

/** One sentence that sums up a scan. */
export function inWords({statistics}) {
  const ratio = statistics.right_left_ratio;
  if (!statistics.voxels) return "No lung was found.";
  const volume = statistics.volume_ml === null
    ? "The volume is not known, for nothing says how far slices and pixels lie apart."
    : `The lungs hold ${number(statistics.volume_ml / 1000, 2, "l")}`
      + (ratio ? `, the right ${number(ratio, 2)} times as much as the left.` : ".");
  return volume;
}

/** What is known of the scan itself: a list of terms. */
export function about({volume, acquisition, model}) {
  const spacing = volume.spacing_mm?.some((one) => one !== null)
    ? volume.spacing_mm.map((one) => number(one, 2)).join(" × ") + " mm" : "not known";
  const dropped = volume.dropped.map(({reason, count}) => `${count} ${reason.replaceAll("_", " ")}`).join(", ");
  const contrast = {true: "yes", false: "no"}[acquisition.contrast] ?? null;
  const facts = [
    ["Size", `${volume.slices} slices of ${volume.width} × ${volume.height}`],
    ["Spacing", spacing],
    ["Planes", volume.acquisition_plane],
    ["Kernel", acquisition.kernel],
    ["Slice thickness", acquisition.slice_thickness_mm && number(acquisition.slice_thickness_mm, 2, "mm")],
    ["Tube voltage", acquisition.kvp && number(acquisition.kvp, 0, "kV")],
    ["Contrast medium", contrast],
    ["Scanner", acquisition.manufacturer],
    ["Left out", dropped || null],
    ["Model", `${model.name} ${model.version}`],
  ];
  return h("dl", {class: "facts"}, facts.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
