// A point in time, in the time zone of the browser, which alone knows it.
import { local, zone } from "xai-time";

export default {
  props: { seconds: Number },
  render() {
    return Vue.h("time", { title: zone() }, local(this.seconds).replace("T", " "));
  },
};
