// Samples side by side: each a link with its picture, the map on it, what was predicted, and how right that was.
import { fetchColours, levels, paint } from "xai-saliency";

function gridOf(map) {
  const bytes = atob(map.bytes), values = new Float32Array(bytes.length);
  const step = (map.maximum - map.minimum) / 255;
  for (let place = 0; place < values.length; place++) values[place] = map.minimum + step * bytes.charCodeAt(place);
  return { values, rows: map.rows, columns: map.columns };
}

const SIDE = 220; // pixels of the canvas, whatever it is shown at

export default {
  template: `
    <ul class="samples" :aria-label="label">
      <li v-for="sample in shown" :key="sample.key" :data-key="sample.key">
        <a class="sample" :href="sample.href" :class="{ fresh: sample.fresh }">
          <span class="sample-picture"><canvas :ref="(element) => keep(sample, element)" role="img" :aria-label="sample.alt"></canvas>
            <span v-if="!sample.picture" class="sample-none">{{ words.none }}</span></span>
          <span class="sample-head"><span class="sample-title">{{ sample.title }}</span>
            <span class="number">{{ sample.probability }}</span></span>
          <span class="sample-foot"><span class="tag" :class="sample.flag_class">{{ sample.flag }}</span>
            <span v-if="sample.score" class="tag number">{{ sample.score }}</span>
            <span class="sample-line">{{ sample.line }}</span></span>
        </a>
      </li>
    </ul>`,
  props: { samples: Array, look: Object, colours: String, words: Object, label: String },
  data() {
    return { shown: this.samples };
  },
  watch: {
    samples(all) { this.shown = all; },
  },
  created() {
    this.canvases = new Map();
    this.painted = new WeakMap();
  },
  mounted() { this.repaint(); },
  updated() { this.repaint(); },
  methods: {
    keep(sample, element) {
      if (element) this.canvases.set(sample.key, element);
      else this.canvases.delete(sample.key);
    },
    // Takes cards that are new or have changed; `keys` are of all that are to be shown, in order.
    merge(changed, keys) {
      const known = new Map([...this.shown, ...changed].map((sample) => [sample.key, sample]));
      this.shown = keys.filter((key) => known.has(key)).map((key) => known.get(key));
    },
    async repaint() {
      const table = await fetchColours(this.colours);
      for (const sample of this.shown) {
        const canvas = this.canvases.get(sample.key);
        const mark = JSON.stringify([sample.picture, sample.map?.bytes, sample.scale, this.look]);
        if (!canvas || this.painted.get(canvas) === mark) continue;
        this.painted.set(canvas, mark);
        this.paint(canvas, sample, table);
      }
    },
    async paint(canvas, sample, table) {
      const [width, height] = sample.size, most = Math.max(width, height);
      canvas.width = Math.max(1, Math.round((SIDE * width) / most));
      canvas.height = Math.max(1, Math.round((SIDE * height) / most));
      const map = sample.map ? gridOf(sample.map) : null;
      const scene = {
        picture: sample.picture ? await decoded(sample.picture) : null, size: sample.size, region: sample.region, map,
        levels: map ? levels(map, sample.scale) : null, scale: sample.scale, view: [0, 0, width, height],
      };
      paint(canvas, scene, this.look, table);
      canvas.dataset.drawn = "1";
    },
  },
};

async function decoded(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch (error) {
    return null; // it is no longer kept
  }
}
