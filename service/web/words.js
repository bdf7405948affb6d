// How values are written, the same wherever they appear.

const number = new Intl.NumberFormat('en', { maximumSignificantDigits: 4, useGrouping: false });
const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

export const byId = (id) => document.getElementById(id);

export const numberText = (value) => number.format(value);

/** Set a text only where it changes, so that status regions are read out once. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The word; its shape and colour come from the style sheet. */
export function setVerdict(element, verdict) {
  setText(element, verdict);
  element.dataset.verdict = verdict;
}

export function percentileText(percentile) {
  if (percentile >= 100) return 'above all good parts';
  return `above ${numberText(percentile)} % of good parts`;
}

export function timeText(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return (today ? time : dateTime).format(date);
}

export function labelText({ verdict, defect_class: defect }) {
  return defect ? `${verdict} (${defect})` : verdict;
}
