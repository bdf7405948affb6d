// Where the lines are drawn: raw scores of parts, by label, and what the lines would do to them.

import { countScores, foreseeThresholds, listThresholds, setThresholds } from '../api.js';
import { element, fill, verdictMark } from '../element.js';
import { attempt, showDone } from '../notices.js';
import { askReason } from '../reason.js';
import { countText, numberText, rateText, rejects, t, thresholdsText, timeText } from '../texts.js';

const WIDTH = 1000;
const HEIGHT = 320;
const GROUPS = ['ng', 'ok', 'unlabelled'];
const LEGEND = { ng: 'labelled ng', ok: 'labelled ok', unlabelled: 'without a label' };

export async function open(place, shell) {
  await attempt(t('Thresholds'), async () => {
    const view = new Thresholds(place, shell, await countScores(shell.recipe));
    await view.begin();
  });
}

class Thresholds {
  constructor(place, shell, scores) {
    this.place = place;
    this.shell = shell;
    this.scores = scores;
    this.lines = { ...scores.thresholds };
    [this.low] = scores.edges;
    this.high = scores.edges.at(-1);
    const room = 0.05 * (this.high - this.low);
    this.low -= room;
    this.high += room;
  }

  async begin() {
    this.outcome = element('dl', { class: 'outcome' });
    this.caution = element('div', {});
    this.revisions = element('ol', { class: 'revisions' });
    this.fields = Object.fromEntries(['review', 'ng'].map((name) => [name, element('input', {
      type: 'number', step: 'any', 'aria-label': t(name), onchange: ({ target }) => this.type(name, target.value),
    })]));
    this.save = element('button', { type: 'button', class: 'primary', onclick: () => this.keep() }, t('Use these'));
    this.back = element('button', { type: 'button', onclick: () => this.set(this.scores.thresholds) }, t('Back to those in force'));
    this.chart = this.draw();
    fill(this.place,
      element('section', { class: 'panel' },
        element('h2', {}, t('Scores of {recipe}, version {version}', { recipe: this.shell.recipe, version: this.scores.bundle_version })),
        this.chart,
        element('p', { class: 'legend' }, GROUPS.map((name) => element('span', { class: name }, t(LEGEND[name])))),
        element('div', { class: 'lines' },
          element('label', {}, verdictMark('review', t('review from')), this.fields.review),
          element('label', {}, verdictMark('ng', t('ng from')), this.fields.ng),
          this.save, this.back,
          element('button', { type: 'button', onclick: () => this.set(this.scores.trained) }, t('As the model came with')))),
      element('aside', {}, element('h2', {}, t('What they would do')), element('div', { role: 'status' }, this.outcome, this.caution),
        element('h2', {}, t('Revisions')), this.revisions));
    this.set(this.lines);
    await this.listRevisions();
  }

  set({ review, ng }) {
    this.lines = { review, ng };
    this.placeLines();
    this.foresee();
  }

  /** What is typed takes the other line along; what is no number changes nothing. */
  type(name, text) {
    const value = Number(text);
    const { review, ng } = this.lines;
    if (text.trim() === '' || !Number.isFinite(value)) this.placeLines();
    else this.set(name === 'review' ? { review: value, ng: Math.max(value, ng) } : { ng: value, review: Math.min(value, review) });
  }

  /** A line that is dragged stops at the other one. */
  move(name, value) {
    const { review, ng } = this.lines;
    this.set(name === 'review' ? { review: Math.min(value, ng), ng } : { review, ng: Math.max(value, review) });
  }

  draw() {
    const { edges } = this.scores;
    const most = Math.max(1, ...edges.slice(1).map((_, i) => GROUPS.reduce((sum, name) => sum + this.scores[name][i], 0)));
    // A few defects beside thousands of good parts must still be seen.
    const up = (count) => (count ? (HEIGHT - 30) * Math.sqrt(count / most) : 0);
    const bars = edges.slice(1).flatMap((edge, i) => {
      const [from, to] = [this.x(edges[i]), this.x(edge)];
      let below = 0;
      return GROUPS.map((name) => {
        const count = this.scores[name][i];
        const [start, end] = [up(below), up(below + count)];
        below += count;
        return count ? element('rect', { class: name, x: from, width: Math.max(1, to - from - 1), y: HEIGHT - end, height: end - start },
          element('title', {}, `${numberText(edges[i])} – ${numberText(edge)}: ${count}`)) : null;
      });
    });
    this.handles = Object.fromEntries(['review', 'ng'].map((name) => [name, this.handle(name)]));
    this.areas = Object.fromEntries(['ok', 'review', 'ng'].map((name) => [name, element('rect', { class: `area ${name}`, y: 0, height: HEIGHT })]));
    return element('svg', { class: 'histogram', viewBox: `0 0 ${WIDTH} ${HEIGHT + 26}`, role: 'group', 'aria-label': t('Histogram of raw scores') },
      Object.values(this.areas), bars, Object.values(this.handles), this.axis());
  }

  axis() {
    const step = niceStep((this.high - this.low) / 8);
    const ticks = [];
    for (let value = Math.ceil(this.low / step) * step; value < this.high; value += step) {
      ticks.push(element('text', { x: this.x(value), y: HEIGHT + 20, 'text-anchor': 'middle' }, numberText(Number(value.toPrecision(6)))));
    }
    return ticks;
  }

  handle(name) {
    const handle = element('g', {
      class: `handle ${name}`, tabindex: 0, role: 'slider', 'aria-label': t(`${name} from`), 'aria-valuemin': this.low, 'aria-valuemax': this.high,
    },
      element('line', { y1: 0, y2: HEIGHT }),
      element('rect', { class: 'grip', x: -22, y: 0, width: 44, height: HEIGHT }),
      element('polygon', { points: '-9,0 9,0 0,14' }));
    handle.addEventListener('pointerdown', (event) => {
      handle.setPointerCapture(event.pointerId);
      const drag = (moved) => this.move(name, this.valueAt(moved));
      handle.addEventListener('pointermove', drag);
      handle.addEventListener('pointerup', () => handle.removeEventListener('pointermove', drag), { once: true });
    });
    handle.addEventListener('keydown', ({ key }) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[key];
      if (step) this.move(name, Math.min(this.lines[name], this.high) + (step * (this.high - this.low)) / 500);
    });
    return handle;
  }

  placeLines() {
    const { review, ng } = this.lines;
    for (const name of ['review', 'ng']) {
      const value = this.lines[name];
      const reached = rejects(value);
      this.fields[name].value = reached ? Number(value.toPrecision(6)) : '';
      this.fields[name].placeholder = reached ? '' : t('never');
      this.handles[name].setAttribute('transform', `translate(${this.x(value)} 0)`);
      this.handles[name].setAttribute('aria-valuenow', Math.min(value, this.high));
      this.handles[name].setAttribute('aria-valuetext', reached ? numberText(value) : t('never'));
    }
    const span = (name, from, to) => {
      this.areas[name].setAttribute('x', from);
      this.areas[name].setAttribute('width', Math.max(0, to - from));
    };
    span('ok', 0, this.x(review));
    span('review', this.x(review), this.x(ng));
    span('ng', this.x(ng), WIDTH);
    const { thresholds } = this.scores;
    const same = thresholds.review === review && thresholds.ng === ng;
    this.save.disabled = same;
    this.back.disabled = same;
  }

  /** Ask what they would do; of many askings while a line is dragged, the last one counts. */
  async foresee() {
    this.wanted = this.lines;
    if (this.asking) return;
    this.asking = true;
    await attempt(t('Thresholds'), async () => {
      let asked;
      do {
        asked = this.wanted;
        this.show(await foreseeThresholds(this.shell.recipe, asked));
      } while (asked !== this.wanted);
    });
    this.asking = false;
  }

  show(found) {
    const rows = [
      [t('False rejects: good parts that are rejected'), rateText(found.rejected)],
      [t('Good parts that are sent to review'), rateText(found.reviewed)],
      [t('Escapes: defective parts that pass'), rateText(found.escaped)],
      [t('Parts without a label'), t('{ok} pass, {review} to review, {ng} rejected', {
        ok: countText(found.unlabelled_ok), review: countText(found.unlabelled_review), ng: countText(found.unlabelled_ng),
      })],
    ];
    fill(this.outcome, rows.map(([title, value]) => element('div', {}, element('dt', {}, title), element('dd', {}, value))));
    fill(this.caution,
      element('p', { class: 'quiet' }, t('Of the last parts that this model saw. People label what is near to a line first, so labelled parts are harder than all parts are.')));
  }

  async keep() {
    const decided = await askReason(this.shell, t('Use these'), t('From the next part on; nothing is retrained.'));
    if (!decided) return;
    await attempt(t('Thresholds'), async () => {
      await setThresholds(this.shell.recipe, { ...this.lines, bundle_version: this.scores.bundle_version, ...decided });
      this.scores.thresholds = { ...this.lines };
      this.placeLines();
      showDone(t('The new lines hold from the next part on.'));
      await this.listRevisions();
    });
  }

  async listRevisions() {
    const found = await listThresholds(this.shell.recipe);
    fill(this.revisions, found.length ? found.map((one, index) => element('li', {},
      element('b', {}, thresholdsText(one)),
      element('span', {}, t('by {by}, {time}: {reason}', { by: one.by, time: timeText(one.creation_time), reason: one.reason })),
      one.bundle_version === this.scores.bundle_version
        ? index > 0 && element('button', { type: 'button', onclick: () => this.set(one) }, t('Back to these'))
        : element('span', { class: 'quiet' }, t('of version {version}', { version: one.bundle_version }))))
      : element('li', { class: 'quiet' }, t('None yet: those that the model came with are in force.')));
  }

  /** Where a score stands; one that lies beyond stands at the edge. */
  x(value) {
    const share = (value - this.low) / (this.high - this.low);
    return WIDTH * Math.min(1, Math.max(0, share));
  }

  valueAt(event) {
    const { left, width } = this.chart.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    return this.low + share * (this.high - this.low);
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}
