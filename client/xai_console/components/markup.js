// A part of a page as one element: HTML of the console's own making, with one tooltip for all places that have a word.
const DELAY = 300; // milliseconds, as of the other tooltips

export default {
  template: `
    <div @mouseover="over" @mouseleave="leave">
      <div class="contents" v-html="html"></div>
      <q-tooltip v-if="tip" :key="tip" :target="place" :model-value="true" no-parent-event max-width="320px">{{ tip }}</q-tooltip>
    </div>`,
  props: { html: String },
  data: () => ({ tip: "" }),
  watch: {
    html() { this.leave(); }, // the place is no longer there
  },
  beforeUnmount() { this.leave(); },
  methods: {
    over(event) {
      const place = event.target.closest("[data-tip]");
      if (place === this.place) return;
      this.leave();
      this.place = place; // no data: elements are not to be made reactive
      if (place) this.due = setTimeout(() => { this.tip = place.dataset.tip; }, DELAY);
    },
    leave() {
      clearTimeout(this.due);
      this.place = null;
      this.tip = "";
    },
  },
};
