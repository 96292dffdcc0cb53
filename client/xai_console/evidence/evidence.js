// Draws the maps of an evidence file. It stands in the file itself, after what draws maps in the console.
const data = JSON.parse(document.getElementById("data").textContent);
const table = new Colours(data.colours);
const look = data.look;
const tiles = [];

function add(parent, tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  parent.appendChild(made);
  return made;
}

function valuesOf(text) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function slider(parent, name, key) {
  const label = add(parent, "label", name);
  const input = add(label, "input");
  Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value: look[key] });
  input.addEventListener("input", () => { look[key] = Number(input.value); tiles.forEach((draw) => draw()); });
}

function tile(parent, one, picture) {
  const figure = add(parent, "figure");
  add(figure, "figcaption", `${one.title} · ${one.label}`);
  const canvas = add(figure, "canvas");
  [canvas.width, canvas.height] = data.size.map((side) => 2 * side);
  const map = one.values ? { values: valuesOf(one.values), rows: one.rows, columns: one.columns } : null;
  const region = [0, 0, ...data.size];
  const scene = {
    picture, size: data.size, region, map, scale: one.scale, view: [0, 0, ...data.size], shaky: false,
    levels: map ? levels(map, one.scale) : null,
  };
  const draw = () => paint(canvas, scene, look, table);
  draw();
  tiles.push(draw);
  if (one.note) add(figure, "p", one.note, "note");
  if (!map) return;
  const legend = add(figure, "canvas", "", "legend");
  [legend.width, legend.height] = [256, 1];
  paintLegend(legend, one.scale, table);
  const numbers = add(figure, "div", "", "ends");
  legendTexts(one.scale, data.words).forEach((each) => add(numbers, "span", each));
  const under = add(figure, "output", "\u00a0");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width * data.size[0], (event.clientY - box.top) / box.height * data.size[1]];
    under.textContent = short(valueAt(map, region, ...at) ?? 0);
  });
  for (const [name, value] of one.lines) {
    const line = add(figure, "div", "", "line");
    add(line, "span", name);
    add(line, "span", value);
  }
}

async function show() {
  const parent = document.getElementById("maps");
  let picture = null;
  if (data.picture) {
    picture = new Image();
    picture.src = data.picture;
    await picture.decode();
  }
  const controls = add(parent, "div", "", "controls");
  slider(controls, data.words.opacity, "opacity");
  slider(controls, data.words.threshold, "threshold");
  const grid = add(parent, "div", "", "tiles");
  data.maps.forEach((one) => tile(grid, one, picture));
  document.body.dataset.drawn = "1";
}

show();
