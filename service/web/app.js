// The frame around the views: which one is shown, for which recipe, to whom; and how the service is.

import { listRecipes, Problem, readHealth } from './api.js';
import { byId, element, fill, setText } from './element.js';
import { resend } from './labels.js';
import { askName } from './operator.js';
import { begin, leave as logOut, may, session } from './session.js';
import { chooseLanguage, currentLanguage, languages, t } from './texts.js';
import * as drift from './views/drift.js';
import * as history from './views/history.js';
import * as inspection from './views/inspection.js';
import * as line from './views/line.js';
import * as models from './views/models.js';
import * as recipe from './views/recipe.js';
import * as review from './views/review.js';
import * as thresholds from './views/thresholds.js';
import * as training from './views/training.js';

const VIEWS = { line, review, history, thresholds, models, training, recipe, drift, inspection };
const TABS = {
  line: 'Line', review: 'Review', history: 'History', thresholds: 'Thresholds', models: 'Models',
  training: 'Training', recipe: 'Recipe', drift: 'Drift',
};
const LANGUAGE_NAMES = { en: 'English', ja: '日本語' };
const CHANGING = ['thresholds', 'models', 'training', 'recipe'];
const EVERY_MS = 3000;

/** What every view is given: the recipe and the operator that are chosen, and how to ask who. */
const shell = {
  recipes: [],
  get recipe() {
    const wanted = localStorage.getItem('kizu.recipe');
    const names = this.recipes.map((one) => one.recipe_id);
    return names.includes(wanted) ? wanted : names[0] ?? null;
  },
  get operator() {
    return session.name ?? byId('operator').value.trim();
  },
  /** The operator's name, asked for where there is none; null where it was not told. */
  async askOperator() {
    return this.operator || remember(await askName());
  },
  open: (path) => { location.hash = `#/${path}`; },
};

function remember(name) {
  if (name) {
    byId('operator').value = name;
    localStorage.setItem('kizu.operator', name);
  }
  return name;
}

let leave = () => {};
let shown = 0;
let begun = false;

async function show() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, '').split('/');
  const known = Object.hasOwn(VIEWS, name);
  const view = known ? VIEWS[name] : line;
  leave();
  leave = () => {};
  shown += 1;
  const turn = shown;
  markTab(known ? name : 'line');
  const place = element('div', { class: `view ${known ? name : 'line'}` });
  fill(byId('view'), place);
  if (!shell.recipes.length && view !== history && view !== inspection) {
    fill(place, element('p', { class: 'empty' }, t('No bundle is loaded. Fit one into the store with kizu-train fit; this page notices.')));
    return;
  }
  if (CHANGING.includes(name) && !may('engineer')) {
    const note = element('p', { class: 'may-look' }, t('You can look at this; to change it takes an engineer.'));
    byId('view').prepend(note);
  }
  const left = await view.open(place, shell, rest.map(decoded));
  if (turn === shown) leave = left ?? (() => {});
  else left?.(); // another view was asked for meanwhile
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // whoever wrote the address did not encode it
  }
}

function drawFrame() {
  fill(byId('nav'), Object.entries(TABS).map(([name, title]) => element('a', { href: `#/${name}`, data: { view: name } }, t(title))));
  const operator = element('input', {
    id: 'operator', maxLength: 200, required: true, autocomplete: 'name', placeholder: t('your name'), 'aria-label': t('Operator'),
    onchange: ({ target }) => {
      target.value = target.value.trim();
      localStorage.setItem('kizu.operator', target.value);
    },
  });
  operator.value = localStorage.getItem('kizu.operator') ?? '';
  fill(byId('who'),
    element('select', { id: 'recipe', 'aria-label': t('Recipe'), onchange: ({ target }) => {
      localStorage.setItem('kizu.recipe', target.value);
      show();
    } }),
    session.name ? user() : operator,
    element('select', { id: 'language', 'aria-label': t('Language'), onchange: ({ target }) => chooseLanguage(target.value) },
      languages.map((one) => element('option', { value: one, selected: one === currentLanguage() }, LANGUAGE_NAMES[one]))));
}

function user() {
  return element('span', { class: 'user' },
    element('strong', {}, session.name),
    element('span', { class: 'quiet' }, t(session.role)),
    element('button', { onclick: () => logOut() }, t('Log out')));
}

function markTab(name) {
  for (const link of byId('nav').children) {
    if (link.dataset.view === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${t(TABS[name] ?? 'Inspection')} · Kizu`;
}

async function look() {
  try {
    const [health, recipes] = await Promise.all([readHealth(), listRecipes()]);
    const names = (list) => list.map((one) => one.recipe_id).join('\n');
    const changed = names(recipes) !== names(shell.recipes);
    shell.recipes = recipes;
    showState(health);
    if (changed || !begun) {
      begun = true;
      drawRecipes();
      show();
    }
    resend();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    drawState('down', `${error.title}: ${error.detail}`);
  }
  setTimeout(look, EVERY_MS);
}

function drawRecipes() {
  const select = byId('recipe');
  fill(select, shell.recipes.map((one) => element('option', { selected: one.recipe_id === shell.recipe }, one.recipe_id)));
  select.hidden = shell.recipes.length < 2;
}

function showState({ status, problems }) {
  const text = status === 'ready' ? t('ready') : t('not ready');
  const more = problems.length ? ` · ${t('{n} refused', { n: problems.length })}` : '';
  drawState(status === 'ready' ? 'ready' : 'waiting', text + more, problems.join('\n'));
}

function drawState(state, text, title = '') {
  byId('state').dataset.state = state;
  byId('state').title = title;
  setText(byId('state'), text);
}

drawFrame();
drawState('waiting', t('connecting …'));
window.addEventListener('hashchange', () => begun && show());
begin(() => {
  drawFrame();
  if (begun) drawRecipes();
}).catch((error) => {
  if (!(error instanceof Problem)) throw error; // look() says that nothing answers
}).finally(look);
