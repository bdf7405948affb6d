// The review queue: one part after the other, the most informative first, by keys alone.

import { claimReview, estimateTraining, Problem, releaseReview } from '../api.js';
import { Drawing } from '../drawing.js';
import { element, fill, setText, verdictMark } from '../element.js';
import { send, UNSENT, unsent } from '../labels.js';
import { attempt, showProblem } from '../notices.js';
import { Picture, prefetch } from '../picture.js';
import { countText, labelText, numberText, percentileText, t, timeText } from '../texts.js';

const AHEAD = 3;
const RENEW_MS = 60_000;
const UNDONE = 50;
const AGAIN_MS = 5000;
// A glove bounces: what is pressed so soon after a part has come was meant for the one before.
const BOUNCE_MS = 350;
const REASONS = {
  near: 'close to a threshold', review: 'sent to review', ng: 'rejected', sampled: 'a sample of what passed',
  candidate: 'champion and candidate disagree', unsure: 'an operator is not sure', disagreement: 'operators disagree',
};
const VERDICT_KEYS = { o: 'ok', n: 'ng', u: 'unsure' };
const TOOL_KEYS = { m: 'move', b: 'brush', e: 'eraser', p: 'polygon', r: 'box' };

const session = sessionStorage.getItem('kizu.session') ?? newSession();

function newSession() {
  const made = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  sessionStorage.setItem('kizu.session', made);
  return made;
}

export async function open(place, shell) {
  const view = new Review(place, shell);
  await view.refill();
  const onKey = (event) => view.onKey(event);
  const onHide = () => view.release();
  document.addEventListener('keydown', onKey);
  window.addEventListener('pagehide', onHide);
  const renew = setInterval(() => view.refill(), RENEW_MS);
  return () => {
    document.removeEventListener('keydown', onKey);
    window.removeEventListener('pagehide', onHide);
    clearInterval(renew);
    clearTimeout(view.again);
    view.drawing.flush();
    view.release();
  };
}

class Review {
  constructor(place, shell) {
    this.shell = shell;
    this.place = place;
    this.desk = sessionStorage.getItem('kizu.desk') ?? 'operator';
    this.entries = [];
    this.pictures = new Map();
    this.skipped = [];
    this.done = [];
    this.current = null;
    this.read = true;
    this.heat = 0.6;
    this.build(place);
  }

  build(place) {
    const stage = element('div', { id: 'stage', tabIndex: -1, 'aria-label': t('Image of the part') });
    this.bar = element('div', { class: 'tools', role: 'toolbar', 'aria-label': t('Mask') });
    this.picture = new Picture(stage, {
      onDraw: (kind, what) => this.drawing.draw(kind, what), onCorners: () => this.drawing.drawBar(),
    });
    this.drawing = new Drawing(this.picture, this.bar, () => this.shell.operator || null);
    this.head = element('div', { class: 'head' });
    this.side = element('div', { class: 'side' });
    this.classes = element('div', { class: 'classes', role: 'group', 'aria-label': t('Defect class') });
    this.defect = element('input', { maxLength: 100, placeholder: t('another defect class'), autocomplete: 'off', 'aria-label': t('Defect class') });
    this.nothing = element('p', { role: 'status' });
    this.lastBack = element('button', { type: 'button', onclick: () => this.takeBack() }, t('Take back'), ' ', element('kbd', {}, '⌫'));
    this.empty = element('div', { class: 'empty' }, this.nothing, this.lastBack);
    this.opacity = element('input', { type: 'range', min: 0, max: 1, step: 0.05, value: this.heat, 'aria-label': t('Heatmap'),
      oninput: ({ target }) => this.setHeat(Number(target.value)) });
    this.desks = element('select', { 'aria-label': t('Desk'), onchange: ({ target }) => this.chooseDesk(target.value) },
      element('option', { value: 'operator', selected: this.desk === 'operator' }, t('for operators')),
      element('option', { value: 'engineer', selected: this.desk === 'engineer' }, t('for engineers')));
    this.waiting = element('span', { class: 'waiting', role: 'status' });
    this.work = element('div', { class: 'work' },
      this.head, stage, this.bar,
      element('div', { class: 'verdicts', role: 'group', 'aria-label': t('Label') },
        ['ok', 'ng', 'unsure'].map((verdict) => element('button', {
          type: 'button', data: { verdict }, 'aria-keyshortcuts': verdict[0], onclick: () => this.label(verdict),
        }, verdictMark(verdict, t(verdict)), ' ', element('kbd', {}, verdict[0]))),
        element('button', { type: 'button', 'aria-keyshortcuts': 's', onclick: () => this.skip() }, t('Skip'), ' ', element('kbd', {}, 's')),
        this.back = element('button', { type: 'button', class: 'takeback', onclick: () => this.takeBack() }, t('Take back'), ' ', element('kbd', {}, '⌫')),
        this.last = element('span', { class: 'before', role: 'status' })));
    fill(place,
      this.work,
      element('aside', {},
        element('p', { class: 'desk' }, this.desks, ' ', this.waiting),
        element('label', {}, `${t('Heatmap')} `, this.opacity, ' ', element('kbd', {}, 'h')),
        element('div', { class: 'zoom' },
          element('button', { type: 'button', 'aria-label': t('Zoom out'), onclick: () => this.picture.zoomOut() }, '−'),
          element('button', { type: 'button', onclick: () => this.picture.fit() }, t('Fit'), ' ', element('kbd', {}, '0')),
          element('button', { type: 'button', 'aria-label': t('Zoom in'), onclick: () => this.picture.zoomIn() }, '+')),
        element('h2', {}, verdictMark('ng', t('ng because of'))), this.classes,
        element('p', { class: 'other' }, this.defect,
          element('button', { type: 'button', onclick: () => this.label('ng') }, verdictMark('ng', t('ng')), ' ', element('kbd', {}, '⏎'))),
        this.side),
      this.empty);
    this.drawEmpty();
  }

  /** Hold what is shown, and a few more. */
  async refill() {
    clearTimeout(this.again);
    this.read = await attempt(t('Review'), async () => {
      const { desk } = this;
      const skip = [...this.skipped, ...this.labelled()].slice(-500);
      const page = await claimReview({
        session, desk, count: AHEAD, skip, ...(this.shell.recipe && { recipe: this.shell.recipe }),
      });
      if (desk !== this.desk) { // it was for the desk that was left meanwhile
        await releaseReview({ session, inspections: page.items.map(({ inspection }) => inspection.id) });
        return;
      }
      // What was labelled or skipped while the answer was on its way is not shown again.
      const past = [this.current?.inspection.id, ...this.skipped, ...this.labelled()];
      this.entries = page.items.filter(({ inspection }) => !past.includes(inspection.id));
      setText(this.waiting, t('{n} waiting', { n: countText(page.waiting) }));
      for (const { inspection } of this.entries) {
        if (!this.pictures.has(inspection.id)) this.pictures.set(inspection.id, prefetch(inspection));
      }
    });
    if (!this.read) this.again = setTimeout(() => this.refill(), AGAIN_MS);
    if (!this.current) this.showNext();
  }

  /** The parts that were labelled here, at this desk. */
  labelled() {
    return this.done.filter(({ desk, answer }) => answer && desk === this.desk).map(({ item }) => item.id);
  }

  showNext() {
    const entry = this.entries.shift() ?? null;
    this.show(entry);
  }

  show(entry, mask = null) {
    this.current = entry;
    this.place.classList.add('fresh');
    clearTimeout(this.bounce);
    this.bounce = setTimeout(() => this.place.classList.remove('fresh'), BOUNCE_MS);
    this.drawEmpty();
    this.drawLast();
    if (!entry) return;
    const { inspection: item } = entry;
    this.defect.value = item.feedback?.defect_class ?? '';
    this.picture.show(item);
    this.setHeat(this.heat);
    this.drawing.begin(item, mask);
    this.drawHead(entry);
    this.drawClasses(item.recipe_id);
  }

  drawHead({ inspection: item, reason }) {
    const facts = [item.part_id && t('part {part}', { part: item.part_id }), item.camera && t('camera {camera}', { camera: item.camera }), timeText(item.creation_time)];
    fill(this.head,
      verdictMark(item.verdict, t(item.verdict)),
      element('span', { class: 'reason' }, t(REASONS[reason])),
      element('span', {}, element('b', {}, numberText(item.score)), ` ${percentileText(item.percentile)}`),
      element('span', { class: 'facts' }, facts.filter(Boolean).join(' · ')));
    fill(this.side,
      item.feedback && element('p', { class: 'said' }, t('{label} by {operator}, {time}', {
        label: labelText(item.feedback), operator: item.feedback.operator, time: timeText(item.feedback.creation_time),
      }), item.feedback.comment && ` “${item.feedback.comment}”`),
      element('p', {}, element('a', { href: `#/inspection/${item.id}` }, t('All about this inspection'))));
  }

  async drawClasses(recipe) {
    if (this.known?.recipe !== recipe) {
      this.known = { recipe, names: [] };
      await attempt(t('Defect class'), async () => {
        const { labels } = await estimateTraining(recipe, {});
        const asked = labels.map(({ defect_class: name }) => name).filter(Boolean);
        this.known.names = [...new Set([...asked, ...this.known.names])]; // some were given meanwhile
      });
    }
    const { names } = this.known;
    fill(this.classes, names.slice(0, 9).map((name, index) => element('button', {
      type: 'button', onclick: () => this.label('ng', name), 'aria-keyshortcuts': String(index + 1),
    }, name, ' ', element('kbd', {}, String(index + 1)))));
  }

  /** What was done last, which Take back would undo. */
  drawLast() {
    const last = this.done.at(-1);
    this.back.disabled = !last;
    this.lastBack.hidden = !last;
    const part = last && (last.item.part_id ?? timeText(last.item.creation_time));
    const what = last && (last.answer ? [t(last.verdict), last.defect].filter(Boolean).join(' · ') : t('skipped'));
    setText(this.last, last ? t('last: {part}, {what}', { part, what }) : '');
  }

  drawEmpty() {
    const empty = this.current === null;
    if (empty) fill(this.side);
    this.work.hidden = empty;
    this.empty.hidden = !empty;
    const nothing = !this.read ? t('The queue cannot be read: it is tried again.') : this.desk === 'engineer' ? t('Operators agree: nothing waits for an engineer.') : t('Nothing waits for review.');
    setText(this.nothing, empty ? nothing : '');
  }

  setHeat(opacity) {
    this.heat = opacity;
    this.opacity.value = opacity;
    this.picture.setOpacity(opacity);
  }

  async label(verdict, defect = this.defect.value.trim()) {
    const { current } = this;
    if (!current || this.labelling) return;
    this.labelling = true;
    const operator = await this.shell.askOperator();
    if (!operator || this.current !== current) {
      this.labelling = false;
      return;
    }
    const { inspection: item } = current;
    if (verdict === 'ng') this.picture.close(); // a polygon that is open is meant, too
    const drawn = this.drawing.mask;
    const mask = verdict === 'ng' ? await this.drawing.encoded() : null;
    this.drawing.forget();
    const label = {
      inspection_id: item.id, verdict, operator, desk: this.desk, supersedes: item.feedback?.id ?? null,
      ...(verdict === 'ng' && defect && { defect_class: defect }), ...(mask && { mask }),
    };
    if (verdict === 'ng' && defect && this.known && !this.known.names.includes(defect)) this.known.names.push(defect);
    const done = {
      item, entry: current, desk: this.desk, verdict, defect: verdict === 'ng' ? defect : '', drawn, answer: send(label),
    };
    this.done.push(done);
    if (this.done.length > UNDONE) this.done.shift();
    this.pictures.delete(item.id);
    this.labelling = false;
    this.showNext();
    this.#follow(done);
  }

  async #follow(done) {
    try {
      done.stored = await done.answer;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.retryable) this.done = this.done.filter((one) => one !== done);
      this.drawLast();
      if (error.retryable) showProblem(t('{n} labels wait to be sent', { n: unsent() }), error, null, UNSENT);
    }
    await this.refill();
  }

  /** Back to the part that was labelled or skipped last, and its label undone. */
  async takeBack() {
    const done = this.done.at(-1);
    if (!done || this.takingBack) return;
    this.takingBack = true;
    const gone = !done.answer || await this.#withdraw(done);
    this.takingBack = false;
    if (!gone) return;
    this.done = this.done.filter((one) => one !== done);
    this.skipped = this.skipped.filter((id) => id !== done.item.id);
    if (this.current) this.entries.unshift(this.current);
    this.show(done.entry, done.drawn?.any ? done.drawn : null);
  }

  async #withdraw(done) {
    const operator = await this.shell.askOperator();
    return operator && attempt(t('Take back'), async () => {
      const stored = await done.answer;
      await send({ inspection_id: done.item.id, verdict: 'withdrawn', operator, desk: this.desk, supersedes: stored.id });
    });
  }

  skip() {
    if (!this.current || this.labelling) return;
    const { inspection: item } = this.current;
    const { id } = item;
    this.done.push({ item, entry: this.current, desk: this.desk, drawn: this.drawing.mask });
    this.skipped.push(id);
    attempt(t('Skip'), () => releaseReview({ session, inspections: [id] }));
    this.showNext();
    this.refill();
  }

  async chooseDesk(desk) {
    this.desk = desk;
    sessionStorage.setItem('kizu.desk', desk);
    await this.release();
    this.current = null;
    this.entries = [];
    await this.refill();
  }

  release() {
    return attempt(t('Review'), () => releaseReview({ session }));
  }

  onKey(event) {
    const { target, key } = event;
    if (document.querySelector('dialog[open]')) return;
    if (key === 'Escape') {
      this.picture.cancel();
      document.activeElement.blur();
    }
    if (target === this.defect && key === 'Enter') return void this.label('ng');
    const typing = target.matches('input:not([type=range]), select, textarea');
    const pressing = (key === 'Enter' || key === ' ') && target.matches('button, a, summary');
    if (typing || pressing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.#act(key.length === 1 ? key.toLowerCase() : key, event.repeat)) event.preventDefault();
  }

  #act(key, repeat) {
    const { picture, drawing } = this;
    const once = (action) => {
      if (!repeat) action();
      return true;
    };
    if (VERDICT_KEYS[key]) return once(() => this.label(VERDICT_KEYS[key]));
    if (TOOL_KEYS[key]) return once(() => drawing.choose(TOOL_KEYS[key]));
    if (/^[1-9]$/.test(key)) {
      const name = this.known?.names[Number(key) - 1];
      return name ? once(() => this.label('ng', name)) : false;
    }
    const actions = {
      s: () => this.skip(), Backspace: () => this.takeBack(), z: () => drawing.undo(), y: () => drawing.redo(),
      h: () => this.setHeat(this.heat > 0 ? 0 : 0.6), ...(picture.corners.length && { Enter: () => picture.close() }),
      '[': () => drawing.resize(-1), ']': () => drawing.resize(1),
      '+': () => picture.zoomIn(), '-': () => picture.zoomOut(), 0: () => picture.fit(),
    };
    if (!actions[key]) return false;
    return once(actions[key]);
  }
}
