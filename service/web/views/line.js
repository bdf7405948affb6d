// The line as it runs: the last verdict, large enough to be read from the other side of the belt.

import { countShift, listCameras, listInspections } from '../api.js';
import { element, fill, setText, verdictMark } from '../element.js';
import { attempt } from '../notices.js';
import { countText, numberText, percentileText, percentText, t, timeText } from '../texts.js';
import { uploads } from '../uploads.js';

const SHOWN = 14;
const COUNT_SOON_MS = 500;
const COUNT_AGAIN_MS = 60_000;
const FOLLOW_AGAIN_MS = 3000;

export async function open(place, shell) {
  const recipe = shell.recipe;
  const last = element('section', { class: 'last', 'aria-live': 'polite' });
  const strip = element('ol', { class: 'strip', 'aria-label': t('Last inspections') });
  const counters = element('dl', { class: 'counters' });
  const model = element('p', { class: 'model' });
  const { drop, leave } = uploads(() => shell.recipe);
  fill(place, last, element('aside', {}, counters, model, drop), strip);

  const items = [];
  let counts = null;
  let errors = 0;
  let soon = null;

  function draw() {
    const [newest] = items;
    fill(last, newest ? verdictPanel(newest) : element('p', { class: 'empty' }, t('Nothing has been inspected yet.')));
    fill(strip, items.map(thumbnail));
  }

  function drawCounts() {
    if (!counts) return;
    const { ok, review, ng, since } = counts;
    const total = ok + review + ng;
    const hours = Math.max((Date.now() - Date.parse(since)) / 3_600_000, 1 / 60);
    fill(counters,
      ...[['ok', ok], ['review', review], ['ng', ng]].map(([verdict, count]) => element('div', {},
        element('dt', {}, verdictMark(verdict, t(verdict))),
        element('dd', {}, element('b', {}, countText(count)), ' ', total ? percentText(count / total) : ''))),
      errors > 0 && element('div', { class: 'errors' },
        element('dt', {}, verdictMark('error', t('not inspected'))),
        element('dd', {}, element('b', {}, countText(errors)), ' ', t('since the service started'))),
      element('div', {}, element('dt', {}, t('since {time}', { time: timeText(since) })),
        element('dd', {}, t('{n} an hour', { n: countText(Math.round(total / hours)) }))));
  }

  const count = () => attempt(t('Shift'), async () => {
    const [shift, cameras] = await Promise.all([countShift(recipe), listCameras()]);
    counts = shift;
    errors = cameras.reduce((sum, camera) => sum + camera.errors, 0);
    drawCounts();
  });

  // Asked for rather than added up: an event may tell of a part that is counted already.
  function countSoon() {
    soon ??= setTimeout(() => {
      soon = null;
      count();
    }, COUNT_SOON_MS);
  }

  function take(item) {
    if (items.some((known) => known.key === item.key)) return;
    items.unshift(item);
    items.length = Math.min(items.length, SHOWN);
    draw();
    countSoon();
  }

  const list = () => attempt(t('Last inspections'), async () => {
    const page = await listInspections({ recipe, limit: SHOWN });
    const known = new Set(items.map(({ key }) => key));
    items.push(...page.items.map(ofResult).filter(({ key }) => !known.has(key)));
    items.sort((a, b) => Date.parse(b.time) - Date.parse(a.time));
    items.length = Math.min(items.length, SHOWN);
    draw();
  });

  let stream = null;
  let later = null;

  function follow() {
    stream = new EventSource(`/v1/events?${new URLSearchParams({ recipe })}`);
    stream.addEventListener('inspection', ({ data }) => take(ofResult(JSON.parse(data))));
    stream.addEventListener('reset', () => Promise.all([list(), count()]));
    stream.addEventListener('error', (event) => {
      if (event.data) take(ofError(JSON.parse(event.data), event.lastEventId));
      // A browser comes back by itself where a connection was lost, but not where it was refused.
      else if (stream.readyState === EventSource.CLOSED) later = setTimeout(follow, FOLLOW_AGAIN_MS);
    });
  }

  follow();
  await Promise.all([list(), count()]);
  drawModel(model, shell.recipes.find((one) => one.recipe_id === recipe));
  const again = setInterval(count, COUNT_AGAIN_MS);
  return () => {
    stream.close();
    clearTimeout(later);
    clearInterval(again);
    clearTimeout(soon);
    leave();
  };
}

const ofResult = (item) => ({
  key: item.id, verdict: item.verdict, time: item.creation_time, part: item.part_id, camera: item.camera,
  item,
});

const ofError = (error, key) => ({
  key, verdict: 'error', time: error.creation_time, part: error.part_id, camera: error.camera,
  detail: `${error.title}. ${error.detail}`,
});

function verdictPanel({ verdict, time, part, camera, detail, item }) {
  const facts = [part && t('part {part}', { part }), camera && t('camera {camera}', { camera }), timeText(time)];
  return [
    element('div', { class: 'word' },
      verdictMark(verdict, t(verdict), { class: 'verdict huge' }),
      element('p', { class: 'facts' }, facts.filter(Boolean).join(' · ')),
      item
        ? element('p', {}, element('b', {}, numberText(item.score)), ` ${percentileText(item.percentile)}`,
          item.degraded && element('br'), item.degraded && t('Not stored: the disk is full.'))
        : element('p', {}, detail, ' ', t('The part was not inspected.'))),
    item?.heatmap && element('a', { class: 'seen', href: `#/inspection/${item.id}` },
      element('img', { src: `${item.heatmap}?format=overlay`, alt: t('Heatmap over the image') })),
  ];
}

function thumbnail({ verdict, time, part, item }) {
  const kept = item?.heatmap;
  const content = [
    kept ? element('img', { src: `${item.heatmap}?format=overlay`, alt: '', loading: 'lazy' }) : element('span', { class: 'none' }, '–'),
    verdictMark(verdict, t(verdict)),
    element('span', {}, part ?? timeText(time)),
  ];
  return element('li', {}, kept ? element('a', { href: `#/inspection/${item.id}` }, content) : element('span', {}, content));
}

function drawModel(target, recipe) {
  if (recipe) setText(target, t('{recipe}, version {version}, on {device}', {
    recipe: recipe.recipe_id, version: recipe.bundle_version, device: recipe.device,
  }));
}
