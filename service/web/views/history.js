// Everything that was inspected, searched by what is known of a part.

import { listInspections } from '../api.js';
import { element, fill, verdictMark } from '../element.js';
import { attempt } from '../notices.js';
import { labelText, numberText, t, timeText } from '../texts.js';

const PAGE = 50;
const VERDICTS = ['ok', 'review', 'ng'];
const LABELS = { none: 'not labelled', any: 'labelled', ok: 'ok', ng: 'ng', unsure: 'unsure', missed: 'missed: passed, but labelled ng', overturned: 'false alarms: labelled ok' };

export async function open(place, shell, [query = '']) {
  const wanted = Object.fromEntries(new URLSearchParams(query));
  const list = element('tbody', {});
  const more = element('button', { type: 'button', class: 'more', hidden: true }, t('Older'));
  const none = element('p', { class: 'empty', role: 'status', hidden: true }, t('Nothing fits.'));
  const form = searchForm(shell, wanted);
  fill(place, form,
    element('table', { class: 'list' },
      element('thead', {}, element('tr', {}, ['', t('Verdict'), t('Score'), t('Label'), t('Part'), t('Lot'), t('Camera'), t('Model'), t('Time')].map((title) => element('th', { scope: 'col' }, title)))),
      list),
    none, more);

  let next = null;
  async function load() {
    await attempt(t('History'), async () => {
      const page = await listInspections({ ...wanted, limit: PAGE, ...(next && { before: next }) });
      list.append(...page.items.map(row));
      next = page.next;
      more.hidden = next === null;
      none.hidden = list.children.length > 0;
    });
  }
  more.addEventListener('click', load);
  await load();
}

function searchForm(shell, wanted) {
  const field = (name, title, attributes = {}) => element('label', {}, title, element('input', { name, value: wanted[name] ?? '', maxLength: 200, autocomplete: 'off', ...attributes }));
  const choice = (name, title, options) => element('label', {}, title, element('select', { name },
    element('option', { value: '' }, t('all')),
    options.map(([value, text]) => element('option', { value, selected: wanted[name] === value }, text))));
  return element('form', { class: 'search', role: 'search', onsubmit: (event) => {
    event.preventDefault();
    const given = [...new FormData(event.target)].filter(([, value]) => value).map(([name, value]) => [name, name === 'since' || name === 'until' ? new Date(value).toISOString() : value]);
    shell.open(`history/${encodeURIComponent(new URLSearchParams(given))}`);
  } },
    choice('recipe', t('Recipe'), shell.recipes.map(({ recipe_id: name }) => [name, name])),
    field('part_id', t('Part')), field('lot', t('Lot')), field('camera', t('Camera')),
    choice('verdict', t('Verdict'), VERDICTS.map((one) => [one, t(one)])),
    choice('label', t('Label'), Object.entries(LABELS).map(([value, text]) => [value, t(text)])),
    field('bundle_version', t('Version'), { inputMode: 'numeric', pattern: '[0-9]*' }),
    field('since', t('From'), { type: 'datetime-local', value: local(wanted.since) }),
    field('until', t('Until'), { type: 'datetime-local', value: local(wanted.until) }),
    element('button', { class: 'primary' }, t('Search')));
}

function local(iso) {
  if (!iso) return '';
  const date = new Date(iso);
  return new Date(date.getTime() - 60_000 * date.getTimezoneOffset()).toISOString().slice(0, 16);
}

function row(item) {
  const link = (content) => element('a', { href: `#/inspection/${item.id}` }, content);
  // The links in it are for keys and readers; a finger may hit it anywhere.
  return element('tr', { onclick: ({ target }) => target.closest('a') ?? (location.hash = `#/inspection/${item.id}`) },
    element('td', {}, link(element('img', { class: 'thumbnail', src: `${item.heatmap}?format=overlay`, alt: t('Heatmap'), loading: 'lazy' }))),
    element('td', {}, link(verdictMark(item.verdict, t(item.verdict)))),
    element('td', { class: 'number' }, numberText(item.score)),
    element('td', {}, item.feedback ? labelText(item.feedback) : ''),
    element('td', {}, item.part_id ?? ''), element('td', {}, item.lot ?? ''), element('td', {}, item.camera ?? ''),
    element('td', {}, `${item.recipe_id} ${item.bundle_version}`),
    element('td', {}, timeText(item.creation_time)));
}
