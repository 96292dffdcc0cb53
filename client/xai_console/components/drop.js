// A place to drop, paste or choose a picture; it is sent to the console, which says what it is called there.
export default {
  template: `
    <label class="drop" :class="{ over }" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
      <input type="file" accept="image/*" :aria-label="words.title" @change="chosen">
      <b>{{ busy ? words.busy : words.title }}</b>
      <span>{{ words.hint }}</span>
    </label>`,
  props: { words: Object },
  data: () => ({ over: false, busy: false }),
  mounted() {
    document.addEventListener("paste", this.pasted);
  },
  unmounted() {
    document.removeEventListener("paste", this.pasted);
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
        this.$emit("refused", String(error));
      } finally {
        this.busy = false;
      }
    },
  },
};
