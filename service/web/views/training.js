// Learning from labels: which ones, what it takes, how far it is, and what it came to.

import { askTraining, cancelTraining, estimateTraining, listInspections, listTrainings, Problem, retryTraining } from '../api.js';
import { element, fill } from '../element.js';
import { attempt } from '../notices.js';
import { askReason } from '../reason.js';
import { countText, durationText, labelText, t, timeText } from '../texts.js';

const EVERY_MS = 1000;
const PAGE = 40;
const STATES = { queued: 'waits', running: 'runs', succeeded: 'succeeded', refused: 'refused', failed: 'failed', cancelled: 'cancelled' };
const UNDER_WAY = ['queued', 'running'];

export async function open(place, shell) {
  const { recipe } = shell;
  const list = element('div', { class: 'trainings' });
  const estimate = element('div', { class: 'estimate', role: 'status' });
  const begin = element('button', { class: 'primary' }, t('Learn from these'));
  const form = element('form', { class: 'panel choose', onchange: foresee, onsubmit: (event) => {
    event.preventDefault();
    ask();
  } },
    element('h2', {}, t('Which labels')),
    element('div', { class: 'fields' },
      field('since', t('From'), 'datetime-local'), field('until', t('Until'), 'datetime-local'),
      field('camera', t('Camera')), field('lot', t('Lot'))),
    estimate);
  const filters = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value)
    .map(([name, value]) => [name, name === 'since' || name === 'until' ? new Date(value).toISOString() : value]));
  const parts = new Parts((wanted) => listInspections({ recipe, limit: PAGE, ...filters(), ...wanted }));
  form.append(parts.place, element('p', { class: 'buttons' }, begin));
  form.querySelector('.fields').addEventListener('change', () => parts.again());
  fill(place, form, list);

  const chosen = () => ({ ...filters(), ...(parts.without.size && { without: [...parts.without] }) });

  let worker = true;

  async function foresee() {
    await attempt(t('Estimate'), async () => {
      const found = await estimateTraining(recipe, chosen());
      worker = found.worker;
      drawEstimate(estimate, begin, found);
    });
  }

  async function ask() {
    const why = await askReason(shell, t('Learn from these'), t('A new version is made beside the one that decides; nothing changes on the line until somebody promotes it.'));
    if (!why) return;
    await attempt(t('Training'), () => askTraining(recipe, { labels: chosen(), ...why }));
    await look();
  }

  const act = {
    cancel: async (id) => {
      const by = await shell.askOperator();
      if (by) await attempt(t('Cancel'), () => cancelTraining(id, by)).then(look);
    },
    retry: async (id) => {
      const by = await shell.askOperator();
      if (by) await attempt(t('Try again'), () => retryTraining(id, by)).then(look);
    },
  };
  let drawn = '';

  async function look() {
    if (!worker) await foresee(); // one may have been started
    const found = await listTrainings(recipe);
    const state = JSON.stringify(found);
    if (state === drawn) return;
    drawn = state;
    const open = new Set([...list.querySelectorAll('details[open]')].map((one) => one.dataset.id));
    fill(list, found.length ? found.map((one) => card(one, act, open.has(one.id))) : element('p', { class: 'empty' }, t('Nothing has been learned from labels yet.')));
  }

  await foresee();
  await attempt(t('Training'), look);
  const again = setInterval(() => look().catch((error) => {
    if (!(error instanceof Problem)) throw error;
  }), EVERY_MS);
  return () => clearInterval(again);
}

/** The labelled parts themselves, defective ones first, each of which can be left out. */
class Parts {
  constructor(list) {
    this.list = list;
    this.without = new Set();
    this.turn = 0;
    this.grid = element('div', { class: 'parts' });
    this.more = element('button', { type: 'button', class: 'more', hidden: true, onclick: () => this.load() }, t('Older'));
    this.place = element('details', { class: 'choice', ontoggle: () => this.again() },
      element('summary', {}, t('Leave single parts out')), this.grid, this.more);
  }

  /** Show what fits now, if anybody looks. What was left out stays so. */
  async again() {
    if (!this.place.open) return;
    this.turn += 1;
    fill(this.grid);
    this.next = { label: 'ng' };
    await this.load();
  }

  async load() {
    const { label, before } = this.next;
    const { turn } = this;
    let page = null;
    await attempt(t('Which labels'), async () => {
      page = await this.list({ label, ...(before && { before }) });
    });
    if (!page || turn !== this.turn) return; // asked for other parts meanwhile
    this.grid.append(...page.items.map((item) => this.#part(item)));
    this.next = page.next ? { label, before: page.next } : label === 'ng' && { label: 'ok' };
    this.more.hidden = !this.next;
    if (this.next && !page.next) await this.load();
  }

  #part(item) {
    const box = element('input', { type: 'checkbox', checked: !this.without.has(item.id), onchange: () => {
      if (box.checked) this.without.delete(item.id);
      else this.without.add(item.id);
    } });
    return element('label', { class: 'part' }, box,
      element('img', { class: 'thumbnail', src: `${item.heatmap}?format=overlay`, alt: '', loading: 'lazy' }),
      element('span', {}, labelText(item.feedback)), element('span', { class: 'quiet' }, item.part_id ?? timeText(item.creation_time)));
  }
}

function field(name, title, type = 'text') {
  return element('label', {}, title, element('input', { name, type, maxLength: 200, autocomplete: 'off' }));
}

function drawEstimate(place, begin, found) {
  begin.disabled = found.problem !== null;
  const time = found.seconds === null
    ? t('How long it takes is not known before the first one.')
    : t('About {time} and {mb} MB of memory, {why}.', {
      time: durationText(found.seconds), mb: countText(Math.round(found.peak_mb ?? 0)),
      why: found.from_measurement ? t('as the last one here') : t('foreseen when the model was fitted'),
    });
  fill(place,
    element('table', {},
      element('thead', {}, element('tr', {}, [t('Label'), t('parts'), t('with a mask')].map((title) => element('th', { scope: 'col' }, title)))),
      element('tbody', {}, found.labels.map((one) => element('tr', {},
        element('td', {}, one.defect_class ? `${t(one.verdict)} (${one.defect_class})` : t(one.verdict)),
        element('td', { class: 'number' }, countText(one.labels)),
        element('td', { class: 'number' }, one.verdict === 'ng' ? countText(one.masks) : ''))))),
    found.problem
      ? element('p', { class: 'problem' }, found.problem)
      : element('p', {}, time),
    !found.worker && element('p', { class: 'problem' }, t('No worker is running, so it will wait. Start one with kizu worker.')));
}

function card(one, act, open) {
  const { id, state } = one;
  const under = UNDER_WAY.includes(state);
  return element('article', { class: `panel training ${state}` },
    element('header', {},
      element('h2', {}, t('From version {version}', { version: one.champion_version }), one.bundle_version && ` → ${t('version {version}', { version: one.bundle_version })}`),
      element('span', { class: `role ${state}` }, t(STATES[state])),
      element('span', { class: 'quiet' }, t('by {by}, {time}: {reason}', { by: one.by, time: timeText(one.creation_time), reason: one.reason }))),
    state === 'running' && progress(one),
    one.message && element('p', { class: state === 'failed' || state === 'refused' ? 'problem' : null }, one.message),
    element('p', { class: 'buttons' },
      under && element('button', { type: 'button', onclick: () => act.cancel(id) }, t('Cancel')),
      ['failed', 'cancelled', 'refused'].includes(state) && element('button', { type: 'button', onclick: () => act.retry(id) }, t('Try again')),
      one.report && element('a', { class: 'button', href: one.report, target: '_blank', rel: 'noopener' }, t('Report')),
      state === 'succeeded' && element('a', { class: 'button', href: '#/models' }, t('Compare it'))),
    one.log && element('details', { open, data: { id } }, element('summary', {}, t('Log')), element('pre', {}, one.log)));
}

function progress({ step, done, total, step_seconds_left: left }) {
  return element('div', { class: 'progress' },
    element('p', {}, step || t('begins'), total > 0 && ` ${countText(done)} / ${countText(total)}`, left !== null && ` · ${t('about {time} left', { time: durationText(left) })}`),
    element('progress', total > 0 ? { value: done, max: total, 'aria-label': step } : { 'aria-label': step || t('begins') }));
}
