// What to do about each quality flag and each error. The service says what is the matter; this says what helps.

const FLAGS = {
  not_ct: "Make sure that this is CT: the model knows nothing else, and its mask of another picture means nothing.",
  lossy_compression: "Use the mask, but take densities from the original file if there is one.",
  not_calibrated_hu: "Send the DICOM file for densities, or say which window the picture was made with.",
  spacing_unknown: "Areas stay unknown: send the DICOM file, or say how far apart the pixels lie.",
  non_axial: "The model has learnt axial slices: look closely at the outline, or send axial ones.",
  empty_mask: "That is right for the neck and the abdomen. If you see lung here, do not use this answer.",
  single_lung: "Look for the other lung: it may be missing, collapsed, filled, or overlooked.",
  touches_border: "Send the whole slice if you can: areas of a lung that is cut off are too small.",
  area_out_of_range: "Check the outline, and that the spacing is right, before you use the area.",
  low_confidence: "Compare the outline with the picture along its whole length before you use the figures.",
  air_unlabelled: "Look there: it is lung that was missed, or air of the bowel, the gullet or a pneumothorax.",
  outside_body: "Look at the outline near the skin: that part is no lung, and the figures include it.",
  sides_unknown: "Tell the sides yourself; figures of right and left are not given.",
  intensity_out_of_range: "Check what the values are: a wrong window or unit gives a wrong mask and wrong densities.",
  values_limited: "Figures that are missing cannot be had from this file; the original DICOM usually has them.",
  single_slice: "Send the whole series for volumes.",
  orientation_unknown: "Make sure which side is which before you use figures of right and left.",
  transforms_differ: "Check in your viewer that head, front and sides are where they belong.",
  duplicate_slices: "Nothing is lost; look whether the series was exported twice.",
  missing_slices: "Export the series again if you can: volumes near the gap are estimates.",
  non_uniform_spacing: "Volumes take it into account; check that slices of only one series were sent.",
  gantry_tilt: "Volumes are right; shapes in the three planes look sheared.",
  intensity_offset_suspect: "Do not use the densities before you know which offset belongs to these values.",
  incomplete_base: "Take volumes as lower bounds, and do not compare them with those of whole lungs.",
  incomplete_apex: "Take volumes as lower bounds, and do not compare them with those of whole lungs.",
  volume_out_of_range: "Check the outline, and that the spacing is right, before you use the volume.",
  values_missing: "Find out what wrote the file: such places count to volumes, not to densities.",
};

const PROBLEMS = {
  malformed_request: "Try again; if it stays, the file may have been damaged on its way.",
  unauthorized: "Enter the key that whoever runs this server gave you.",
  forbidden: "Ask whoever runs this server.",
  unknown_model: "Ask whoever runs this server which models it has.",
  not_found: "Reload this page: the server may have been updated.",
  method_not_allowed: "Reload this page: the server may have been updated.",
  headers_too_slow: "The line is slow or broke off: try again.",
  headers_too_large: "Delete the cookies of this address, and try again.",
  body_too_large: "Send fewer or smaller files, or ask whoever runs this server to raise the limit.",
  image_too_large: "Reduce the picture, or ask whoever runs this server to raise the limit.",
  too_many_items: "Send fewer files at a time.",
  volume_too_large: "Send a part of the scan, or ask whoever runs this server to raise the limit.",
  unsupported_media_type: "Slices may be DICOM, PNG, JPEG, TIFF, BMP or NPY, scans a folder or zip of DICOM, NIfTI, NRRD or MHA.",
  undecodable_image: "Open it in a viewer: if it is whole there, export it again, best as uncompressed DICOM.",
  multi_frame: "Export a single slice, or the whole scan as DICOM, NIfTI or NRRD.",
  not_ct: "Only CT is understood. Scouts, reports and other modalities have no answer here.",
  not_grey: "Export it in grey levels, without coloured overlays.",
  several_volumes: "Send one series at a time.",
  inconsistent_geometry: "Export the series again: its slices do not lie as one stack.",
  invalid_parameter: "Correct that value.",
  internal_error: "This is a mistake of the server. Tell whoever runs it the number below.",
  rate_limited: "Many requests came from your network at once: try again in a few seconds.",
  overloaded: "The server is busy: try again in a few seconds.",
  model_not_ready: "The server is starting: try again in a few seconds.",
  draining: "The server is restarting: try again in a few seconds.",
  deadline_exceeded: "Try again when the server is less busy, or send less at once.",
  broken_off: "Try again; if it happens again, whoever runs this server may find the reason in its log.",
  unreachable: "Check your connection, and whether the server runs. Your files are still here.",
  cancelled: "Drop or choose files whenever you like.",
  no_problem: "Something between this page and the service refused it: ask whoever runs the server.",
};

/** What to do about a flag. */
export function flagAdvice(code) {
  return FLAGS[code] || "Look at the outline before you use the figures.";
}

/** What to try after an error. */
export function problemAdvice(error) {
  return PROBLEMS[error.code] ?? "Reload this page and try again.";
}

/** Statistics of a slice in words: how each is called, and its unit; `at` finds it in a part of the answer. */
export const SLICE_ROWS = [
  {name: "Area", at: (part) => part.area_mm2, per: 100, digits: 1, unit: "cm²"},
  {name: "Share of the picture", at: (part) => part.fraction, per: 0.01, digits: 1, unit: "%"},
  {name: "Separate regions", at: (part) => part.components, digits: 0},
  {name: "Mean density", at: (part) => part.intensity.mean, digits: 0, unit: "intensity"},
  {name: "Median density", at: (part) => part.intensity.median, digits: 0, unit: "intensity"},
  {name: "15th percentile", note: "lower means more air", at: (part) => part.intensity.p15, digits: 0, unit: "intensity"},
  {name: "Below −950 HU", note: "as in emphysema", at: (part) => part.density?.laa_950, per: 0.01, digits: 1, unit: "%"},
  {name: "Above −700 HU", note: "as in fibrosis", at: (part) => part.density?.haa_700, per: 0.01, digits: 1, unit: "%"},
  {name: "Above −250 HU", note: "vessels, consolidation", at: (part) => part.density?.haa_250, per: 0.01, digits: 1, unit: "%"},
];
