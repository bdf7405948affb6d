// Drawing a mask on a picture: tools, undo by stroke, and a draft that is kept while it is drawn.

import { getDraft, getMask, keepDraft, removeDraft } from './api.js';
import { element, fill, setText } from './element.js';
import { Mask } from './mask.js';
import { attempt } from './notices.js';
import { t } from './texts.js';

const QUIET_MS = 300;
export const TOOLS = { move: ['Move', 'm'], brush: ['Brush', 'b'], eraser: ['Eraser', 'e'], polygon: ['Polygon', 'p'], box: ['Box', 'r'] };
const SIZES = [1, 2, 4, 8, 16, 32, 64];

export class Drawing {
  /** On a Picture, whose `onDraw` must call `draw`; the tools are shown in `bar`. */
  constructor(picture, bar, operator) {
    this.picture = picture;
    this.bar = bar;
    this.operator = operator;
    this.tool = 'move';
    this.size = 8;
    this.mask = null;
    this.state = '';
    this.saving = Promise.resolve();
    this.#build();
    this.drawBar();
  }

  /** Begin with what there is of an inspection: a mask that comes back, the operator's draft, or the
   * mask of its label. */
  async begin(item, back = null) {
    await this.flush();
    this.item = item;
    this.mask = null;
    this.changed = false;
    this.state = '';
    this.choose('move');
    if (back) {
      this.mask = back;
      this.#hasChanged();
      return;
    }
    await attempt(t('Mask'), async () => {
      const operator = this.operator();
      const draft = operator ? await getDraft(item.id, operator) : null;
      const png = draft ?? await getMask(item.feedback);
      if (png && this.item === item) this.take(await Mask.read(png, item.width, item.height));
    });
    this.drawBar();
  }

  take(mask) {
    this.mask = mask;
    mask.paint(this.picture.canvas);
    this.drawBar();
  }

  choose(tool) {
    this.tool = tool;
    const drawn = { move: 'move', brush: 'line', eraser: 'line', polygon: 'polygon', box: 'box' };
    this.picture.setTool(drawn[tool]);
    this.drawBar();
  }

  resize(step) {
    const index = SIZES.indexOf(this.size) + step;
    this.size = SIZES[Math.min(SIZES.length - 1, Math.max(0, index))];
    this.drawBar();
  }

  draw(kind, what) {
    const mask = this.mask ??= new Mask(this.item.width, this.item.height);
    if (kind === 'line') {
      const [x0, y0, x1, y1, phase] = what;
      if (phase === 'begin') mask.begin();
      if (phase !== 'end') mask.line(x0, y0, x1, y1, this.size / 2, this.tool === 'eraser' ? 0 : 1);
      if (phase === 'end') mask.end();
      mask.paint(this.picture.canvas);
      if (phase !== 'end') return;
    } else {
      mask.begin();
      if (kind === 'box') mask.box(...what[0], ...what[2]);
      else mask.polygon(what);
      mask.end();
    }
    this.#hasChanged();
  }

  /** Of a polygon that is open, its last corner; else the last stroke. */
  undo() {
    if (!this.picture.undoCorner()) this.#change((mask) => mask.undo());
  }

  redo() {
    this.#change((mask) => mask.redo());
  }

  clear() {
    this.#change((mask) => {
      mask.begin();
      mask.clear();
      mask.end();
    });
  }

  get canUndo() {
    return Boolean(this.mask?.canUndo);
  }

  /** The mask as base64 PNG; null where nothing is marked. */
  async encoded() {
    if (!this.mask?.any) return null;
    const bytes = new Uint8Array(await (await this.mask.write()).arrayBuffer());
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(text);
  }

  /** Keep the draft now rather than soon. */
  async flush() {
    clearTimeout(this.timer);
    if (this.changed) this.#save();
    await this.saving;
  }

  /** It has gone into a label, which is kept. */
  forget() {
    clearTimeout(this.timer);
    this.changed = false;
  }

  /** The bar's buttons; made once, so that the focus stays where it is. */
  #build() {
    const button = (title, key, act) => element('button', { type: 'button', onclick: act }, t(title), ...(key ? [' ', element('kbd', {}, key)] : []));
    this.tools = Object.entries(TOOLS).map(([tool, [title, key]]) => element('button', {
      type: 'button', class: 'tool', 'aria-keyshortcuts': key, data: { tool }, onclick: () => this.choose(tool),
    }, t(title), ' ', element('kbd', {}, key)));
    this.close = button('Close polygon', '⏎', () => this.picture.close());
    this.width = element('output', { 'aria-label': t('Brush in pixels') });
    this.back = button('Undo', 'z', () => this.undo());
    this.forth = button('Redo', 'y', () => this.redo());
    this.none = button('Clear', '', () => this.clear());
    this.saved = element('span', { class: 'saved', role: 'status' });
    fill(this.bar, this.tools, this.close,
      element('span', { class: 'size' },
        element('button', { type: 'button', 'aria-label': t('Smaller'), onclick: () => this.resize(-1) }, '−'), this.width,
        element('button', { type: 'button', 'aria-label': t('Larger'), onclick: () => this.resize(1) }, '+')),
      this.back, this.forth, this.none, this.saved);
  }

  drawBar() {
    const { mask } = this;
    const corners = this.picture.corners.length;
    for (const one of this.tools) one.setAttribute('aria-pressed', String(one.dataset.tool === this.tool));
    // Nothing comes or goes while a polygon is drawn: the picture would move below the pen.
    this.close.hidden = this.tool !== 'polygon';
    this.close.disabled = corners < 3;
    setText(this.width, `${this.size} px`);
    this.back.disabled = !mask?.canUndo && !corners;
    this.forth.disabled = !mask?.canRedo;
    this.none.disabled = !mask?.any;
    setText(this.saved, this.state);
  }

  #change(change) {
    if (!this.mask) return;
    change(this.mask);
    this.#hasChanged();
  }

  #hasChanged() {
    this.mask.paint(this.picture.canvas);
    this.changed = true;
    this.state = '';
    this.drawBar();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#save(), QUIET_MS);
  }

  #save() {
    const { item, mask } = this;
    const operator = this.operator();
    if (!operator) return; // who draws is asked for with the label
    this.changed = false;
    this.saving = this.saving.then(async () => {
      const png = mask.any ? await mask.write() : null;
      const kept = await attempt(t('Mask'), () => (png ? keepDraft(item.id, operator, png) : removeDraft(item.id, operator)));
      if (this.item !== item || this.changed) return;
      this.state = kept ? t('mask kept') : '';
      this.drawBar();
    });
  }
}
