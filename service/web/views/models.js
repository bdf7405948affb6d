// Champion and candidates: what each is worth, and what a candidate would have said.

import { compareShadow, listBundles, listPromotions, nominate, Problem, promote } from '../api.js';
import { element, fill, verdictMark } from '../element.js';
import { attempt, showDone } from '../notices.js';
import { askReason } from '../reason.js';
import { countText, numberText, percentText, t, timeText } from '../texts.js';

const VERDICTS = ['ok', 'review', 'ng'];
const EVERY_MS = 3000;

export async function open(place, shell) {
  const bundles = element('div', { class: 'bundles' });
  const shadow = element('section', { class: 'panel shadow' });
  const past = element('ol', { class: 'revisions' });
  fill(place, bundles, shadow, element('section', { class: 'panel' }, element('h2', {}, t('Who decided what decides')), past));
  const { recipe } = shell;
  let drawn = '';

  async function look() {
    const [found, promotions] = await Promise.all([listBundles(recipe), listPromotions(recipe)]);
    const comparison = found.some(({ role }) => role === 'candidate') ? await shadowOf(recipe) : null;
    const state = JSON.stringify([found, comparison, promotions.length]);
    if (state === drawn) return;
    drawn = state;
    fill(bundles, found.map((bundle) => card(bundle, act)));
    drawShadow(shadow, comparison, act);
    fill(past, promotions.map((one) => element('li', {},
      element('b', {}, t('version {version}', { version: one.bundle_version })),
      element('span', {}, t('by {by}, {time}: {reason}', { by: one.by, time: timeText(one.creation_time), reason: one.reason })))));
  }

  const act = {
    promote: (version) => decide(t('Let version {version} decide', { version }), t('From the next part on. No part is dropped, and the earlier version can be brought back.'), async (why) => {
      await promote(recipe, { version, ...why });
      showDone(t('Version {version} decides.', { version }));
    }),
    nominate: (version) => decide(version === null ? t('End the shadow') : t('Run version {version} in the shadow', { version }), t('It is asked about every part after the champion has answered, and decides nothing.'), (why) => nominate(recipe, { version, ...why })),
  };

  async function decide(title, text, change) {
    const why = await askReason(shell, title, text);
    if (!why) return;
    await attempt(title, async () => {
      await change(why);
      await look();
    });
  }

  await attempt(t('Models'), look);
  const again = setInterval(() => look().catch((error) => {
    if (!(error instanceof Problem)) throw error; // the frame says that the service is gone
  }), EVERY_MS);
  return () => clearInterval(again);
}

async function shadowOf(recipe) {
  try {
    return await compareShadow(recipe);
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null; // it has just been promoted
    throw error;
  }
}

function card(bundle, act) {
  const { version, role, device, problem, metrics } = bundle;
  const badge = problem
    ? element('span', { class: 'badge bad' }, t('refused'))
    : device && element('span', { class: 'badge good' }, t('agrees with its training on {device}', { device }));
  const measured = Object.entries(metrics).map(([name, value]) => `${name.replaceAll('_', ' ')} ${numberText(100 * value)}`);
  return element('article', { class: `panel bundle ${role ?? ''}` },
    element('header', {},
      element('h2', {}, t('version {version}', { version })),
      role && element('span', { class: `role ${role}` }, t(role === 'champion' ? 'decides' : 'in the shadow')),
      badge),
    problem && element('p', { class: 'problem' }, problem),
    element('p', { class: 'quiet' }, [
      bundle.origin === 'retrain' ? t('retrained from version {version}', { version: bundle.parent_version }) : t('fitted on good parts'),
      `${bundle.method}, ${bundle.backbone}`, timeText(bundle.creation_time),
    ].join(' · ')),
    measured.length > 0 && element('p', {}, measured.join(', ')),
    element('p', { class: 'buttons' },
      element('a', { class: 'button', href: bundle.report, target: '_blank', rel: 'noopener' }, t('Report')),
      role !== 'champion' && !problem && element('button', { type: 'button', class: role === 'candidate' ? 'primary' : null, onclick: () => act.promote(version) }, t('Let it decide')),
      role === null && !problem && element('button', { type: 'button', onclick: () => act.nominate(version) }, t('Run in the shadow')),
      role === 'candidate' && element('button', { type: 'button', onclick: () => act.nominate(null) }, t('End the shadow'))));
}

function drawShadow(place, comparison) {
  place.hidden = comparison === null;
  if (!comparison) return;
  const { champion_version: one, candidate_version: other, images, agreeing } = comparison;
  const counts = new Map(comparison.counts.map(({ champion, candidate, images: n }) => [`${champion} ${candidate}`, n]));
  fill(place,
    element('h2', {}, t('Version {one} decides, version {other} looks on', { one, other })),
    images === 0
      ? element('p', { class: 'quiet' }, t('No part has come since. The next ones are compared.'))
      : element('p', {}, element('b', {}, percentText(agreeing / images)), ' ', t('of {n} parts: the same verdict', { n: countText(images) })),
    images > 0 && element('table', { class: 'agreement' },
      element('thead', {}, element('tr', {}, element('td', {}), VERDICTS.map((verdict) => element('th', { scope: 'col' }, verdictMark(verdict, t('{verdict} by {version}', { verdict: t(verdict), version: other })))))),
      element('tbody', {}, VERDICTS.map((first) => element('tr', {},
        element('th', { scope: 'row' }, verdictMark(first, t('{verdict} by {version}', { verdict: t(first), version: one }))),
        VERDICTS.map((second) => element('td', { class: first === second ? 'same' : 'differs' }, countText(counts.get(`${first} ${second}`) ?? 0))))))),
    comparison.differences.length > 0 && [
      element('h2', {}, t('Where they differ')),
      element('ul', { class: 'differences' }, comparison.differences.map(({ inspection: item, candidate_verdict: verdict }) => element('li', {},
        element('a', { href: `#/inspection/${item.id}` },
          element('img', { src: `${item.heatmap}?format=overlay`, alt: t('Heatmap'), loading: 'lazy' }),
          element('span', {}, `${one}: `, verdictMark(item.verdict, t(item.verdict))),
          element('span', {}, `${other}: `, verdictMark(verdict, t(verdict))),
          item.feedback && element('span', {}, t('labelled {verdict}', { verdict: t(item.feedback.verdict) })))))),
    ]);
}
