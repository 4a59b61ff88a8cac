// Takes one image, shows it, and sends it; the answer goes to the page.

export default {
  template: `
    <div class="drop" :class="{ over }" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
      <img v-if="shown" :src="shown" alt="The image that is tried" class="tried">
      <p v-else class="drop-title">Drop an image here</p>
      <button type="button" class="button" :disabled="busy" @click="$refs.file.click()">Choose an image</button>
      <input ref="file" type="file" accept="image/*" hidden aria-label="Image to try" @change="chosen">
      <p v-if="fault" class="fault" role="alert">{{ fault }}</p>
    </div>`,
  props: { address: String, most: Number },
  data: () => ({ over: false, busy: false, shown: null, fault: "" }),
  methods: {
    dropped(event) {
      this.over = false;
      this.send(event.dataTransfer.files[0]);
    },
    chosen(event) {
      this.send(event.target.files[0]);
      event.target.value = "";
    },
    async send(file) {
      if (!file) return;
      this.fault = "";
      if (file.size > this.most) {
        this.fault = `An image of at most ${this.most / 1e6} MB can be tried.`;
        return;
      }
      if (this.shown) URL.revokeObjectURL(this.shown);
      this.shown = URL.createObjectURL(file);
      this.busy = true;
      try {
        const response = await fetch(this.address, { method: "POST", body: file });
        const answer = await response.json();
        if (response.ok) this.$emit("answered", { name: file.name, answers: answer });
        else this.fault = answer.detail;
      } catch (error) {
        this.fault = `The dashboard does not answer: ${error.message}`;
      } finally {
        this.busy = false;
      }
    },
  },
};
