// The service's public API as functions. Whatever is not a result is thrown as a Problem.

const JSON_TYPE = { 'Content-Type': 'application/json' };

/** Why there is no result: an RFC 9457 problem, or no answer at all. */
export class Problem extends Error {
  constructor({ title, detail, request_id = '', retryable = false }) {
    super(detail);
    this.title = title;
    this.detail = detail;
    this.requestId = request_id;
    this.retryable = retryable;
  }
}

/** A new Idempotency-Key. (crypto.randomUUID is missing on plain http, where plants run this.) */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The state of the service; not being ready is an answer too. */
export async function readHealth() {
  const { status, body } = await send('/health/ready');
  return status === 503 && body?.status === 'not ready' ? body : resultOf(status, body);
}

/** A page of inspections, the newest first; `before` is the `next` of the page before. */
export function listInspections(limit, before = null) {
  const query = new URLSearchParams({ limit, ...(before && { before }) });
  return ask(`/v1/inspections?${query}`);
}

export function getInspection(id) {
  return ask(`/v1/inspections/${encodeURIComponent(id)}`);
}

/** Inspect one image file as it is. */
export function inspect(file, { recipe, partId, key }) {
  const query = new URLSearchParams({
    ...(recipe && { recipe }),
    ...(partId && { part_id: partId }),
  });
  const headers = { 'Content-Type': file.type || 'application/octet-stream', 'Idempotency-Key': key };
  return ask(`/v1/inspect?${query}`, { method: 'POST', headers, body: file }, 60);
}

/** Store a label; on disk once this returns. */
export function giveFeedback(label, key) {
  const headers = { ...JSON_TYPE, 'Idempotency-Key': key };
  return ask('/v1/feedback', { method: 'POST', headers, body: JSON.stringify(label) });
}

/** Why the browser shows nothing for an image's address. */
export async function whyUnseen(address) {
  try {
    const { status, type, body } = await send(address);
    if (status === 200) return `This browser cannot show ${type || 'the file'}. Open it in full size.`;
    return resultOf(status, body);
  } catch (error) {
    if (error instanceof Problem) return error.detail;
    throw error;
  }
}

async function ask(path, options, seconds) {
  const { status, body } = await send(path, options, seconds);
  return resultOf(status, body);
}

function resultOf(status, body) {
  if (status < 300 && body !== null) return body;
  throw new Problem({
    ...body,
    title: body?.title ?? `HTTP ${status}`,
    detail: body?.detail ?? 'The answer is not one of Kizu’s: is something in between?',
    retryable: body?.retryable ?? status >= 500,
  });
}

async function send(path, options = {}, seconds = 15) {
  try {
    const response = await fetch(path, { ...options, signal: AbortSignal.timeout(1000 * seconds) });
    const type = response.headers.get('content-type') ?? '';
    return { status: response.status, type, body: parsed(type, await response.text()) };
  } catch (error) {
    const detail = error.name === 'TimeoutError'
      ? `The service did not answer within ${seconds} s.`
      : 'The service cannot be reached.';
    throw new Problem({ title: 'No answer', detail, retryable: true });
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
