// An image as large as it gets: zoom and pan, the heatmap over it, its regions, and what is drawn.

import { whyUnseen } from './api.js';
import { element, fill } from './element.js';
import { t } from './texts.js';

const MOST_ZOOM = 40;
const STEP = 1.25;
const CLOSE_PX = 24; // a finger's

/** Fetch an inspection's pictures ahead, so that they are there when they are wanted. */
export function prefetch(item) {
  return [item.image, overlayOf(item)].map((address) => {
    const image = new Image();
    image.src = address;
    return image;
  });
}

const overlayOf = (item) => `${item.heatmap}?format=overlay`;

export class Picture {
  /** In an empty element. `onDraw` is told of each stroke: ('line', [x0, y0, x1, y1, phase]),
   * ('box', corners) or ('polygon', corners), in pixels of the image; `onCorners` of each change of
   * a polygon that is not closed yet. */
  constructor(stage, { onDraw = () => {}, onCorners = () => {} } = {}) {
    this.stage = stage;
    this.onDraw = onDraw;
    this.onCorners = onCorners;
    this.tool = 'move';
    this.item = null;
    this.view = { x: 0, y: 0, scale: 1 };
    this.fitted = true;
    this.pointers = new Map();
    this.corners = [];
    this.canvas = element('canvas', { class: 'mask' });
    this.marks = element('svg', { class: 'marks', 'aria-hidden': 'true' });
    this.pencil = element('svg', { class: 'pencil', 'aria-hidden': 'true' });
    this.sheet = element('div', { class: 'sheet' });
    stage.classList.add('stage');
    stage.replaceChildren(this.sheet);
    this.#listen();
    new ResizeObserver(() => this.#resized()).observe(stage);
  }

  /** Show an inspection; nothing of the one before remains. */
  show(item) {
    this.item = item;
    this.cancel();
    const { width, height } = item;
    const image = this.#layer('image', item.image, t('Image of the part'));
    const overlay = this.#layer('overlay', overlayOf(item), t('Heatmap over the image'));
    overlay.style.opacity = this.opacity ?? 0.6;
    this.canvas.width = width;
    this.canvas.height = height;
    for (const svg of [this.marks, this.pencil]) svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    fill(this.marks, item.regions.map(({ box }) => element('rect', box)));
    fill(this.sheet, image, overlay, this.canvas, this.marks, this.pencil);
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    this.fit();
    return image.decode().catch(() => {}); // its error event has said so already
  }

  /** How much of the heatmap is seen, 0 to 1. */
  setOpacity(opacity) {
    this.opacity = opacity;
    const overlay = this.sheet.querySelector('.overlay');
    if (overlay) overlay.style.opacity = opacity;
  }

  setMarks(shown) {
    this.sheet.classList.toggle('unmarked', !shown);
  }

  /** `move`, `line`, `box` or `polygon`. */
  setTool(tool) {
    this.cancel();
    this.tool = tool;
    this.stage.dataset.tool = tool;
  }

  fit() {
    if (!this.item) return;
    const { clientWidth, clientHeight } = this.stage;
    const scale = Math.min(clientWidth / this.item.width, clientHeight / this.item.height) || 1;
    const x = (clientWidth - scale * this.item.width) / 2;
    const y = (clientHeight - scale * this.item.height) / 2;
    this.#place({ x, y, scale });
    this.fitted = true;
  }

  /** Zoom by a factor, around a point of the stage or its middle. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(MOST_ZOOM, Math.max(0.02, this.view.scale * factor));
    const ratio = scale / this.view.scale;
    this.#place({ scale, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio });
  }

  zoomIn() {
    this.zoom(STEP);
  }

  zoomOut() {
    this.zoom(1 / STEP);
  }

  /** End a polygon that was begun. */
  close() {
    const { corners } = this;
    this.cancel();
    if (corners.length >= 3) this.onDraw('polygon', corners);
  }

  /** Take the last corner of an open polygon back; whether there was one. */
  undoCorner() {
    if (!this.corners.length) return false;
    this.corners.pop();
    this.#sketch(this.corners);
    this.onCorners();
    return true;
  }

  /** Leave what was begun. */
  cancel() {
    const open = this.corners.length > 0;
    this.corners = [];
    this.start = null;
    fill(this.pencil);
    if (open) this.onCorners();
  }

  #layer(name, address, alt) {
    const image = new Image(this.item.width, this.item.height);
    image.className = name;
    image.alt = alt;
    image.draggable = false;
    image.addEventListener('error', () => this.#explain(image, address));
    image.src = address;
    return image;
  }

  async #explain(image, address) {
    const reason = await whyUnseen(address);
    if (!image.isConnected) return;
    image.replaceWith(element('p', { class: 'unseen' }, reason));
    if (image.className === 'image') this.setOpacity(1);
  }

  /** What was zoomed into stays; below a pen or a finger nothing moves until it is lifted. */
  #resized() {
    if (this.fitted && !this.pointers.size) this.fit();
  }

  #place(view) {
    this.view = view;
    this.fitted = false;
    this.sheet.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    this.sheet.classList.toggle('pixels', view.scale > 3);
  }

  #listen() {
    const { stage } = this;
    stage.addEventListener('wheel', (event) => {
      event.preventDefault();
      const { x, y } = this.#onStage(event);
      this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, x, y);
    }, { passive: false });
    stage.addEventListener('pointerdown', (event) => this.#down(event));
    stage.addEventListener('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel']) stage.addEventListener(name, (event) => this.#up(event));
    stage.addEventListener('dblclick', () => (this.tool === 'polygon' ? this.close() : this.tool === 'move' && this.fit()));
    stage.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  #down(event) {
    if (!this.item) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#onStage(event));
    const moving = this.tool === 'move' || event.button !== 0 || this.pointers.size > 1;
    this.moving = moving;
    if (moving) return;
    const at = this.#onImage(event);
    if (this.tool === 'line') {
      this.start = at;
      this.onDraw('line', [...at, ...at, 'begin']);
    } else if (this.tool === 'box') {
      this.start = at;
    } else if (this.tool === 'polygon') {
      this.#addCorner(at);
    }
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (this.tool === 'polygon' && this.corners.length) this.#sketch([...this.corners, this.#onImage(event)]);
      return;
    }
    const now = this.#onStage(event);
    if (this.moving) this.#pan(event.pointerId, before, now);
    else if (this.tool === 'line' && this.start) this.#follow(event);
    else if (this.tool === 'box' && this.start) this.#sketch(cornersOf(this.start, this.#onImage(event)));
    this.pointers.set(event.pointerId, now);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (!this.moving) this.#end(event);
    this.#resized();
  }

  #end(event) {
    if (this.tool === 'line' && this.start) {
      this.onDraw('line', [...this.start, ...this.start, 'end']);
      this.start = null;
    } else if (this.tool === 'box' && this.start) {
      const corners = cornersOf(this.start, this.#onImage(event));
      this.cancel();
      if (event.type === 'pointerup') this.onDraw('box', corners);
    }
  }

  #pan(id, before, now) {
    const others = [...this.pointers].filter(([other]) => other !== id).map(([, at]) => at);
    if (others.length === 1) { // two fingers
      const [other] = others;
      const ratio = distance(other, now) / (distance(other, before) || 1);
      this.zoom(ratio, (other.x + now.x) / 2, (other.y + now.y) / 2);
    }
    const share = others.length === 1 ? 0.5 : 1;
    const { x, y, scale } = this.view;
    this.#place({ scale, x: x + share * (now.x - before.x), y: y + share * (now.y - before.y) });
  }

  #follow(event) {
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) {
      const at = this.#onImage(one);
      this.onDraw('line', [...this.start, ...at, 'go']);
      this.start = at;
    }
  }

  #addCorner(at) {
    const [first] = this.corners;
    const near = first && this.corners.length >= 3
      && Math.hypot(at[0] - first[0], at[1] - first[1]) * this.view.scale < CLOSE_PX;
    const last = this.corners.at(-1);
    if (near) this.close();
    else if (!last || last[0] !== at[0] || last[1] !== at[1]) {
      this.corners.push(at);
      this.#sketch(this.corners);
      this.onCorners();
    }
  }

  #sketch(corners) {
    const [first] = this.corners;
    fill(this.pencil,
      element('polygon', { points: corners.map((at) => at.join(',')).join(' ') }),
      first && element('circle', { cx: first[0], cy: first[1], r: 7 / this.view.scale }));
  }

  #onStage(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  #onImage(event) {
    const { x, y } = this.#onStage(event);
    const within = (value, most) => Math.min(most, Math.max(0, value));
    return [
      within((x - this.view.x) / this.view.scale, this.item.width),
      within((y - this.view.y) / this.view.scale, this.item.height),
    ];
  }
}

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
const cornersOf = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
