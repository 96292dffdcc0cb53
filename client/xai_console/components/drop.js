// A place to drop, paste or choose a picture; it is sent to the console, which says what it is called there.
export default {
  props: { words: Object },
  data: () => ({ over: false, busy: false }),
  mounted() {
    document.addEventListener("paste", this.pasted);
  },
  unmounted() {
    document.removeEventListener("paste", this.pasted);
  },
  render() {
    const { h, withModifiers } = Vue;
    return h("label", {
      class: ["drop", { over: this.over }],
      onDragover: withModifiers(() => { this.over = true; }, ["prevent"]),
      onDragleave: () => { this.over = false; },
      onDrop: withModifiers(this.dropped, ["prevent"]),
    }, [
      h("input", { type: "file", accept: "image/*", "aria-label": this.words.title, onChange: this.chosen }),
      h("b", this.busy ? this.words.busy : this.words.title),
      h("span", this.words.hint),
    ]);
  },
  methods: {
    dropped(event) {
      this.over = false;
      this.send(event.dataTransfer.files[0]);
    },
    chosen(event) {
      this.send(event.target.files[0]);
      event.target.value = "";
    },
    pasted(event) {
      const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
      if (file) this.send(file);
    },
    async send(file) {
      if (!file) return;
      this.busy = true;
      try {
        const answer = await fetch("/upload", { method: "POST", body: file });
        if (answer.ok) this.$emit("taken", await answer.json());
        else this.$emit("refused", await answer.text());
      } catch (error) {
        this.$emit("refused", `${this.words.failed}: ${error}`);
      } finally {
        this.busy = false;
      }
    },
  },
};
