// The service's public API as functions. Whatever is not a result is thrown as a Problem.

import { t } from './texts.js';

const SESSION = '/v1/session';
const JSON_TYPE = { 'Content-Type': 'application/json' };

/** Why there is no result: an RFC 9457 problem, or no answer at all. */
export class Problem extends Error {
  constructor({ title, detail, request_id = '', retryable = false, status = 0 }) {
    super(detail);
    this.title = title;
    this.detail = detail;
    this.requestId = request_id;
    this.retryable = retryable;
    this.status = status;
  }
}

/** A new Idempotency-Key. (crypto.randomUUID is missing on plain http, where plants run this.) */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// What a user's browser shows with all that it changes; who asks where nobody is known, and who is
// told of every answer to it.
let csrf = null;
let askWho = null;
let tell = () => {};

export const readSession = async () => known(await get(SESSION));
export const logIn = async (name, password) => known(await post(SESSION, { name, password }));

export async function logOut() {
  await ask(SESSION, { method: 'DELETE' });
  return readSession();
}

/** `ask` resolves once somebody has logged in: what was refused is then sent again. `know` is given
 * every session that is found. */
export function watchSession(ask, know) {
  askWho = ask;
  tell = know;
}

function known(session) {
  csrf = session.csrf;
  tell(session);
}

/** The state of the service; not being ready is an answer too. */
export async function readHealth() {
  const { status, body } = await send('/health/ready');
  return status === 503 && body?.status === 'not ready' ? body : resultOf(status, body);
}

export const listRecipes = () => get('/v1/recipes');
export const getRecipe = (recipe) => get(of(recipe));
export const countShift = (recipe) => get('/v1/shift', { recipe });
export const listCameras = () => get('/v1/cameras');
export const reportDrift = () => get('/v1/drift');

/** A page of inspections, the newest first; `before` is the `next` of the page before. */
export const listInspections = (wanted) => get('/v1/inspections', wanted);
export const getInspection = (id) => get(inspection(id));
export const getTrail = (id) => get(inspection(id, 'trail'));

export const claimReview = (asked) => post('/v1/review/claims', asked);
export const releaseReview = (asked) => post('/v1/review/releases', asked, { keepalive: true });

export const countScores = (recipe) => get(of(recipe, 'scores'));
export const foreseeThresholds = (recipe, lines) => get(of(recipe, 'thresholds/consequences'), lines);
export const listThresholds = (recipe) => get(of(recipe, 'thresholds'));
export const setThresholds = (recipe, asked) => post(of(recipe, 'thresholds'), asked);

export const listBundles = (recipe) => get(of(recipe, 'bundles'));
export const listPromotions = (recipe) => get(of(recipe, 'promotions'));
export const promote = (recipe, asked) => post(of(recipe, 'promotions'), asked, {}, 120);
export const nominate = (recipe, asked) => post(of(recipe, 'candidates'), asked, {}, 120);
export const compareShadow = (recipe) => get(of(recipe, 'shadow'));

export const listRevisions = (recipe) => get(of(recipe, 'revisions'));
export const reviseRecipe = (recipe, asked) => post(of(recipe, 'revisions'), asked);

export const estimateTraining = (recipe, labels) => post(of(recipe, 'estimate'), labels);
export const askTraining = (recipe, asked) => post(of(recipe, 'trainings'), asked);
export const listTrainings = (recipe) => get('/v1/trainings', { recipe });
export const cancelTraining = (id, by) => post(`/v1/trainings/${encodeURIComponent(id)}/cancel`, { by });
export const retryTraining = (id, by) => post(`/v1/trainings/${encodeURIComponent(id)}/retry`, { by });

/** Inspect one image file as it is. */
export function inspect(file, { recipe, partId, key }) {
  const query = queryOf({ recipe, part_id: partId });
  const headers = { 'Content-Type': file.type || 'application/octet-stream', 'Idempotency-Key': key };
  return ask(`/v1/inspect${query}`, { method: 'POST', headers, body: file }, 60);
}

/** Store a label; on disk once this returns. */
export const giveFeedback = (label, key) => post('/v1/feedback', label, { headers: { 'Idempotency-Key': key } });

/** The mask of a label, or null where the label has none. */
export const getMask = (feedback) => (feedback?.has_mask ? file(`/v1/feedback/${feedback.id}/mask`) : null);

/** The mask that an operator has begun, or null. */
export const getDraft = (id, operator) => file(inspection(id, 'draft') + queryOf({ operator }));

export function keepDraft(id, operator, png) {
  const path = inspection(id, 'draft') + queryOf({ operator });
  return ask(path, { method: 'PUT', headers: { 'Content-Type': 'image/png' }, body: png });
}

export function removeDraft(id, operator) {
  return ask(inspection(id, 'draft') + queryOf({ operator }), { method: 'DELETE' });
}

/** Why the browser shows nothing for an image's address. */
export async function whyUnseen(address) {
  try {
    const { status, type, body } = await send(address);
    if (status === 200) return t('This browser cannot show {type}. Open it in full size.', { type: type || t('the file') });
    return resultOf(status, body);
  } catch (error) {
    if (error instanceof Problem) return error.detail;
    throw error;
  }
}

const of = (recipe, what) => `/v1/recipes/${encodeURIComponent(recipe)}${what ? `/${what}` : ''}`;
const inspection = (id, what) => `/v1/inspections/${encodeURIComponent(id)}${what ? `/${what}` : ''}`;

function queryOf(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}

const get = (path, query = {}) => ask(path + queryOf(query));

function post(path, content, { headers = {}, ...options } = {}, seconds = 15) {
  const body = JSON.stringify(content);
  return ask(path, { method: 'POST', headers: { ...JSON_TYPE, ...headers }, body, ...options }, seconds);
}

async function file(path) {
  const { status, body, blob } = await send(path, {}, 15, true);
  if (status === 204) return null;
  return status < 300 ? blob : resultOf(status, body);
}

async function ask(path, options, seconds) {
  const { status, body } = await send(path, options, seconds);
  return resultOf(status, body);
}

function resultOf(status, body) {
  if (status === 204) return null;
  if (status < 300 && body !== null) return body;
  throw new Problem({
    ...body,
    status,
    title: body?.title ?? `HTTP ${status}`,
    detail: body?.detail ?? t('The answer is not one of Kizu’s: is something in between?'),
    retryable: body?.retryable ?? status >= 500,
  });
}

async function send(path, options = {}, seconds = 15, whole = false) {
  const shown = csrf;
  const answer = await sendOnce(path, options, seconds, whole);
  if (path === SESSION) return answer;
  if (answer.status === 401 && askWho) await askWho();
  else if (answer.status === 403 && shown) await readSession(); // another tab may have logged in
  else return answer;
  return csrf === shown ? answer : sendOnce(path, options, seconds, whole);
}

async function sendOnce(path, options, seconds, whole) {
  try {
    const headers = { ...options.headers, ...(csrf && options.method ? { 'X-Kizu-CSRF': csrf } : {}) };
    const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(1000 * seconds) });
    const type = response.headers.get('content-type') ?? '';
    if (whole && response.ok) return { status: response.status, type, blob: await response.blob() };
    return { status: response.status, type, body: parsed(type, await response.text()) };
  } catch (error) {
    const detail = error.name === 'TimeoutError'
      ? t('The service did not answer within {seconds} s.', { seconds })
      : t('The service cannot be reached.');
    throw new Problem({ title: t('No answer'), detail, retryable: true });
  }
}

function parsed(type, text) {
  if (!/^application\/(problem\+)?json\b/.test(type)) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // resultOf then says that this was no answer of Kizu's
  }
}
