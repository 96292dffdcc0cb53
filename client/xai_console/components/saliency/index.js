// Draws saliency maps from their values, in plain JavaScript without any library; pages and evidence files share it.
//
// A map is {values: Float32Array, rows, columns}, row by row. A region is [left, top, right, bottom]: the part of the
// upright picture, in its pixels, that the map covers. A scale is {low, high, signed, colormap}, as the SDK's
// ColourScale; the colours of each scale and the opacity curves come from the SDK, too (see `Colours`).

/** Colours of each scale, 256 RGB triples, and how opaque each of its levels is, 0 to 1, by whether it is signed. */
export class Colours {
  constructor(data) {
    this.tables = Object.fromEntries(Object.entries(data.tables).map(([name, text]) => [name, fromHex(text)]));
    this.strength = { true: Float64Array.from(data.strength.signed), false: Float64Array.from(data.strength.plain) };
    this.middle = data.middle;
  }

  /** Index of a level, in [0, 1] or [-1, 1] where the scale is signed, in the tables. */
  index(level, signed) {
    return Math.round(signed ? this.middle * (1 + level) : level * 255);
  }
}

let fetched = null;

/** The colours at a URL, fetched once for all that is drawn on a page. */
export function fetchColours(url) {
  return fetched ??= fetch(url).then((answer) => answer.json()).then((data) => new Colours(data));
}

function fromHex(text) {
  const bytes = new Uint8Array(text.length / 2);
  for (let place = 0; place < bytes.length; place++) bytes[place] = parseInt(text.substr(2 * place, 2), 16);
  return bytes;
}

/** The values of a map as levels of a scale: in [0, 1] or, where it is signed, [-1, 1]. */
export function levels(map, scale) {
  const made = new Float32Array(map.values.length);
  const span = scale.high - scale.low;
  if (!(span > 0)) return made;
  const least = scale.signed ? -1 : 0;
  for (let place = 0; place < made.length; place++) {
    made[place] = Math.min(1, Math.max(least, (map.values[place] - scale.low) / span));
  }
  return made;
}

/** Column and row, from 0 with fractions, at a point of the picture; centres of cells are at halves. */
function onMap(map, region, x, y) {
  return [
    ((x - region[0]) / (region[2] - region[0])) * map.columns,
    ((y - region[1]) / (region[3] - region[1])) * map.rows,
  ];
}

/** The value of the cell at a point of the picture; null beside the map. */
export function valueAt(map, region, x, y) {
  const [column, row] = onMap(map, region, x, y).map(Math.floor);
  if (column < 0 || row < 0 || column >= map.columns || row >= map.rows) return null;
  return map.values[row * map.columns + column];
}

// For each pixel along one side of the canvas, where its centre lies between the centres of two cells of the map: the
// first one, the next one, and how near it is to that; -1 beside the region. Beyond the outermost centres, as at the edge.
function samples(pixels, start, step, from, to, cells) {
  const first = new Int32Array(pixels), next = new Int32Array(pixels), part = new Float32Array(pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    const at = start + (pixel + 0.5) * step;
    if (at < from || at >= to) {
      first[pixel] = -1;
      continue;
    }
    const cell = Math.min(cells - 1, Math.max(0, ((at - from) / (to - from)) * cells - 0.5));
    first[pixel] = Math.floor(cell);
    next[pixel] = Math.min(cells - 1, first[pixel] + 1);
    part[pixel] = cell - first[pixel];
  }
  return { first, next, part };
}

const DIM = 0.35; // of what the model did not see: grey and of low contrast, as the SDK draws it
const LIFT = 40;

/**
 * Paints one view of a picture and its map.
 *
 * @param canvas Its width and height in pixels are filled.
 * @param scene picture (an image, or null), size [width, height] of the picture, region, map (or null), levels, scale,
 *   view [x, y, width, height] in pixels of the picture, shaky: whether the map is not to be relied on.
 * @param look mode ("overlay", "map" or "picture"), opacity, saturation, threshold (part of the scale, 0 to 1).
 * @param colours A `Colours`.
 */
export function paint(canvas, scene, look, colours) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const [x, y, width, height] = scene.view;
  const across = canvas.width / width, down = canvas.height / height;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (scene.picture) {
    pen.drawImage(scene.picture, -x * across, -y * down, scene.size[0] * across, scene.size[1] * down);
  }
  const mode = scene.map ? look.mode : "picture";
  if (mode === "picture" && !look.frame) return;
  const image = pen.getImageData(0, 0, canvas.width, canvas.height);
  const map = scene.map ?? { rows: 1, columns: 1 };
  const [left, top, right, bottom] = scene.region;
  const columns = samples(canvas.width, x, 1 / across, left, right, map.columns);
  const rows = samples(canvas.height, y, 1 / down, top, bottom, map.rows);
  const ink = mode === "picture" ? null : inks(scene, look, colours, mode);
  for (let row = 0, place = 0; row < canvas.height; row++) {
    const above = rows.first[row] * map.columns, below = rows.next[row] * map.columns, low = rows.part[row];
    for (let column = 0; column < canvas.width; column++, place += 4) {
      if (above < 0 || columns.first[column] < 0) {
        dim(image.data, place);
      } else if (ink) {
        const one = columns.first[column], other = columns.next[column], near = columns.part[column];
        const upper = scene.levels[above + one] * (1 - near) + scene.levels[above + other] * near;
        const lower = scene.levels[below + one] * (1 - near) + scene.levels[below + other] * near;
        blend(image.data, place, upper * (1 - low) + lower * low, ink);
      }
    }
  }
  pen.putImageData(image, 0, 0);
  if (scene.shaky && ink) hatch(pen, (left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down);
}

function dim(data, place) {
  data[place] = data[place + 1] = data[place + 2] = DIM * greyOf(data, place) + LIFT;
}

function greyOf(data, place) {
  return 0.299 * data[place] + 0.587 * data[place + 1] + 0.114 * data[place + 2];
}

/** What all pixels of a map share: the colour and the opacity of each level, and what is left of the picture. */
function inks(scene, look, colours, mode) {
  const { signed, colormap } = scene.scale;
  const most = look.opacity * (scene.shaky ? 0.5 : 1);
  const opacity = mode === "map" ? new Float64Array(256).fill(1) : colours.strength[signed].map((each) => most * each);
  const ground = mode === "map" ? 128 : null;
  const { threshold, saturation } = look;
  return { colours, signed, table: colours.tables[colormap], opacity, ground, threshold, saturation };
}

function blend(data, place, level, ink) {
  const index = ink.colours.index(level, ink.signed);
  const opacity = Math.abs(level) < ink.threshold ? 0 : ink.opacity[index];
  const grey = greyOf(data, place);
  for (let channel = 0; channel < 3; channel++) {
    const below = ink.ground ?? grey + ink.saturation * (data[place + channel] - grey);
    data[place + channel] = below + opacity * (ink.table[3 * index + channel] - below);
  }
}

// Light beside dark, so that one of them shows on anything.
function hatch(pen, left, top, right, bottom) {
  const pitch = Math.min(14, Math.max(8, Math.min(right - left, bottom - top) / 24));
  pen.save();
  pen.beginPath();
  pen.rect(left, top, right - left, bottom - top);
  pen.clip();
  pen.lineWidth = pitch / 8;
  for (const [shift, ink] of [[0, "rgba(255,255,255,.6)"], [pitch / 8, "rgba(0,0,0,.6)"]]) {
    pen.strokeStyle = ink;
    pen.beginPath();
    for (let start = left - (bottom - top); start < right; start += pitch) {
      pen.moveTo(start + shift, bottom);
      pen.lineTo(start + shift + (bottom - top), top);
    }
    pen.stroke();
  }
  pen.restore();
}

/** Fills a canvas with the colours of a scale, from its lowest value to its highest. */
export function paintLegend(canvas, scale, colours) {
  const pen = canvas.getContext("2d");
  const table = colours.tables[scale.colormap];
  const last = scale.signed ? 2 * colours.middle : 255;
  for (let column = 0; column < canvas.width; column++) {
    const index = Math.round((column / Math.max(1, canvas.width - 1)) * last);
    pen.fillStyle = `rgb(${table[3 * index]} ${table[3 * index + 1]} ${table[3 * index + 2]})`;
    pen.fillRect(column, 0, 1, canvas.height);
  }
}

/** What stands below the left end, the middle and the right end of a legend. */
export function legendTexts({ low, high, signed }, words) {
  if (signed) return [`${short(-high)} ${words.against}`, "0", `${words.for} ${short(high)}`];
  return [short(low), short((low + high) / 2), short(high)];
}

/** A number in three digits. */
export function short(number) {
  if (number === 0) return "0";
  const size = Math.abs(number);
  return size >= 1000 || size < 0.001 ? number.toExponential(1) : String(Number(number.toPrecision(3)));
}
