// The lungs as surfaces, drawn by NiiVue, which is loaded only here, when a volume is opened.
import {COLOURS} from "./picture.js";

const LABELS = {"right lung": 1, "left lung": 2, lung: 3};
const HEAD_BYTES = 12;
const CHUNK_HEAD_BYTES = 8;
const TURN_DEGREES = 10;
const KEYS = {
  ArrowLeft: [TURN_DEGREES, 0], ArrowRight: [-TURN_DEGREES, 0],
  ArrowUp: [0, TURN_DEGREES], ArrowDown: [0, -TURN_DEGREES],
};
const FROM_FRONT = [180, 5];
/** Letters at the left and right by quarters of a turn, from the front on. */
const SIDES = [["R", "L"], ["P", "A"], ["L", "R"], ["A", "P"]];

export function canShow() {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}

/**
 * Shows the service's GLB on a canvas that is in the page; what is returned is closed at the end.
 *
 * `turned(left, right)` hears which sides of the patient are at the left and right of the picture.
 */
export async function showLungs(canvas, glb, turned) {
  await import("./vendor/niivue.umd.js.gz");
  const {DRAG_MODE, Niivue, NVMesh, SLICE_TYPE} = globalThis.niivue; // no module, it sets a global
  const viewer = new Niivue({
    backColor: [0, 0, 0, 1],
    dragAndDropEnabled: false,
    dragMode: DRAG_MODE.none,
    isOrientationTextVisible: false,
    loadingText: "",
    logLevel: "error",
  });
  // Keys, drops and the wheel are the page's: NiiVue takes letters, and shows what it likes.
  for (const name of ["keyDownListener", "keyUpListener", "dragEnterListener", "dragOverListener", "wheelListener", "resetBriCon"]) {
    viewer[name] = () => {};
  }
  viewer.dropListener = async () => {};
  await viewer.attachToCanvas(canvas);
  viewer.setSliceType(SLICE_TYPE.RENDER);
  for (const {points, triangles, name} of meshes(glb)) {
    const colour = new Uint8Array([...COLOURS[LABELS[name]], 255]);
    const mesh = new NVMesh(points, triangles, name, colour, 1, true, viewer.gl);
    viewer.addMesh(mesh);
    viewer.setMeshShader(mesh.id, "Matte"); // gloss would show the slices
  }
  viewer.onAzimuthElevationChange = (azimuth) =>
    turned(...SIDES[((Math.round((azimuth - FROM_FRONT[0]) / 90) % 4) + 4) % 4]);
  viewer.setRenderAzimuthElevation(...FROM_FRONT);
  canvas.onkeydown = (event) => {
    if (event.key === "Home") viewer.setRenderAzimuthElevation(...FROM_FRONT);
    else if (event.key in KEYS) {
      const [right, up] = KEYS[event.key];
      viewer.setRenderAzimuthElevation(viewer.scene.renderAzimuth + right, viewer.scene.renderElevation + up);
    } else return;
    event.preventDefault();
  };
  return {
    close() {
      viewer.cleanup();
      viewer.gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

/** Meshes of the service's GLB. glTF is in metres as (left, head, front), NiiVue in mm as RAS. */
export function meshes(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(HEAD_BYTES, true);
  const start = HEAD_BYTES + CHUNK_HEAD_BYTES;
  const said = JSON.parse(new TextDecoder().decode(bytes.subarray(start, start + length)));
  const binary = start + length + CHUNK_HEAD_BYTES;
  const array = (index, Kind, width) => {
    const {bufferView, count} = said.accessors[index];
    const from = binary + said.bufferViews[bufferView].byteOffset;
    return new Kind(bytes.slice(from, from + 4 * count * width).buffer);
  };
  return (said.nodes ?? []).map(({name, mesh}) => {
    const {attributes, indices} = said.meshes[mesh].primitives[0];
    const points = array(attributes.POSITION, Float32Array, 3);
    for (let at = 0; at < points.length; at += 3) {
      const [left, head, front] = points.subarray(at, at + 3);
      points.set([-1000 * left, 1000 * front, 1000 * head], at);
    }
    return {name, points, triangles: array(indices, Uint32Array, 1)};
  });
}
