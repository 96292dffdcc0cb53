// A chart, drawn once the page around it is: ECharts is a megabyte, and no page should wait for it to be read.
let library = null;
const AT_LAST = 1000; // milliseconds after which charts are drawn that nobody has come to see

function idle() {
  const soon = window.requestIdleCallback ?? ((act) => setTimeout(act, 100));
  // Two frames: what has just been put on the page is painted first.
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => soon(done, { timeout: 500 }))));
}

function seen(element) {
  return new Promise((done) => {
    const watching = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && ended());
    const ended = () => { watching.disconnect(); done(); };
    watching.observe(element);
    setTimeout(ended, AT_LAST);
  });
}

export default {
  props: { options: Object },
  render: () => Vue.h("div"),
  async mounted() {
    await seen(this.$el);
    library ??= idle().then(() => import("nicegui-echart"));
    const { echarts } = await library;
    if (this.gone) return;
    const locale = document.documentElement.lang.slice(0, 2).toUpperCase(); // of months on axes
    this.chart = Vue.markRaw(echarts.init(this.$el, null, { locale }));
    this.chart.on("click", (event) => this.$emit("componentClick", event));
    this.observer = new ResizeObserver(() => this.chart.resize());
    this.observer.observe(this.$el);
    this.update_chart();
  },
  beforeUnmount() {
    this.gone = true;
    this.observer?.disconnect();
    this.chart?.dispose();
  },
  methods: {
    update_chart() {
      if (!this.chart) return; // it is drawn with the newest options as soon as it is there
      const before = this.chart.getOption()?.series?.length;
      this.chart.setOption(this.options, { notMerge: before !== this.options.series?.length });
    },
  },
};
