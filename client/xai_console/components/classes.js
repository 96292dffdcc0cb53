// Classes with how probable they are, to click. Like all components here it has no template: Vue would have to read its
// compiler, and compile, in each page.
export default {
  props: { classes: Array, chosen: Number },
  emits: ["choose"],
  render() {
    const { h } = Vue;
    return h("div", { class: "classes" }, this.classes.map((each) => h("button", {
      key: each.id, class: "class", type: "button", "data-class": each.id, "aria-pressed": each.id === this.chosen,
      onClick: () => this.$emit("choose", each.id),
    }, [
      h("span", { class: "class-name" }, each.label),
      h("span", { class: "bar" }, [h("span", { class: "bar-part", style: { width: each.width } })]),
      h("span", { class: "number" }, each.probability),
    ])));
  },
};
