// One inspection, with everything that decided it and everything that was said of it.

import { getTrail, Problem } from '../api.js';
import { element, fill, verdictMark } from '../element.js';
import { send } from '../labels.js';
import { attempt, showProblem } from '../notices.js';
import { Picture } from '../picture.js';
import { labelText, numberText, percentileText, percentText, t, thresholdsText, timeText } from '../texts.js';

export async function open(place, shell, [id = '']) {
  const again = () => attempt(t('Inspection'), async () => draw(place, await getTrail(id), (verdict) => label(shell, id, verdict, again)));
  const found = await again();
  if (!found) fill(place, element('p', { class: 'empty' }, t('There is nothing to show.'), ' ', back()));
}

const back = () => element('button', { type: 'button', onclick: () => window.history.back() }, t('Back'));

/** Say what a part is; masks are drawn in the review. */
async function label(shell, id, verdict, again) {
  const operator = await shell.askOperator();
  if (!operator) return;
  try {
    const { inspection } = await getTrail(id);
    await send({ inspection_id: id, verdict, operator, supersedes: inspection.feedback?.id ?? null });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(t('Label {verdict}', { verdict: t(verdict) }), error);
  }
  await again();
}

function draw(place, trail, onLabel) {
  const { inspection: item } = trail;
  const stage = element('div', { id: 'stage', 'aria-label': t('Image of the part') });
  const picture = new Picture(stage);
  const heat = element('input', { type: 'range', min: 0, max: 1, step: 0.05, value: 0.6, 'aria-label': t('Heatmap'), oninput: ({ target }) => picture.setOpacity(Number(target.value)) });
  const marks = element('input', { type: 'checkbox', checked: true, onchange: ({ target }) => picture.setMarks(target.checked) });
  fill(place,
    element('div', { class: 'work' },
      element('div', { class: 'head' },
        back(),
        verdictMark(item.verdict, t(item.verdict), { class: 'verdict large' }),
        element('span', {}, element('b', {}, numberText(item.score)), ` ${percentileText(item.percentile)}`),
        item.is_simulated && element('span', { class: 'reason' }, t('simulated'))),
      stage,
      element('p', { class: 'under' },
        element('label', {}, `${t('Heatmap')} `, heat), ' ',
        element('label', {}, marks, ` ${t('regions')}`), ' ',
        element('a', { href: item.image, target: '_blank', rel: 'noopener' }, t('image, full size')), ' ',
        element('a', { href: `${item.heatmap}?format=npy`, download: `${item.id}.npy` }, t('raw heatmap')))),
    element('aside', {}, labels(trail.labels, onLabel), facts(trail)));
  picture.show(item);
}

function facts({ inspection: item, thresholds_revision: lines, promotion, recipe_revision: recipe, appearance, candidates }) {
  const { review, ng } = item.thresholds;
  const decided = (one) => one && t('by {by}, {time}: {reason}', { by: one.by, time: timeText(one.creation_time), reason: one.reason });
  const rows = [
    [t('Time'), timeText(item.creation_time)],
    [t('Part'), item.part_id], [t('Lot'), item.lot], [t('Camera'), item.camera],
    [t('Thresholds'), thresholdsText({ review, ng }), decided(lines) ?? t('as the model came with')],
    [t('Model'), t('{recipe}, version {version}, on {device}', { recipe: item.recipe_id, version: item.bundle_version, device: item.device }), decided(promotion), item.bundle_digest.slice(0, 16)],
    [t('Recipe'), recipe && t('revision {n}', { n: recipe.number }), decided(recipe)],
    [t('Regions'), regionsText(item)],
    [t('Light and lens'), appearance && t('brightness {brightness}, focus {focus}, saturated {saturated}', {
      brightness: numberText(appearance.brightness), focus: numberText(appearance.focus), saturated: percentText(appearance.saturated),
    })],
    ...candidates.map((one) => [t('Candidate'), t('version {version} would have said', { version: one.bundle_version }), verdictMark(one.verdict, t(one.verdict)), numberText(one.score)]),
    [t('Times'), Object.entries(item.processing_times).map(([step, ms]) => `${step} ${numberText(ms)}`).join(', ') + ' ms'],
    [t('Inspection'), item.id, `${item.width} × ${item.height}`],
  ];
  return element('dl', { class: 'facts' }, rows.filter(([, value]) => value).map(([title, ...values]) => element('div', {},
    element('dt', {}, title),
    element('dd', {}, values.filter(Boolean).map((value) => element('span', {}, value))))));
}

function regionsText({ regions }) {
  if (regions.length === 0) return t('none');
  const [{ peak, area, area_mm2: mm2 }] = regions;
  const size = mm2 ? `${numberText(mm2)} mm²` : t('{n} pixels', { n: area });
  return t('{n}, the highest peak {peak} over {size}', { n: regions.length, peak: numberText(peak), size });
}

function labels(said, onLabel) {
  return element('section', {},
    element('h2', {}, t('Labels')),
    element('p', { class: 'buttons', role: 'group', 'aria-label': t('Label this part') }, ['ok', 'ng', 'unsure'].map((verdict) => element('button', {
      type: 'button', data: { verdict }, onclick: () => onLabel(verdict),
    }, verdictMark(verdict, t(verdict))))),
    said.length
      ? element('ol', { class: 'labels' }, said.map((one) => element('li', {},
        element('b', {}, one.verdict === 'withdrawn' ? t('taken back') : labelText(one)),
        ` ${t('by {operator}, {time}', { operator: one.operator, time: timeText(one.creation_time) })}`,
        one.desk === 'engineer' && ` · ${t('as an engineer')}`,
        one.has_mask && [' · ', element('a', { href: `/v1/feedback/${one.id}/mask`, target: '_blank', rel: 'noopener' }, t('mask'))],
        one.comment && element('p', {}, `“${one.comment}”`))))
      : element('p', { class: 'quiet' }, t('Not labelled yet.')));
}
