// The selected inspection, large.

import { whyUnseen } from './api.js';
import { byId, labelText, numberText, percentileText, setText, setVerdict, timeText } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';

byId('boxes').addEventListener('change', (event) => {
  byId('pictures').classList.toggle('unmarked', !event.target.checked);
});

/** Show an inspection in place of the one before. */
export function showInspection(item) {
  byId('unselected').hidden = true;
  byId('inspection').hidden = false;
  setVerdict(byId('verdict'), item.verdict);
  setText(byId('score'), numberText(item.score));
  setText(byId('percentile'), percentileText(item.percentile));
  setText(byId('about'), aboutText(item));
  drawScale(item.score, item.thresholds);
  showPicture('image', item, item.image, 'Image of the part');
  showPicture('overlay', item, `${item.heatmap}?format=overlay`, 'Heatmap over the image');
  showFacts(item);
  showLabel(item.feedback);
}

/** Show the newest label of the inspection. */
export function showLabel(feedback) {
  setText(byId('stored'), feedback ? storedText(feedback) : 'Not labelled yet.');
  for (const button of byId('label').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.verdict === feedback?.verdict));
  }
}

function aboutText(item) {
  const facts = [item.part_id && `part ${item.part_id}`, item.camera && `camera ${item.camera}`];
  return [...facts, timeText(item.creation_time)].filter(Boolean).join(' · ');
}

function storedText(feedback) {
  const word = `Labelled ${labelText(feedback)} by ${feedback.operator}, ${timeText(feedback.creation_time)}.`;
  return feedback.comment ? `${word} “${feedback.comment}”` : word;
}

function showFacts(item) {
  const { review, ng } = item.thresholds;
  setText(byId('thresholds'), `review from ${numberText(review)}, ng from ${numberText(ng)}`);
  setText(byId('regions'), regionsText(item.regions));
  setText(byId('model'), `${item.recipe_id} version ${item.bundle_version} (${item.bundle_digest.slice(0, 12)}) on ${item.device}`);
  setText(byId('times'), timesText(item.processing_times));
  setText(byId('identity'), `${item.id}, ${item.width} × ${item.height} pixels`);
}

function regionsText(regions) {
  if (regions.length === 0) return 'none at or above the review threshold';
  return `${regions.length}, the highest peak ${numberText(regions[0].peak)} over ${regions[0].area} pixels`;
}

function timesText(times) {
  const steps = Object.entries(times).map(([step, ms]) => `${step} ${numberText(ms)}`);
  return steps.length ? `${steps.join(', ')} ms` : 'not measured';
}

// A new element each time: an <img> goes on showing the last part until the next one is loaded.
function showPicture(id, item, address, alt) {
  const stage = byId(id);
  const image = new Image(item.width, item.height);
  image.alt = alt;
  image.addEventListener('error', () => explain(stage, image, address));
  image.src = address;
  stage.replaceChildren(image, regionsOver(item));
  byId(`${id}-link`).href = address;
}

async function explain(stage, image, address) {
  const reason = document.createElement('p');
  reason.textContent = await whyUnseen(address);
  if (image.isConnected) stage.replaceChildren(reason);
}

function regionsOver(item) {
  const svg = svgElement('svg', { viewBox: `0 0 ${item.width} ${item.height}`, 'aria-hidden': true });
  svg.append(...item.regions.map(({ box }) => svgElement('rect', box)));
  return svg;
}

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function drawScale(score, { review, ng }) {
  const low = Math.min(0, score, review);
  const high = Math.max(score, ng + 0.3 * Math.abs(ng));
  const at = (value) => 1000 * (value - low) / (high - low || 1);
  const span = (name, from, to) => {
    const rect = byId('scale').querySelector(`.${name}`);
    rect.setAttribute('x', from);
    rect.setAttribute('width', Math.max(0, to - from));
  };
  span('ok', 0, at(review));
  span('review', at(review), at(ng));
  span('ng', at(ng), 1000);
  const marker = Math.min(at(score), 996);
  span('marker', marker, marker + 4);
}
