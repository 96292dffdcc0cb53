// Classes with how probable they are, to click.
export default {
  template: `
    <div class="classes">
      <button v-for="each in classes" :key="each.id" class="class" type="button" :data-class="each.id"
        :aria-pressed="each.id === chosen" @click="$emit('choose', each.id)">
        <span class="class-name">{{ each.label }}</span>
        <span class="bar"><span class="bar-part" :style="{ width: each.width }"></span></span>
        <span class="number">{{ each.probability }}</span>
      </button>
    </div>`,
  props: { classes: Array, chosen: Number },
  emits: ["choose"],
};
