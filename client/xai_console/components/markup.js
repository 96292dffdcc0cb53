// A part of a page as one element: HTML of the console's own making, with one tooltip for all places that have a word.
const DELAY = 300; // milliseconds, as of the other tooltips

export default {
  props: { html: String },
  data: () => ({ tip: "" }),
  watch: {
    html() { this.leave(); }, // the place is no longer there
  },
  beforeUnmount() { this.leave(); },
  render() {
    const { h } = Vue;
    const tip = this.tip && h(Vue.resolveComponent("q-tooltip"), {
      key: this.tip, target: this.place, "model-value": true, "no-parent-event": true, "max-width": "320px",
    }, () => this.tip);
    const content = h("div", { class: "contents", innerHTML: this.html });
    return h("div", { onMouseover: this.over, onMouseleave: this.leave }, [content, tip || null]);
  },
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
