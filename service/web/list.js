// The list of recent inspections: one row each, kept and moved rather than drawn anew.

import { byId, labelText, numberText, percentileText, setText, setVerdict, timeText } from './words.js';

const list = byId('list');
const rows = new Map();

/** Call `select` with the id of a row that is clicked. */
export function onSelect(select) {
  list.addEventListener('click', (event) => {
    const row = event.target.closest('[role=option]');
    if (row) select(row.dataset.id);
  });
}

/** Show these inspections in this order. */
export function drawList(items, selected) {
  const shown = new Set(items.map((item) => item.id));
  for (const [id, row] of rows) if (!shown.has(id)) forget(id, row);
  items.forEach((item, index) => place(rowOf(item), index));
  markSelected(shown.has(selected) ? selected : null);
  byId('none').hidden = items.length > 0;
}

/** Bring a row into view, and the focus to it where another row had it. */
export function revealRow(id) {
  const row = rows.get(id);
  row?.scrollIntoView({ block: 'nearest' });
  if (list.contains(document.activeElement)) row?.focus({ preventScroll: true });
}

function forget(id, row) {
  row.remove();
  rows.delete(id);
}

function place(row, index) {
  if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
}

// One stop of the Tab key for the whole list; the arrow keys move within it.
function markSelected(selected) {
  const stop = selected ?? list.firstElementChild?.dataset.id;
  for (const [id, row] of rows) {
    row.setAttribute('aria-selected', String(id === selected));
    row.tabIndex = id === stop ? 0 : -1;
  }
}

function rowOf(item) {
  if (!rows.has(item.id)) rows.set(item.id, newRow(item));
  const row = rows.get(item.id);
  const labelled = row.querySelector('.labelled');
  setText(labelled, item.feedback ? `labelled ${labelText(item.feedback)}` : '');
  return row;
}

function newRow(item) {
  const row = byId('row').content.firstElementChild.cloneNode(true);
  const part = (selector) => row.querySelector(selector);
  row.dataset.id = item.id;
  part('.thumbnail').src = `${item.heatmap}?format=overlay`;
  setVerdict(part('.verdict'), item.verdict);
  part('time').dateTime = item.creation_time;
  part('time').textContent = timeText(item.creation_time);
  part('.second').textContent = `${numberText(item.score)}, ${percentileText(item.percentile)}`;
  part('.part').textContent = item.part_id ?? item.recipe_id;
  return row;
}
