// A choice from a list. Of a long one, the page has a URL alone, from which the options come once somebody opens it.
const lists = new Map();

// What is listed at a URL, fetched once for all choices of a page; after a failure, again.
function listed(url) {
  if (!lists.has(url)) {
    const list = fetch(url).then((answer) => {
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      return answer.json();
    }).then((labels) => Vue.markRaw(labels.map((label, value) => Object.freeze({ value, label }))));
    list.catch(() => lists.delete(url));
    lists.set(url, list);
  }
  return lists.get(url);
}

export default {
  props: { options: Array, source: String },
  data: () => ({ found: [] }),
  render() {
    const props = this.source ? { options: this.found, onFilter: this.filter } : { options: this.options };
    return Vue.h(Vue.resolveComponent("q-select"), { ref: "qRef", ...props }, this.$slots);
  },
  methods: {
    async filter(typed, update, abort) {
      try {
        const all = await listed(this.source), wanted = typed.toLocaleLowerCase();
        update(() => {
          this.found = wanted ? Vue.markRaw(all.filter(({ label }) => label.toLocaleLowerCase().includes(wanted))) : all;
        });
      } catch (error) {
        abort();
      }
    },
  },
};
