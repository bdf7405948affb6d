// Where defects count, drawn on the image of a part, and from which size on.

import { getInspection, listInspections, listRevisions, Problem, reviseRecipe } from '../api.js';
import { element, fill } from '../element.js';
import { attempt, showDone } from '../notices.js';
import { Picture } from '../picture.js';
import { askReason } from '../reason.js';
import { numberText, t, timeText } from '../texts.js';

const NUMBERS = { mm_per_pixel: 'mm per pixel', smallest_mm2: 'smallest region that counts, mm²', number: 'number by which a PLC selects it' };
const EMPTY = { counted: [], ignored: [], mm_per_pixel: null, smallest_mm2: null, number: null, product: null, sampled: 0.02, reference: null };

export async function open(place, shell) {
  let view = null;
  await attempt(t('Recipe'), async () => {
    const revisions = await listRevisions(shell.recipe);
    view = new Recipe(place, shell, revisions);
    await view.begin();
  });
  const onKey = (event) => view?.onKey(event);
  document.addEventListener('keydown', onKey);
  return () => document.removeEventListener('keydown', onKey);
}

class Recipe {
  constructor(place, shell, revisions) {
    this.place = place;
    this.shell = shell;
    this.revisions = revisions;
    this.settings = structuredClone(revisions[0]?.settings ?? EMPTY);
    this.kind = 'counted';
    this.undone = [];
  }

  async begin() {
    const item = await this.reference();
    const stage = element('div', { id: 'stage', 'aria-label': t('Image of the part') });
    this.picture = new Picture(stage, { onDraw: (_, corners) => this.add(corners), onCorners: () => this.drawTools() });
    this.tools = element('div', { class: 'tools', role: 'toolbar' });
    this.fields = element('div', { class: 'fields' });
    this.list = element('ol', { class: 'revisions' });
    this.save = element('button', { type: 'button', class: 'primary', onclick: () => this.keep() }, t('Use these'));
    fill(this.place,
      element('div', { class: 'work' },
        item ? stage : element('p', { class: 'empty' }, t('Inspect a part first: areas are drawn on its image.')),
        item && this.tools),
      element('aside', {}, element('h2', {}, t('Settings of {recipe}', { recipe: this.shell.recipe })), this.fields,
        element('p', { class: 'buttons' }, this.save), element('h2', {}, t('Revisions')), this.list));
    if (item) {
      this.item = item;
      this.settings.reference = item.id;
      this.areas = element('svg', { class: 'areas', viewBox: `0 0 ${item.width} ${item.height}`, 'aria-hidden': 'true' });
      this.picture.show(item);
      this.picture.setOpacity(0);
      this.picture.setMarks(false);
      this.picture.sheet.append(this.areas);
    }
    this.choose('polygon', 'counted');
    this.drawFields();
    this.drawRevisions();
  }

  async reference() {
    const id = this.settings.reference;
    try {
      if (id) return await getInspection(id);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404) throw error; // it names nothing here
    }
    const page = await listInspections({ recipe: this.shell.recipe, limit: 1 });
    return page.items[0] ?? null;
  }

  choose(tool, kind = this.kind) {
    this.tool = tool;
    this.kind = kind;
    this.picture.setTool(tool);
    this.drawTools();
  }

  add(corners) {
    const { width, height } = this.item;
    this.settings[this.kind].push(corners.map(([x, y]) => [x / width, y / height]));
    this.undone.push(this.kind);
    this.drawTools();
  }

  /** Of a polygon that is open, its last corner; else the last area. */
  undo() {
    if (this.picture.undoCorner() || !this.undone.length) return;
    this.settings[this.undone.pop()].pop();
    this.drawTools();
  }

  onKey({ target, key, ctrlKey, metaKey, altKey }) {
    if (document.querySelector('dialog[open]') || target.matches('input, select, textarea, button, a') || ctrlKey || metaKey || altKey) return;
    const act = { Enter: () => this.picture.close(), Escape: () => this.picture.cancel(), z: () => this.undo() }[key];
    if (act && this.item) act();
  }

  drawTools() {
    const { counted, ignored } = this.settings;
    const tool = (name, title) => element('button', { type: 'button', class: 'tool', 'aria-pressed': String(this.tool === name), onclick: () => this.choose(name) }, title);
    const kind = (name, title) => element('button', { type: 'button', class: `kind ${name}`, 'aria-pressed': String(this.kind === name), onclick: () => this.choose(this.tool, name) }, title);
    fill(this.tools,
      kind('counted', t('Only here defects count')), kind('ignored', t('Ignore this area')),
      tool('polygon', t('Polygon')), tool('box', t('Box')), tool('move', t('Move')),
      element('button', { type: 'button', disabled: !this.undone.length && !this.picture.corners.length, onclick: () => this.undo() }, t('Undo')),
      element('button', { type: 'button', disabled: !counted.length && !ignored.length, onclick: () => this.clear() }, t('The whole image counts')),
      this.tool === 'polygon' && element('span', { class: 'quiet' }, t('A click for each corner; the first one again, or Enter, closes it.')));
    if (this.areas) fill(this.areas, ['counted', 'ignored'].flatMap((name) => this.settings[name].map((polygon) => element('polygon', { class: name, points: polygon.map(([x, y]) => `${x * this.item.width},${y * this.item.height}`).join(' ') }))));
  }

  clear() {
    Object.assign(this.settings, { counted: [], ignored: [] });
    this.undone = [];
    this.drawTools();
  }

  drawFields() {
    const set = (name, read) => ({ target }) => { this.settings[name] = target.value.trim() === '' ? null : read(target.value.trim()); };
    fill(this.fields,
      Object.entries(NUMBERS).map(([name, title]) => element('label', {}, t(title), element('input', { type: 'number', step: name === 'number' ? 1 : 'any', min: 0, value: this.settings[name] ?? '', onchange: set(name, Number) }))),
      element('label', {}, t('product of which it is a view'), element('input', { maxLength: 200, value: this.settings.product ?? '', onchange: set('product', String) })),
      element('label', {}, t('passed parts that are shown for review, %'), element('input', { type: 'number', min: 0, max: 100, step: 'any', value: numberText(100 * this.settings.sampled), onchange: ({ target }) => { this.settings.sampled = Number(target.value) / 100; } })));
  }

  async keep() {
    const wrong = [...this.fields.querySelectorAll('input')].find((input) => !input.checkValidity());
    if (wrong) return void wrong.reportValidity();
    this.picture.close();
    const why = await askReason(this.shell, t('Use these'), t('From the next part on; nothing is retrained.'));
    if (!why) return;
    await attempt(t('Recipe'), async () => {
      await reviseRecipe(this.shell.recipe, { settings: this.settings, ...why });
      this.revisions = await listRevisions(this.shell.recipe);
      this.undone = [];
      this.drawRevisions();
      showDone(t('The recipe holds from the next part on.'));
    });
  }

  drawRevisions() {
    fill(this.list, this.revisions.length ? this.revisions.map((one, index) => element('li', {},
      element('b', {}, t('revision {n}', { n: one.number })),
      element('span', {}, t('by {by}, {time}: {reason}', { by: one.by, time: timeText(one.creation_time), reason: one.reason })),
      index > 0 && element('button', { type: 'button', onclick: () => this.back(one) }, t('Back to these'))))
      : element('li', { class: 'quiet' }, t('None yet: the whole image counts.')));
  }

  back(revision) {
    this.settings = { ...structuredClone(revision.settings), reference: this.item?.id ?? null };
    this.undone = [];
    this.drawTools();
    this.drawFields();
  }
}
