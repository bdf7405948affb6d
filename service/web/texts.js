// What is written on the screen, in the language of whoever reads it, and how values are written.

import { japanese } from './japanese.js';

const LANGUAGES = { en: null, ja: japanese };
let language = localStorage.getItem('kizu.language') ?? navigator.language.slice(0, 2);
if (!(language in LANGUAGES)) language = 'en';
document.documentElement.lang = language;

const number = new Intl.NumberFormat(language, { maximumSignificantDigits: 4, useGrouping: false });
const count = new Intl.NumberFormat(language);
const time = new Intl.DateTimeFormat(language, { timeStyle: 'medium' });
const dateTime = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' });
const percent = new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 1 });

export const languages = Object.keys(LANGUAGES);
export const currentLanguage = () => language;

/** Choose the language for all that is drawn from now on. */
export function chooseLanguage(chosen) {
  localStorage.setItem('kizu.language', chosen);
  location.reload();
}

/** A text in the language chosen; `{name}` stands for a value. English is the key. */
export function t(text, values = {}) {
  const found = LANGUAGES[language]?.[text] ?? text;
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

/** Texts that have no Japanese yet, among these; for the tests. */
export const untranslated = (texts) => texts.filter((text) => !(text in japanese));

export const numberText = (value) => number.format(value);
export const countText = (value) => count.format(value);
export const percentText = (value) => percent.format(value);

// A reject threshold from here on is reached by no score: NO_REJECT of a bundle.
const NO_REJECT = 1e9;
export const rejects = (ng) => ng < NO_REJECT;

export function thresholdsText({ review, ng }) {
  return rejects(ng)
    ? t('review from {review}, ng from {ng}', { review: numberText(review), ng: numberText(ng) })
    : t('review from {review}, nothing is rejected', { review: numberText(review) });
}

export function percentileText(percentile) {
  if (percentile >= 100) return t('above all good parts');
  return t('above {percent} % of good parts', { percent: numberText(percentile) });
}

export function timeText(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return (today ? time : dateTime).format(date);
}

/** About how long. */
export function durationText(seconds) {
  if (seconds < 90) return t('{n} s', { n: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return t('{n} min', { n: Math.round(seconds / 60) });
  return t('{n} h', { n: numberText(Math.round(seconds / 360) / 10) });
}

export function labelText({ verdict, defect_class: defect }) {
  return defect ? `${t(verdict)} (${defect})` : t(verdict);
}

/** A share with its 95 % interval. */
export function rateText({ count: some, total, low, high }) {
  if (total === 0) return t('not known: no such part is labelled');
  return t('{share} ({some} of {total}; {low} to {high})', {
    share: percentText(some / total), some, total, low: percentText(low), high: percentText(high),
  });
}
