// What changed between two scans, as the service compares them: warnings first.
import {send} from "./service.js";
import {h, number, sentence, table} from "./ui.js";

const FIGURES = [
  ["volume_ml", "Volume", 0], ["mass_g", "Mass", 0], ["mean_hu", "Mean density", 1], ["perc15", "15th percentile", 1],
  ["laa_950", "Below −950 HU", 1], ["laa_910", "Below −910 HU", 1], ["laa_856", "Below −856 HU", 1],
  ["haa_700", "Above −700 HU", 1], ["haa_600", "Above −600 HU", 1], ["haa_250", "Above −250 HU", 1],
];
const OF_PARTS = FIGURES.slice(0, 5);
const UNITS = {points: "%"};

/** The comparison of two answers, as an element. */
export async function comparison(before, after, signal) {
  const body = JSON.stringify({before, after});
  const answer = await send("compare", {body, type: "application/json", accept: "application/json", signal});
  return describe(answer.json());
}

function describe({differences, adjustment, warnings}) {
  const {both, lungs, thirds} = differences;
  return h("div", {class: "comparison"},
    warnings.length
      ? h("ul", {class: "flags"}, warnings.map((one) => h("li", {class: "card warn", "data-code": one.code}, sentence(one.message))))
      : h("p", {class: "card good"}, "Nothing that is known of the two scans speaks against comparing them."),
    both && table({
      caption: "Both lungs",
      columns: ["First", "Second", "Change", "At the first volume", "Rescans differ by"],
      rows: FIGURES.map(([key, name, digits]) => ({name, values: [...figures(both[key], digits), adjusted(both[key], digits), judged(both[key])]})),
    }),
    h("p", {class: "fine"}, "“At the first volume” takes away what another depth of breath alone would change, by the "
      + `${adjustment.model} model. “Rescans differ by” is what an unchanged lung shows from one scan to the next; beyond it something differs, `
      + "in the lung, in the breath or in how the scan was made. What that means is for you to find out."),
    parts("Each lung", [["Right", lungs.right], ["Left", lungs.left]]),
    parts("Thirds", ["right", "left"].flatMap((side) => ["upper", "middle", "lower"].map((third) =>
      [`${side === "right" ? "Right" : "Left"} ${third}`, thirds[side]?.[third]]))),
    sources(both));
}

function figures(figure, digits) {
  const unit = UNITS[figure.unit] ?? figure.unit;
  const change = figure.change === null ? "–"
    : signed(figure.change, digits, figure.unit) + (figure.percent === null ? "" : ` (${signed(figure.percent, 1, "%")})`);
  return [number(figure.before, digits, unit), number(figure.after, digits, unit), change];
}

function adjusted({adjusted: figure}, digits) {
  if (!figure || figure.change === null) return "–";
  return signed(figure.change, digits, figure.unit);
}

function judged(figure) {
  const found = [[figure, ""], [figure.adjusted, " at the first volume"]].filter(([one]) => one?.repeatability);
  if (!found.length) return "–";
  return h("span", {}, ...found.map(([{repeatability: {low, high, unit}, verdict}, where], index) => [
    index > 0 && h("br"),
    low === -high ? `± ${number(high, digitsOf(high), unit)}` : `${signed(low, 1, unit)} to ${signed(high, 1, unit)}`,
    where,
    verdict && [": ", h("strong", {class: verdict}, verdict)],
  ].flat(Infinity).filter(Boolean)));
}

const digitsOf = (value) => (Math.abs(value) < 10 ? 2 : 0);
const signed = (value, digits, unit) => (value > 0 ? "+" : "") + number(value, digits, unit);

function parts(caption, regions) {
  const known = regions.filter(([, region]) => region);
  if (!known.length) return null;
  return h("details", {}, h("summary", {}, caption), table({
    caption: `${caption}: change`,
    columns: OF_PARTS.map(([, name]) => name),
    rows: known.map(([name, region]) => ({
      name,
      values: OF_PARTS.map(([key, , digits]) => figures(region[key], digits)[2]),
    })),
  }));
}

function sources(both) {
  const found = new Set(FIGURES.flatMap(([key]) => [both?.[key], both?.[key]?.adjusted])
    .map((figure) => figure?.repeatability?.source).filter(Boolean));
  if (!found.size) return null;
  return h("details", {}, h("summary", {}, "Where these limits come from"), h("ul", {}, [...found].map((source) => h("li", {}, sentence(source)))));
}
