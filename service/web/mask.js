// A mask while it is drawn: a byte for each pixel of the image, 1 where the part is defective.
// Everything is drawn without soft edges, so that what is saved is what was seen.

const MOST_UNDONE = 200;
const TINT = [0, 190, 255, 150];

export class Mask {
  /** Nothing marked, of an image of so many pixels. */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.marked = new Uint8Array(width * height);
    this.done = [];
    this.undone = [];
    this.before = null;
  }

  /** One from a PNG of the same size, white where it is marked. */
  static async read(blob, width, height) {
    const mask = new Mask(width, height);
    const image = await createImageBitmap(blob);
    const context = canvasOf(width, height).getContext('2d', { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    for (let i = 0; i < mask.marked.length; i += 1) mask.marked[i] = data[4 * i] > 127 ? 1 : 0;
    return mask;
  }

  get any() {
    return this.marked.includes(1);
  }

  get canUndo() {
    return this.done.length > 0;
  }

  get canRedo() {
    return this.undone.length > 0;
  }

  /** As a PNG: white on black. */
  async write() {
    const canvas = canvasOf(this.width, this.height);
    const pixels = new ImageData(this.width, this.height);
    for (let i = 0; i < this.marked.length; i += 1) {
      const value = this.marked[i] ? 255 : 0;
      pixels.data.set([value, value, value, 255], 4 * i);
    }
    canvas.getContext('2d').putImageData(pixels, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  }

  /** What follows until `end` is one stroke, undone as one. */
  begin() {
    this.before = this.marked.slice();
  }

  end() {
    const patch = this.#difference(this.before);
    this.before = null;
    if (patch === null) return;
    this.done.push(patch);
    if (this.done.length > MOST_UNDONE) this.done.shift();
    this.undone = [];
  }

  undo() {
    this.#apply(this.done, this.undone, 'before');
  }

  redo() {
    this.#apply(this.undone, this.done, 'after');
  }

  /** Mark, or with 0 unmark, a thick line; a point where both ends are the same. */
  line(x0, y0, x1, y1, radius, value) {
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(0.5, radius / 3)));
    for (let step = 0; step <= steps; step += 1) {
      this.#disc(x0 + ((x1 - x0) * step) / steps, y0 + ((y1 - y0) * step) / steps, radius, value);
    }
  }

  /** All pixels that the rectangle between two corners touches. */
  box(x0, y0, x1, y1, value = 1) {
    const left = Math.floor(Math.min(x0, x1));
    const right = Math.ceil(Math.max(x0, x1));
    const bottom = Math.ceil(Math.max(y0, y1));
    for (let y = Math.floor(Math.min(y0, y1)); y < bottom; y += 1) this.#row(y, left, right, value);
  }

  /** The pixels whose centres lie within. */
  polygon(corners, value = 1) {
    const rows = corners.map(([, y]) => y);
    for (let y = Math.floor(Math.min(...rows)); y <= Math.ceil(Math.max(...rows)); y += 1) {
      const crossings = crossingsAt(corners, y + 0.5);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        this.#row(y, Math.ceil(crossings[i] - 0.5), Math.ceil(crossings[i + 1] - 0.5), value);
      }
    }
  }

  clear() {
    this.marked.fill(0);
  }

  /** Show it on a canvas of the image's size. */
  paint(canvas) {
    const pixels = new ImageData(this.width, this.height);
    for (let i = 0; i < this.marked.length; i += 1) if (this.marked[i]) pixels.data.set(TINT, 4 * i);
    canvas.getContext('2d').putImageData(pixels, 0, 0);
  }

  #disc(cx, cy, radius, value) {
    for (let y = Math.floor(cy - radius); y <= Math.ceil(cy + radius); y += 1) {
      const across = radius ** 2 - (y + 0.5 - cy) ** 2;
      if (across < 0) continue;
      const half = Math.sqrt(across);
      this.#row(y, Math.ceil(cx - half - 0.5), Math.floor(cx + half - 0.5) + 1, value);
    }
    this.#row(Math.floor(cy), Math.floor(cx), Math.floor(cx) + 1, value); // at least where it points
  }

  #row(y, from, to, value) {
    if (y < 0 || y >= this.height) return;
    const start = Math.max(0, from);
    const end = Math.min(this.width, to);
    if (end > start) this.marked.fill(value, y * this.width + start, y * this.width + end);
  }

  #difference(before) {
    const { width, marked } = this;
    let [left, top, right, bottom] = [width, this.height, -1, -1];
    for (let i = 0; i < marked.length; i += 1) {
      if (marked[i] === before[i]) continue;
      const x = i % width;
      const y = (i - x) / width;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
    if (right < 0) return null;
    const cut = (from) => {
      const size = right - left + 1;
      const part = new Uint8Array(size * (bottom - top + 1));
      for (let y = top; y <= bottom; y += 1) {
        part.set(from.subarray(y * width + left, y * width + right + 1), (y - top) * size);
      }
      return part;
    };
    return { left, top, size: right - left + 1, before: cut(before), after: cut(marked) };
  }

  #apply(from, to, which) {
    const patch = from.pop();
    if (!patch) return;
    const part = patch[which];
    for (let start = 0; start < part.length; start += patch.size) {
      const y = patch.top + start / patch.size;
      this.marked.set(part.subarray(start, start + patch.size), y * this.width + patch.left);
    }
    to.push(patch);
  }
}

function canvasOf(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function crossingsAt(corners, y) {
  const found = [];
  corners.forEach(([x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    if (y1 <= y !== y2 <= y) found.push(x1 + ((y - y1) / (y2 - y1)) * (x2 - x1));
  });
  return found.sort((a, b) => a - b);
}
