// One scan as it is seen: planes, surfaces and slider, and beside them its figures and what can be kept.
import {about as facts, inWords, lungsTable, thirdsTable} from "./measures.js";
import {choice, lookControls} from "./controls.js";
import {flags, h, mouseAndKeys, offers} from "./ui.js";
import {Planes} from "./planes.js";
import {profile} from "./profile.js";

/** A scan that is shown: planes and surfaces at the left, figures at the right. */
export class Opened {
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

  /** Says beside the planes what there is to say, also of another scan to compare with. */
  tell(several) {
    this.beside.replaceChildren(panel(this.scan, several));
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

function panel(scan, several) {
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
    h("p", {class: "fine"}, several
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
  return mouseAndKeys(
    "The wheel goes through slices, with Ctrl it zooms. A click brings the other planes there.", "The surface turns with the mouse.", [
      ["arrows", "slice by slice, in the plane that has the focus"], ["Page up, Page down", "ten slices"],
      ["Home, End", "first and last slice"],
    ]);
}

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
