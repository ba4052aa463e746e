// The row of controls above a picture: window, tint, outline, what a drag does, zoom.
import {PRESETS} from "./picture.js";
import {h} from "./ui.js";

/**
 * Controls of a `Look`. `viewer()` gives one that shows a slice, or nothing; `extra` comes behind.
 *
 * What is returned has the `element`, and `update()` for when another slice is shown.
 */
export function lookControls(look, {viewer, extra = null}) {
  const presets = Object.entries({...PRESETS, all: {name: "Full"}}).map(([name, preset]) =>
    choice("window", name, preset.name, () => look.use(name)));
  const windows = h("fieldset", {class: "choices"}, h("legend", {}, "Window"), presets);
  const centre = numeric("Centre", (value) => look.change({preset: "", centre: value}));
  const width = numeric("Width", (value) => look.change({preset: "", width: Math.max(1e-3, value)}));
  const tint = h("input", {type: "range", min: "0", max: "100", step: "5", value: String(look.tint * 100), oninput: () =>
    look.change({tint: Number(tint.value) / 100})});
  const outline = h("input", {type: "checkbox", checked: true, onchange: () => look.change({outline: outline.checked})});
  const drags = [["contrast", "Contrast"], ["move", "Move"]].map(([name, text]) =>
    choice("drag", name, text, () => look.change({drag: name})));
  drags[0].querySelector("input").checked = true;
  const percent = h("output", {class: "zoom"}, "100 %");
  const update = () => {
    const shown = viewer();
    if (!shown) return;
    const isHu = shown.slice.image.intensity_unit === "HU";
    const used = PRESETS[look.preset] && !isHu ? "all" : look.preset;
    for (const input of windows.querySelectorAll("input[type=radio]")) {
      input.checked = input.value === used;
      input.disabled = !isHu && input.value !== "all";
    }
    const now = shown.window;
    if (document.activeElement !== centre.input) centre.input.value = String(Math.round(now.centre));
    if (document.activeElement !== width.input) width.input.value = String(Math.round(now.width));
    tint.value = String(Math.round(look.tint * 100));
    outline.checked = look.outline;
    percent.textContent = `${Math.round(look.zoom * 100)} %`;
  };
  look.listeners.add(update);
  const element = h("div", {class: "tools"},
    windows,
    h("div", {class: "pair"}, centre.element, width.element),
    h("div", {class: "pair"}, h("label", {}, "Tint", tint), h("label", {class: "check"}, outline, "Outline")),
    h("fieldset", {class: "choices"}, h("legend", {}, "Drag"), drags),
    h("div", {class: "pair zooms", role: "group", "aria-label": "Zoom"},
      h("button", {type: "button", "aria-label": "Smaller", onclick: () => look.step(-1)}, "−"), percent,
      h("button", {type: "button", "aria-label": "Larger", onclick: () => look.step(1)}, "+"),
      h("button", {type: "button", onclick: () => look.fit()}, "Fit")),
    extra);
  return {element, update};
}

/** One of several: a radio button that looks like a part of a bar. */
export function choice(group, value, text, chosen) {
  return h("label", {}, h("input", {type: "radio", name: group, value, onchange: chosen}), h("span", {}, text));
}

function numeric(label, changed) {
  const input = h("input", {type: "number", step: "any", onchange: () =>
    input.value !== "" && Number.isFinite(input.valueAsNumber) && changed(input.valueAsNumber)});
  return {input, element: h("label", {}, label, input)};
}
