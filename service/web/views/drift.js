// Whether images still look as those did that the models learned from, camera by camera.

import { Problem, reportDrift } from '../api.js';
import { element, fill } from '../element.js';
import { attempt } from '../notices.js';
import { countText, numberText, percentText, t } from '../texts.js';

const EVERY_MS = 5000;
const NAMES = { score: 'score', brightness: 'brightness', focus: 'focus', saturated: 'saturated pixels' };
const ADVICE = {
  score: 'More parts look unusual than should: look at the last ones, at the material, and at the other measures.',
  brightness: 'Look at the lamps, their age, the exposure, and light from outside.',
  focus: 'Look at the lens: its focus, its distance, dirt on it, and vibration.',
  saturated: 'Details are lost in white: shorten the exposure, or dim the light.',
};
const STATES = { steady: 'as in training', drifting: 'drifts', unknown: 'not known yet' };
const WIDTH = 260;

export async function open(place) {
  const cameras = element('div', { class: 'cameras' });
  fill(place, element('p', { class: 'quiet' }, t('The last 200 images of each camera, beside the range that held 98 of 100 good parts in training.')), cameras);
  const look = async () => {
    const found = await reportDrift();
    fill(cameras, found.length ? found.map(card) : element('p', { class: 'empty' }, t('Nothing has been inspected yet.')));
  };
  await attempt(t('Drift'), look);
  const again = setInterval(() => look().catch((error) => {
    if (!(error instanceof Problem)) throw error;
  }), EVERY_MS);
  return () => clearInterval(again);
}

function card({ recipe_id: recipe, camera, images, state, trends }) {
  const bad = trends.filter((trend) => trend.state === 'drifting');
  return element('article', { class: `panel camera ${state}` },
    element('header', {},
      element('h2', {}, camera || t('no camera named')), element('span', { class: `role ${state}` }, t(STATES[state])),
      element('span', { class: 'quiet' }, `${recipe} · ${t('{n} images', { n: countText(images) })}`)),
    bad.map(({ measure }) => element('p', { class: 'problem' }, t(ADVICE[measure]))),
    element('table', {},
      element('thead', {}, element('tr', {}, [t('Measure'), t('lately'), '', t('outside'), ''].map((title) => element('th', { scope: 'col' }, title)))),
      element('tbody', {}, trends.map((trend) => element('tr', {},
        element('th', { scope: 'row' }, t(NAMES[trend.measure])),
        element('td', { class: 'number' }, numberText(trend.recent[1])),
        element('td', {}, range(trend)),
        element('td', { class: 'number' }, trend.outside === null ? '' : percentText(trend.outside)),
        element('td', {}, element('span', { class: `role ${trend.state}` }, t(STATES[trend.state]))))))));
}

/** The range in training as a bar, and the middle nine tenths of the last images as a line. */
function range({ recent, low, high }) {
  if (low === null) return element('span', { class: 'quiet' }, t('the model does not say'));
  const least = Math.min(low, recent[0]);
  const most = Math.max(high, recent[2]);
  const x = (value) => 6 + ((WIDTH - 12) * (value - least)) / (most - least || 1);
  return element('svg', { class: 'range', viewBox: `0 0 ${WIDTH} 22`, role: 'img', 'aria-label': t('{low} to {high} in training, {from} to {to} lately', { low: numberText(low), high: numberText(high), from: numberText(recent[0]), to: numberText(recent[2]) }) },
    element('rect', { class: 'trained', x: x(low), y: 4, width: Math.max(2, x(high) - x(low)), height: 14 }),
    element('line', { x1: x(recent[0]), x2: x(recent[2]), y1: 11, y2: 11 }),
    element('circle', { cx: x(recent[1]), cy: 11, r: 5 }));
}
