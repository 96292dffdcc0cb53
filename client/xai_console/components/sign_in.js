// A field for a viewer's token. It is sent to the console, which answers a cookie that scripts cannot read.
export default {
  props: { words: Object, path: String, channel: String },
  data: () => ({ busy: false, refusal: "" }),
  mounted() {
    this.$refs.token.focus();
  },
  render() {
    const { h, withModifiers } = Vue;
    return h("form", { class: "sign-in-form", onSubmit: withModifiers(this.send, ["prevent"]) }, [
      h("label", [
        h("span", this.words.token),
        h("input", { ref: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true }),
      ]),
      h("p", { class: "sign-in-refusal", role: "alert" }, this.refusal),
      h("button", { class: "sign-in-go", type: "submit", disabled: this.busy }, this.words.go),
    ]);
  },
  methods: {
    async send() {
      this.busy = true;
      this.refusal = "";
      try {
        const answer = await fetch(this.path, { method: "POST", body: this.$refs.token.value });
        if (answer.ok) new BroadcastChannel(this.channel).postMessage("");
        else this.refusal = await answer.text();
      } catch (error) {
        this.refusal = `${this.words.failed}: ${error}`;
      } finally {
        this.busy = false;
      }
    },
  },
};
