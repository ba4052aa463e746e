// Beside the picture: what to doubt, the figures in words, what the file does not say, what can be kept.
import {SLICE_ROWS} from "./words.js";
import {send} from "./service.js";
import {flags, h, number, offers, table} from "./ui.js";
import {unzip} from "./zip.js";

const TYPES = {
  "application/dicom": "DICOM", "image/png": "PNG", "image/jpeg": "JPEG", "image/tiff": "TIFF",
  "image/bmp": "BMP", "application/x-npy": "NPY",
};

/** All about one slice; `again(query)` sends it anew with what was told about it. */
export function panel(item, {again, note = null}) {
  const {answer} = item;
  return [
    h("h3", {class: "filename"}, item.name),
    h("p", {class: "facts"}, facts(answer)),
    note && h("p", {class: "fine"}, note),
    h("h4", {}, "What to doubt"),
    flags(answer.quality.flags),
    h("h4", {}, "Figures"),
    figures(answer),
    untold(item, again),
    h("h4", {}, "Download"),
    downloads(item),
  ];
}

function facts({image, model}) {
  const spacing = image.spacing_mm
    ? `pixels of ${image.spacing_mm.map((mm) => number(mm, 2)).join(" × ")} mm`
    : "size of pixels unknown";
  const unit = image.intensity_unit === "HU" ? "Hounsfield units" : "grey levels";
  return [
    `${TYPES[image.media_type] || image.media_type}, ${image.width} × ${image.height}`,
    spacing, unit, `model ${model.name} ${model.version}`,
  ].join(" · ");
}

function figures({statistics, image, confidence}) {
  const {right, left} = statistics.lungs;
  const sided = right && left;
  const parts = sided ? [right, left, statistics] : [statistics];
  const columns = sided
    ? [h("span", {class: "swatch right"}, "Right"), h("span", {class: "swatch left"}, "Left"), "Both"]
    : ["Lung"];
  const isHu = image.intensity_unit === "HU";
  const rows = SLICE_ROWS
    .map((row) => ({
      name: isHu ? row.name : row.name.replace("density", "grey level"),
      unit: row.unit === "intensity" ? isHu && "HU" : row.unit,
      note: row.note,
      values: parts.map((part) => written(row, part)),
    }))
    .filter((row) => row.values.some((value) => value !== "–"));
  const percent = (share) => number(share * 100, 1, "%");
  const sure = confidence.mean_probability === null
    ? `No pixel was taken for lung; the greatest probability anywhere was ${percent(confidence.max_probability)}.`
    : `Within the outline the model was ${percent(confidence.mean_probability)} sure on average; `
      + `pixels of which it was unsure are ${percent(confidence.uncertain_fraction)} of the lung's.`;
  const sides = {
    dicom_orientation: "Right and left are the patient's, by the header.",
    radiological_convention: "Right and left are the patient's if the picture follows the radiological convention: "
      + "the file does not say.",
  }[statistics.laterality];
  return h("div", {},
    table({caption: "Lung in this slice", columns, rows}),
    h("p", {class: "fine"}, [sides, sure].filter(Boolean).join(" ")));
}

function written(row, part) {
  const value = row.at(part);
  return value === null || value === undefined ? "–" : number(value / (row.per || 1), row.digits);
}

/** What a picture cannot say of itself, to be told; null where the file says all. */
export function untold(item, again) {
  const {image} = item.answer;
  const array = ["application/x-npy", "image/tiff"].includes(image.media_type);
  const asksUnit = image.media_type !== "application/dicom";
  const asksSpacing = asksUnit && (!image.spacing_mm || item.query.spacing_mm);
  if (!asksUnit) return null;
  const told = item.query;
  const [low = "", high = ""] = (told.window_hu || "").split(",");
  const [down = "", across = ""] = (told.spacing_mm || "").split(",");
  const field = (name, label, value, example) => h("label", {}, label,
    h("input", {name, type: "number", step: "any", value, placeholder: example}));
  const form = h("form", {class: "told", onsubmit: (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    const query = {};
    if (given.unit) query.unit = "hu";
    if (given.low && given.high) query.window_hu = `${given.low},${given.high}`;
    if (given.down) query.spacing_mm = `${given.down},${given.across || given.down}`;
    again(query);
  }},
  h("fieldset", {}, h("legend", {}, "Window that the picture was made with, in HU"),
    field("low", "Black is", low, "−1350"), field("high", "White is", high, "150")),
  array && h("label", {class: "check"},
    h("input", {name: "unit", type: "checkbox", value: "hu", checked: told.unit === "hu"}), "Its values are HU already"),
  asksSpacing && h("fieldset", {}, h("legend", {}, "Distance of pixels, in mm"),
    field("down", "Rows", down, "0.7"), field("across", "Columns", across, "0.7")),
  h("p", {class: "fine"}, "Wrong values give a wrong mask: leave empty what you do not know."),
  h("p", {class: "buttons"}, h("button", {type: "submit"}, "Measure again")));
  return h("details", {class: "untold", open: Object.keys(told).length > 0},
    h("summary", {}, "Tell what this file does not say"), form);
}

function downloads(item) {
  const trouble = h("div", {});
  const stem = item.name.replace(/\.[^.]+$/, "");
  const offer = offers(trouble);
  const asked = (format) => async () =>
    (await send("segment", {body: item.file, type: "application/octet-stream", query: {...item.query, format}})).bytes;
  return h("div", {},
    h("p", {class: "buttons"},
      offer("Mask, PNG", `${stem}_mask.png`, "image/png", item.files.get("mask.png")),
      offer("Picture, PNG", `${stem}_overlay.png`, "image/png", asked("overlay")),
      offer("Figures, JSON", `${stem}.json`, "application/json", asked("json")),
      offer("Table, CSV", `${stem}.csv`, "text/csv", () => tableOf([item])),
      item.answer.image.media_type === "application/dicom"
        && offer("DICOM SEG", `${stem}_seg.dcm`, "application/dicom", asked("dicom-seg"))),
    trouble);
}

/** The service's own table of some slices, as CSV. */
export async function tableOf(items) {
  return unzip(await allOf(items)).get("statistics.csv")();
}

/** Masks of some slices and their table, as a zip. */
export async function allOf(items) {
  const form = new FormData();
  for (const item of items) form.append("files", item.file, item.name);
  return (await send("segment/batch", {body: form, query: {...items[0].query, format: "zip"}})).bytes;
}
