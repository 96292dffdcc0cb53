// Samples side by side: each a link with its picture, the map on it, what was predicted, and how right that was.
import { fetchColours, levels, paint } from "xai-saliency";
import { local } from "xai-time";

function gridOf(map) {
  const bytes = atob(map.bytes), values = new Float32Array(bytes.length);
  const step = (map.maximum - map.minimum) / 255;
  for (let place = 0; place < values.length; place++) values[place] = map.minimum + step * bytes.charCodeAt(place);
  return { values, rows: map.rows, columns: map.columns };
}

const SIDE = 220; // pixels of the canvas, whatever it is shown at
const NEAR = "400px 0px"; // of what can be seen: pictures that are further away are painted once they are near

// When a sample was predicted: the day alone where that is not today.
function when(sample) {
  const [day, clock] = local(sample.time).split("T");
  return `${day === local(Date.now() / 1000).slice(0, 10) ? "" : `${day} `}${clock.slice(0, 5)}`;
}

// What Vue would otherwise watch for changes: a thousand values, of which none changes.
function plain(samples) {
  return Vue.markRaw([...Vue.toRaw(samples)]);
}

export default {
  props: { samples: Array, look: Object, colours: String, words: Object, label: String },
  data() {
    return { shown: plain(this.samples) };
  },
  watch: {
    samples(all) { this.shown = plain(all); },
  },
  created() {
    this.canvases = new Map();
    this.painted = new WeakMap();
    this.near = new WeakSet();
  },
  mounted() {
    this.watching = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: NEAR });
    this.repaint();
  },
  updated() { this.repaint(); },
  beforeUnmount() { this.watching.disconnect(); },
  render() {
    return Vue.h("ul", { class: "samples", "aria-label": this.label }, this.shown.map((each) => this.card(each)));
  },
  methods: {
    card(sample) {
      const { h } = Vue;
      const canvas = h("canvas", { ref: (element) => this.keep(sample, element), role: "img", "aria-label": sample.alt });
      const none = sample.picture ? null : h("span", { class: "sample-none" }, this.words.none);
      const score = sample.score ? h("span", { class: "tag number" }, sample.score) : null;
      const link = h("a", { class: ["sample", { fresh: sample.fresh }], href: sample.href }, [
        h("span", { class: "sample-picture" }, [canvas, none]),
        h("span", { class: "sample-head" }, [
          h("span", { class: "sample-title" }, sample.title), h("span", { class: "number" }, sample.probability),
        ]),
        h("span", { class: "sample-foot" }, [
          h("span", { class: ["tag", sample.flag_class] }, sample.flag), score,
          h("span", { class: "sample-line" }, [when(sample), sample.line].filter(Boolean).join(" · ")),
        ]),
      ]);
      return h("li", { key: sample.key, "data-key": sample.key }, [link]);
    },
    keep(sample, element) {
      if (element) this.canvases.set(sample.key, element);
      else this.canvases.delete(sample.key);
    },
    // Takes cards that are new or have changed; `keys` are of all that are to be shown, in order.
    merge(changed, keys) {
      const known = new Map([...this.shown, ...changed].map((sample) => [sample.key, sample]));
      this.shown = plain(keys.filter((key) => known.has(key)).map((key) => known.get(key)));
    },
    seen(entries) {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.near.add(target);
        else this.near.delete(target);
      }
      this.repaint();
    },
    repaint() {
      for (const sample of this.shown) {
        const canvas = this.canvases.get(sample.key);
        if (!canvas) continue;
        const place = canvas.closest("li");
        this.watching.observe(place); // again and again changes nothing
        const mark = JSON.stringify([sample.picture, sample.map?.bytes, sample.scale, this.look]);
        if (!this.near.has(place) || this.painted.get(canvas) === mark) continue;
        this.painted.set(canvas, mark);
        this.paint(canvas, sample);
      }
    },
    async paint(canvas, sample) {
      const [width, height] = sample.size, most = Math.max(width, height);
      const [table, picture] = await Promise.all([fetchColours(this.colours), decoded(sample.picture)]);
      canvas.width = Math.max(1, Math.round((SIDE * width) / most));
      canvas.height = Math.max(1, Math.round((SIDE * height) / most));
      const map = sample.map ? gridOf(sample.map) : null;
      const scene = {
        picture, size: sample.size, region: sample.region, map, levels: map ? levels(map, sample.scale) : null,
        scale: sample.scale, view: [0, 0, width, height],
      };
      paint(canvas, scene, this.look, table);
      canvas.dataset.drawn = "1";
    },
  },
};

async function decoded(url) {
  if (!url) return null;
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch (error) {
    return null; // it is no longer kept
  }
}
