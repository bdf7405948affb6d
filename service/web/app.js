// The page: what is selected, what the keys do, and a look at the service every two seconds.

import { getInspection, giveFeedback, listInspections, newKey, Problem, readHealth } from './api.js';
import { showInspection, showLabel } from './detail.js';
import { drawList, onSelect, revealRow } from './list.js';
import { showProblem } from './notices.js';
import { Recent } from './recent.js';
import { onInspected } from './uploads.js';
import { byId, setText } from './words.js';

const PAGE = 30;
const EVERY_MS = 2000;
const LABEL_KEYS = { o: 'ok', n: 'ng', u: 'unsure' };
const MOVE_KEYS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

const recent = new Recent(PAGE);
const sending = new Set();
let selected = null; // the id; only the operator changes it, or a label could meet another part

function draw() {
  drawList(recent.items, selected);
  byId('older').hidden = recent.next === null;
  const item = recent.find(selected);
  if (item) showLabel(item.feedback);
  drawOptions(byId('defects'), defectClasses());
}

function select(id) {
  selected = id;
  byId('defect').value = '';
  showInspection(recent.find(id));
  draw();
  revealRow(id);
}

function move(step) {
  const index = recent.items.findIndex((item) => item.id === selected);
  const target = recent.items[index < 0 ? 0 : index + step];
  if (target) select(target.id);
}

async function lookAgain() {
  try {
    const [health, page] = await Promise.all([readHealth(), listInspections(PAGE)]);
    showHealth(health);
    recent.takeNewest(page);
    draw();
    if (selected === null && recent.items.length) select(recent.items[0].id);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showState('down', `${error.title}: ${error.detail}`);
  } finally {
    setTimeout(lookAgain, EVERY_MS);
  }
}

async function showOlder() {
  const before = recent.next;
  byId('older').disabled = true;
  await orProblem('Older inspections', async () => {
    const page = await listInspections(PAGE, before);
    if (recent.next === before) recent.takeOlder(page);
    draw();
  });
  byId('older').disabled = false;
}

function showHealth({ status, recipes, problems }) {
  showState(status === 'ready' ? 'ready' : 'waiting', status);
  const names = Object.keys(recipes);
  drawItems(byId('recipes'), names.map((name) => `${name} ${recipes[name]}`));
  drawOptions(byId('recipe'), names);
  byId('which').hidden = names.length < 2;
  byId('refused').hidden = problems.length === 0;
  setText(byId('refused').querySelector('summary'), `${problems.length} refused`);
  drawItems(byId('refused').querySelector('ul'), problems);
}

function showState(state, text) {
  byId('state').dataset.state = state;
  setText(byId('state'), text);
}

async function label(verdict) {
  const operator = byId('operator');
  if (selected === null || sending.has(selected)) return;
  if (!operator.reportValidity()) return; // asks who is labelling
  const defect = byId('defect').value.trim();
  await store({
    inspection_id: selected,
    verdict,
    operator: operator.value.trim(),
    ...(verdict === 'ng' && defect && { defect_class: defect }),
  }, newKey());
}

async function store(feedback, key) {
  const id = feedback.inspection_id;
  sending.add(id);
  await orProblem(`Label ${feedback.verdict}`, async () => {
    await giveFeedback(feedback, key);
    const item = await getInspection(id);
    recent.take(item);
    if (selected === id) showLabel(item.feedback);
    draw();
  }, () => store(feedback, key)).finally(() => sending.delete(id));
}

async function orProblem(what, action, retry = action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(what, error, retry);
  }
}

function defectClasses() {
  const found = recent.items.map((item) => item.feedback?.defect_class).filter(Boolean);
  return [...new Set(found)].sort();
}

function drawOptions(element, values) {
  if ([...element.children].map((option) => option.value).join('\n') === values.join('\n')) return;
  element.replaceChildren(...values.map((value) => new Option(value)));
}

function drawItems(element, texts) {
  if ([...element.children].map((item) => item.textContent).join('\n') === texts.join('\n')) return;
  element.replaceChildren(...texts.map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
}

function onKey(event) {
  const typing = event.target.matches('input:not([type=checkbox]), select');
  if (event.key === 'Escape') document.activeElement.blur();
  if (event.target === byId('defect') && event.key === 'Enter') label('ng');
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const verdict = LABEL_KEYS[event.key.toLowerCase()];
  const step = MOVE_KEYS[event.key];
  if (!verdict && !step) return;
  event.preventDefault();
  if (step) move(step);
  else if (!event.repeat) label(verdict);
}

function rememberOperator() {
  const operator = byId('operator');
  operator.value = localStorage.getItem('kizu.operator') ?? '';
  operator.addEventListener('change', () => {
    operator.value = operator.value.trim();
    localStorage.setItem('kizu.operator', operator.value);
  });
}

onSelect(select);
onInspected((result, before) => {
  recent.take(result);
  // Only where the operator has not gone elsewhere meanwhile.
  if (selected === before) select(result.id);
  else draw();
}, () => selected);
for (const button of byId('label').querySelectorAll('button')) {
  button.addEventListener('click', () => label(button.dataset.verdict));
}
byId('older').addEventListener('click', showOlder);
document.addEventListener('keydown', onKey);
rememberOperator();
lookAgain();
