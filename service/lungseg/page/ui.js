// Small parts that every view is made of. Text is set as text, never as HTML.
import {flagAdvice, problemAdvice} from "./words.js";

const VIEWS = ["start", "slices", "scan"];
let leave = null;

/** Makes an element: attributes, `on…` handlers, children that are elements, texts or nothing. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Tells what happened, also to those who do not see it. */
export function say(text) {
  document.getElementById("status").textContent = text;
}

/** Shows one view instead of another, which then forgets what it holds by the function that it gave. */
export function view(name, forget = null) {
  const had = document.activeElement;
  if (document.body.dataset.view !== name) leave?.();
  leave = forget;
  for (const other of VIEWS) document.getElementById(other).hidden = other !== name;
  document.getElementById("new").hidden = name === "start";
  document.body.dataset.view = name;
  if (!had.isConnected || had.closest("[hidden]")) focusHeading(document.getElementById(name));
}

/** Draws a part of the page anew; if the focus was there, what takes the same place gets it, or the heading. */
export function renew(part, ...children) {
  const had = document.activeElement;
  const name = part.contains(had) && nameOf(had);
  part.replaceChildren(...children.filter(Boolean));
  if (!name) return;
  const same = [...part.querySelectorAll("button, input, select, summary")].find((one) => nameOf(one) === name);
  if (same) same.focus();
  else focusHeading(part);
}

const nameOf = (element) => [element.tagName, element.name, element.value, element.getAttribute("aria-label"), element.textContent].join();

/** What went wrong is read first. */
function focusHeading(part) {
  const heading = part.querySelector(".card.bad h3") ?? part.querySelector("h3");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus();
}

/** A card that says what went wrong, with what, and what to try; `again` is offered as a button. */
export function problem(error, {name = "", again = null} = {}) {
  const advice = problemAdvice(error);
  return h("div", {class: "card bad", "data-code": error.code || "page_error"},
    h("h3", {}, name ? `${name}: ` : "", error.title || "Something went wrong in this page"),
    h("p", {}, sentence(error.detail || error.message || "")),
    advice && h("p", {class: "advice"}, advice),
    error.requestId && h("p", {class: "fine"}, `Request ${error.requestId}`),
    again && h("p", {class: "buttons"}, h("button", {type: "button", onclick: again}, "Try again")));
}

/** Quality flags, each with its sentence and what to do. */
export function flags(list) {
  if (!list.length) {
    return h("p", {class: "card good"},
      "Nothing was found to doubt. Look at the outline all the same: no rule sees everything.");
  }
  return h("ul", {class: "flags"}, list.map((flag) => h("li", {class: "card warn", "data-code": flag.code},
    h("strong", {}, sentence(flag.message)), " ", flagAdvice(flag.code))));
}

/** A table with a heading for each row, which has the unit, and for each column. */
export function table({caption, columns, rows}) {
  return h("div", {class: "scroll", tabindex: "0", role: "group", "aria-label": caption}, h("table", {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td", {}), columns.map((column) => h("th", {scope: "col"}, column)))),
    h("tbody", {}, rows.map((row) => h("tr", {},
      h("th", {scope: "row"}, row.name, row.unit && h("span", {class: "unit"}, `,\u00a0${row.unit}`), row.note && h("span", {class: "note"}, row.note)),
      row.values.map((value) => h("td", {}, value)))))));
}

/** Offers bytes as a file to keep. */
function save(name, content, type = "application/octet-stream") {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}));
  h("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Makes buttons for files to keep, which are made when they are wanted; what goes wrong is told in `trouble`. */
export function offers(trouble) {
  return (label, name, type, content) => h("button", {type: "button", onclick: async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    trouble.replaceChildren();
    say(`${name} is made…`);
    try {
      save(name, await content(), type);
      say(`${name} was handed to your browser.`);
    } catch (error) {
      trouble.replaceChildren(problem(error));
      say(`${name} could not be made.`);
    }
    button.disabled = false;
    if (document.activeElement === document.body) button.focus(); // what is disabled has no focus
  }}, label);
}

/** What mouse and keys do with pictures: of the wheel, of more than that, and the keys of one view. */
export function mouseAndKeys(wheel, more, keys) {
  const all = [...keys, ["1 2 3", "window presets"], ["+ − 0", "zoom, fit"], ["h", "hide or show the lungs"]];
  return h("details", {class: "keys"}, h("summary", {}, "Mouse and keys"),
    h("p", {}, `${wheel} Dragging changes contrast: to the right softer, upwards brighter; with the right button or Shift it moves the picture. ${more}`),
    h("dl", {}, all.flatMap(([name, what]) => [h("dt", {}, name), h("dd", {}, what)])));
}

/** A bar of progress: `set(fraction)`, or `set(null)` where nobody knows how far it is. */
export function bar(label) {
  const progress = h("progress", {max: "1", "aria-label": label});
  const text = h("span", {}, label);
  return {
    element: h("div", {class: "progress"}, text, progress),
    set(fraction, words) {
      if (fraction === null) progress.removeAttribute("value");
      else progress.value = fraction;
      if (words) text.textContent = words;
    },
  };
}

/** A number for people, with a true minus; "–" where it is not known. */
export function number(value, digits = 0, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits})
    .replace(/^-(0(?:\.0+)?)$/, "$1").replace("-", "−").replaceAll(",", "\u202f");
  return unit ? `${text}\u00a0${unit}` : text;
}

/** Begins with a capital and ends with a full stop. */
export function sentence(text) {
  if (!text) return "";
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
