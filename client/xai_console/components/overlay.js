// A map on its picture, drawn from values: legend, value under the pointer, zoom, and shapes drawn by hand.
import { fetchColours, legendTexts, levels, paint, paintLegend, short, valueAt } from "xai-saliency";

const pictures = new Map(); // one decoding for all maps of a picture
function pictureOf(url) {
  if (!pictures.has(url)) {
    if (pictures.size > 64) pictures.delete(pictures.keys().next().value);
    const image = new Image();
    image.src = url;
    pictures.set(url, image.decode().then(() => image));
  }
  return pictures.get(url);
}

async function valuesOf(map) {
  const answer = await fetch(map.url);
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return { values: new Float32Array(await answer.arrayBuffer()), rows: map.rows, columns: map.columns };
}

const POINTER = "xai-pointer";

export default {
  props: {
    colours: String, picture: String, size: Array, region: Array, map: Object, scale: Object, look: Object,
    shaky: Boolean, note: String, label: String, words: Object, group: String, legend: Boolean, interactive: Boolean,
    zoomable: Boolean, drawing: String, shapes: Array, badge: Object,
  },
  data: () => ({ pointed: "", scene: null, zoom: null, draft: [], at: null }),
  computed: {
    ends() {
      return legendTexts(this.scale, this.words);
    },
    inputs() {
      return JSON.stringify([this.picture, this.map, this.region, this.size]);
    },
  },
  watch: {
    inputs() { this.load(); },
    scale() { this.prepare(); this.later(); },
    look() { this.later(); },
    shapes() { this.drawShapes(); },
    drawing() { this.draft = []; this.drawShapes(); },
  },
  mounted() {
    this.observer = new ResizeObserver(() => this.fit()); // also now, before there is anything to draw
    this.observer.observe(this.$refs.stage);
    window.addEventListener(POINTER, this.followed);
    this.load();
  },
  unmounted() {
    this.observer.disconnect();
    window.removeEventListener(POINTER, this.followed);
  },
  render() {
    const { h } = Vue;
    const stage = h("div", { class: "map-stage", ref: "stage" }, [
      h("canvas", {
        ref: "canvas", role: "img", "aria-label": this.label, tabindex: this.interactive ? 0 : -1,
        onPointermove: this.moved, onPointerleave: this.left, onPointerdown: this.pressed, onPointerup: this.released,
        onDblclick: this.twice, onWheel: this.wheeled, onKeydown: this.key, onClick: this.clicked,
      }),
      h("svg", { ref: "shapes", class: "map-shapes", "aria-hidden": "true" }),
      this.note ? h("span", { class: "map-note" }, this.note) : null,
      this.badge ? h("span", { class: "map-badge number", role: "img", "aria-label": this.badge.label }, [
        this.badge.text, h(Vue.resolveComponent("q-tooltip"), { delay: 400 }, () => this.badge.label),
      ]) : null,
      this.pointed ? h("span", { class: "map-value", "aria-live": "polite" }, this.pointed) : null,
    ]);
    const legend = this.legend && this.scale && this.map ? h("div", { class: "map-legend" }, [
      h("canvas", { ref: "legend", width: 256, height: 1, "aria-hidden": "true" }),
      h("div", this.ends.map((each) => h("span", each))),
    ]) : null;
    return h("figure", { class: ["map", { zoomable: this.zoomable, drawing: this.drawing }] }, [stage, legend]);
  },
  methods: {
    async load() {
      const wanted = this.inputs;
      try {
        const [table, picture, map] = await Promise.all([
          fetchColours(this.colours),
          this.picture ? pictureOf(this.picture) : null,
          this.map ? valuesOf(this.map) : null,
        ]);
        if (wanted !== this.inputs) return; // a better map has come meanwhile
        this.table = table;
        this.scene = Vue.markRaw({ picture, map, size: this.size, region: this.region });
        this.prepare();
        if (!this.fit()) this.draw();
        this.$el.dataset.drawn = this.map ? this.map.url : "picture";
      } catch (error) {
        this.pointed = this.words.failed;
      }
    },
    prepare() {
      if (this.scene?.map && this.scale) this.scene.levels = levels(this.scene.map, this.scale);
    },
    view() {
      return this.zoom ?? [0, 0, ...this.size];
    },
    // Makes the canvas as large as there is room for; returns whether that is another size, in which all is drawn.
    fit() {
      const stage = this.$refs.stage, canvas = this.$refs.canvas;
      if (!stage || !this.size) return false;
      const room = stage.clientWidth, most = parseFloat(getComputedStyle(stage).maxHeight) || Infinity;
      const width = Math.max(16, Math.min(room, (most * this.size[0]) / this.size[1]));
      const height = (width * this.size[1]) / this.size[0];
      const fine = Math.min(2, window.devicePixelRatio || 1);
      const shown = [`${width}px`, `${height}px`], pixels = [Math.round(width * fine), Math.round(height * fine)];
      if (canvas.style.width === shown[0] && canvas.width === pixels[0] && canvas.height === pixels[1]) return false;
      [canvas.style.width, canvas.style.height] = shown;
      [canvas.width, canvas.height] = pixels;
      this.draw();
      return true;
    },
    later() {
      this.due ??= requestAnimationFrame(() => { this.due = null; this.draw(); });
    },
    draw() {
      if (!this.scene || !this.table) return;
      const scene = { ...this.scene, scale: this.scale, view: this.view(), shaky: this.shaky };
      paint(this.$refs.canvas, scene, this.look, this.table);
      if (this.$refs.legend) paintLegend(this.$refs.legend, this.scale, this.table);
      this.drawShapes();
    },
    // -------------------------------------------------------------------------------------------- pointer and keys
    place(event) {
      const box = this.$refs.canvas.getBoundingClientRect(), [x, y, width, height] = this.view();
      return [x + ((event.clientX - box.left) / box.width) * width, y + ((event.clientY - box.top) / box.height) * height];
    },
    moved(event) {
      if (this.grabbed) return this.drag(event);
      this.point(...this.place(event));
    },
    point(x, y) {
      this.at = [x, y];
      if (this.draft.length) this.drawShapes([x, y]);
      window.dispatchEvent(new CustomEvent(POINTER, { detail: { group: this.group, x, y } }));
    },
    followed({ detail }) {
      if (!this.group || detail.group !== this.group || !this.scene?.map || !this.interactive) return;
      const value = detail.x === null ? null : valueAt(this.scene.map, this.region, detail.x, detail.y);
      this.pointed = value === null ? "" : short(value);
    },
    left() {
      window.dispatchEvent(new CustomEvent(POINTER, { detail: { group: this.group, x: null } }));
    },
    key(event) {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) {
        event.preventDefault();
        const [x, y, width, height] = this.view();
        const from = this.at ?? [x + width / 2, y + height / 2], by = Math.max(width, height) / 50;
        this.point(clamp(from[0] + by * step[0], this.size[0]), clamp(from[1] + by * step[1], this.size[1]));
      } else if (event.key === "+" || event.key === "-") {
        this.magnify(event.key === "+" ? 0.8 : 1.25, this.at ?? [this.size[0] / 2, this.size[1] / 2]);
      } else if (event.key === "Enter") {
        if (this.drawing === "polygon" && this.draft.length > 2) this.finish("polygon", this.draft);
        else this.$emit("open");
      } else if (event.key === "Escape" && this.draft.length) {
        event.stopPropagation();
        this.draft = [];
        this.drawShapes();
      }
    },
    // ------------------------------------------------------------------------------------------------ zoom and pan
    wheeled(event) {
      if (!this.zoomable) return;
      event.preventDefault();
      this.magnify(event.deltaY < 0 ? 0.8 : 1.25, this.place(event));
    },
    magnify(by, [x, y]) {
      if (!this.zoomable) return;
      const [left, top, width] = this.view();
      const part = Math.min(1, Math.max(1 / 32, (width / this.size[0]) * by));
      const scaled = (part * this.size[0]) / width;
      this.look_at(x - (x - left) * scaled, y - (y - top) * scaled, part);
    },
    look_at(left, top, part) {
      const [width, height] = this.size.map((side) => side * part);
      this.zoom = [clamp(left, this.size[0] - width), clamp(top, this.size[1] - height), width, height];
      this.later();
    },
    drag(event) {
      const [x, y] = this.place(event), view = this.view();
      this.look_at(view[0] + this.grabbed[0] - x, view[1] + this.grabbed[1] - y, view[2] / this.size[0]);
    },
    // ---------------------------------------------------------------------------------------------------- drawing
    pressed(event) {
      const at = this.place(event);
      if (this.drawing === "box") {
        this.draft = [at];
        this.$refs.canvas.setPointerCapture(event.pointerId);
      } else if (!this.drawing && this.zoomable && this.zoom) {
        this.grabbed = at;
        this.$refs.canvas.setPointerCapture(event.pointerId);
      }
    },
    released(event) {
      this.grabbed = null;
      if (this.drawing !== "box" || !this.draft.length) return;
      const [[x, y], [u, v]] = [this.draft[0], this.place(event)].map(([a, b]) => [clamp(a, this.size[0]), clamp(b, this.size[1])]);
      this.draft = [];
      if (Math.abs(x - u) < 1 || Math.abs(y - v) < 1) return this.drawShapes();
      this.finish("box", [[Math.min(x, u), Math.min(y, v)], [Math.max(x, u), Math.max(y, v)]]);
    },
    clicked(event) {
      if (this.drawing === "polygon") {
        this.draft.push(this.place(event).map((each, axis) => clamp(each, this.size[axis])));
        this.drawShapes();
      } else if (!this.drawing && !this.zoomable) {
        this.$emit("open");
      }
    },
    twice() {
      if (this.drawing === "polygon" && this.draft.length > 3) this.finish("polygon", this.draft.slice(0, -1));
      else if (this.zoomable && !this.drawing) { this.zoom = null; this.later(); }
    },
    finish(kind, points) {
      this.draft = [];
      this.$emit("shape", { kind, points });
    },
    drawShapes(towards) {
      const svg = this.$refs.shapes, canvas = this.$refs.canvas;
      if (!svg || !canvas) return;
      const [x, y, width, height] = this.view();
      svg.style.width = canvas.style.width;
      svg.style.height = canvas.style.height;
      svg.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
      svg.replaceChildren();
      for (const shape of this.shapes ?? []) this.outline(svg, shape.kind, shape.points, shape.kind_of ?? "truth");
      if (this.look?.frame) {
        this.outline(svg, "box", [[this.region[0], this.region[1]], [this.region[2], this.region[3]]], "seen");
      }
      if (this.draft.length) {
        this.outline(svg, this.drawing, towards ? [...this.draft, towards] : this.draft, "draft");
      }
    },
    outline(svg, kind, points, role) {
      const corners = kind === "box" && points.length === 2
        ? [points[0], [points[1][0], points[0][1]], points[1], [points[0][0], points[1][1]]] : points;
      for (const under of [true, false]) {
        const line = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
        line.setAttribute("points", corners.map((each) => each.join(",")).join(" "));
        line.setAttribute("class", under ? "under" : role);
        svg.appendChild(line);
      }
    },
  },
};

function clamp(value, most) {
  return Math.min(Math.max(0, most), Math.max(0, value));
}
