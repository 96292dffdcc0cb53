// A beginning and an end to choose, in the time zone of the browser, which alone knows it; the console gets Unix time.
import { local, zone } from "xai-time";

const DELAY = 400; // milliseconds without a key pressed: while a year is typed, nobody looks for the years 2 and 20
const YEARS = { min: "1970-01-02T00:00", max: "9998-12-31T00:00" }; // what the console can say in every time zone

// As the field has it: without seconds where there are none.
function shown(seconds) {
  return seconds == null ? "" : local(seconds).replace(/:00$/, "");
}

export default {
  props: { start: Number, end: Number, words: Object },
  emits: ["chosen"],
  data() {
    return { texts: { start: shown(this.start), end: shown(this.end) } };
  },
  render() {
    const note = Vue.h("span", { class: "hint" }, this.words.zone.replace("{zone}", zone()));
    return Vue.h("div", { class: "row" }, [this.field("start"), this.field("end"), note]);
  },
  methods: {
    field(name) {
      return Vue.h(Vue.resolveComponent("q-input"), {
        ...YEARS, type: "datetime-local", label: this.words[name], "data-time": name, class: "time-field",
        dense: true, outlined: true, clearable: true, stackLabel: true, debounce: DELAY,
        modelValue: this.texts[name], "onUpdate:modelValue": (text) => this.changed(name, text ?? ""),
      });
    },
    changed(name, text) {
      this.texts[name] = text;
      const time = Date.parse(text); // without a zone it is read as local time
      if (text && !(time >= Date.parse(YEARS.min) && time <= Date.parse(YEARS.max))) return;
      this.$emit("chosen", { name, seconds: text ? time / 1000 : null });
    },
  },
};
