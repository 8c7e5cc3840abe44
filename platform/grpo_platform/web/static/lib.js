// What every page is made of: words, calls of the API, formats, and small components.
import {
  Component, createContext, html, render, useCallback, useContext, useEffect, useLayoutEffect, useMemo,
  useReducer, useRef, useState,
} from './vendor/htm-preact.js';

export {
  Component, createContext, html, render, useCallback, useContext, useEffect, useLayoutEffect, useMemo,
  useReducer, useRef, useState,
};

const data = JSON.parse(document.getElementById('data').textContent);

export const language = data.language;

// Sentences of the server's that the catalogue has in the page's language, by the English ones.
export const known = data.known;

// A page of the MLflow UI, where it is on: of a `run` by its id, of a `model` by its name.
export function InMlflow({ kind, id }) {
  const ways = data.mlflow;
  return ways && html`<a class="button" href=${ways[kind] + encodeURIComponent(id) + ways.suffix} target="_blank" rel="noopener">${t('mlflow')}</a>`;
}

// The text of a key; `n` chooses `key.one` where there is one.
export function t(key, values = {}) {
  const one = values.n === 1 && data.messages[`${key}.one`];
  const text = one || data.messages[key] || key;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === 'number' ? value.toLocaleString(language) : String(value ?? '');
  });
}

// A failed call: `detail` says what to do, `errors` which fields are at fault.
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || t('error.status', { status }));
    this.status = status;
    this.kind = (problem.type || '').split(':').pop();
    this.errors = problem.errors || [];
  }
}

export async function api(method, path, body) {
  let reply;
  try {
    reply = await fetch(path, {
      method,
      headers: { Accept: 'application/json', ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, { detail: t('error.offline') });
  }
  if (reply.status === 401) {
    location.assign(`/app/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new ApiError(reply.status, answer);
  return answer;
}

// What was asked for before there was anybody to take it: who asks first gets it.
const early = new Map();
export function ahead(path) {
  const answer = api('GET', path);
  answer.catch(() => {});
  early.set(path, answer);
}

export function get(path) {
  const answer = early.get(path);
  early.delete(path);
  return answer || api('GET', path);
}

export const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : '';
};

// What a path gives, asked for again every `seconds(data)` while the page is visible; 0 asks once.
export function useApi(path, seconds = () => 0) {
  const [state, setState] = useState({ data: null, error: null, path: null });
  const wait = useRef(seconds);
  wait.current = seconds;
  const [asked, reload] = useReducer((n) => n + 1, 0);
  useEffect(() => {
    if (!path) return undefined;
    let timer = 0;
    let left = false;
    let last = null;
    const ask = async () => {
      if (document.hidden && last) {
        timer = setTimeout(ask, 1000);
        return;
      }
      let error = null;
      try {
        last = await get(path);
      } catch (failure) {
        error = failure;
      }
      if (left) return;
      setState({ data: last, error, path });
      const next = wait.current(last);
      if (next && !(error && error.status >= 400 && error.status < 500 && error.status !== 429)) {
        timer = setTimeout(ask, next * 1000 * (error ? 3 : 1));
      }
    };
    ask();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [path, asked]);
  const stale = state.path !== path;
  return { data: stale ? null : state.data, error: stale ? null : state.error, reload };
}

// --- formats

const grouped = (digits) => new Intl.NumberFormat(language, { maximumFractionDigits: digits });
const [whole, one, two] = [grouped(0), grouped(1), grouped(2)];

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && size < 0.01) return value.toPrecision(2);
  if (Number.isInteger(value) || size >= 1000) return whole.format(value);
  return (size >= 10 ? one : two).format(value);
}

export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(total / 3600), Math.floor((total % 3600) / 60), total % 60];
  if (h) return t('time.hours', { h, m });
  return m ? t('time.minutes', { m, s }) : t('time.seconds', { s });
}

const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto', style: 'short' });
const absolute = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' });

export function Ago({ time }) {
  if (!time) return html`<span>–</span>`;
  const date = new Date(time);
  const seconds = (date - Date.now()) / 1000;
  const [unit, size] = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]].find(
    ([, length]) => Math.abs(seconds) >= length) || ['second', 1];
  const text = Math.abs(seconds) < 10 ? t('time.now') : relative.format(Math.round(seconds / size), unit);
  return html`<time datetime=${time} title=${absolute.format(date)}>${text}</time>`;
}

export const short = (id) => id.slice(0, 8);
export const ENDED = new Set(['completed', 'failed', 'stopped']);

// --- components

export function Status({ status, progress, message }) {
  const running = status === 'running' || (status === 'queued' && progress > 0);
  return html`<span class="status ${status}"><span class="dot" aria-hidden="true"></span>${t(`status.${status}`)}
    ${running && html`<progress max="1" value=${progress} aria-label=${t('progress')}></progress>
      <span class="muted">${Math.floor(progress * 100)} %</span>`}
    ${message && html`<span class="muted wide">${message}</span>`}</span>`;
}

// A number with the interval of that same number.
export function Estimate({ value, low, high }) {
  if (value === null || value === undefined) return html`<span class="dash">–</span>`;
  const interval = low !== null && low !== undefined && high !== null && high !== undefined;
  return html`<span class="estimate"><strong>${number(value)}</strong>
    ${interval && html`<span class="muted" title=${t('interval')}>${number(low)} – ${number(high)}</span>`}</span>`;
}

export function Sparkline({ points, label }) {
  if (!points || points.length < 2) return html`<span class="spark"></span>`;
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0].step, points[points.length - 1].step];
  const x = (step) => 1 + (98 * (step - first)) / (last - first || 1);
  const y = (value) => 25 - (22 * (value - low)) / (high - low || 1);
  const path = points.map((point) => `${x(point.step).toFixed(1)},${y(point.value).toFixed(1)}`).join(' ');
  return html`<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" role="img"
    aria-label=${t('spark', { label, low: number(low), high: number(high), last: number(values[values.length - 1]) })}>
    <polyline points=${path} fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"/></svg>`;
}

// What went wrong: its kind in the page's language, then what the server says of it.
export function Fault({ error }) {
  if (language === 'en' || !error.kind) return error.message;
  return html`<strong>${t(`problem.${error.kind}`)}</strong> <span lang="en">${error.message}</span>`;
}

export function Problem({ error, retry }) {
  if (!error) return null;
  return html`<div class="notice problem" role="alert"><p><${Fault} error=${error} /></p>
    ${retry && html`<button type="button" onClick=${retry}>${t('retry')}</button>`}</div>`;
}

export const Loading = () => html`<p class="loading" aria-busy="true">${t('loading')}</p>`;

// A page's head: where one is, what it is called, and what can be done.
export function PageHead({ title, trail, children }) {
  useEffect(() => {
    document.title = `${title} · GRPO Platform`;
  }, [title]);
  return html`<div class="head">
    <div>${trail && html`<p class="trail">${trail}</p>`}<h1>${title}</h1></div>
    <div class="actions">${children}</div></div>`;
}

export function Dialog({ title, onClose, wide, children }) {
  const ref = useRef();
  useEffect(() => {
    ref.current.showModal();
    const first = ref.current.querySelector('form :is(textarea, input, .primary, .danger)');
    if (first) first.focus();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onClose=${onClose}>
    <div class="dialog-head"><h2 id="dialog-title">${title}</h2>
      <button type="button" class="quiet" aria-label=${t('close')} onClick=${() => ref.current.close()}>✕</button></div>
    ${children}</dialog>`;
}

// Ask before something is done; with `reason`, why, in the user's words. False where it is not wanted.
export function ask({ title, text, action, danger, reason }) {
  return new Promise((resolve) => {
    const place = document.body.appendChild(document.createElement('div'));
    let answer = false;
    const done = () => {
      render(null, place);
      place.remove();
      resolve(answer);
    };
    const submit = (event) => {
      event.preventDefault();
      answer = { reason: reason ? new FormData(event.target).get('reason').trim() : '' };
      event.target.closest('dialog').close();
    };
    render(html`<${Dialog} title=${title} onClose=${done}>
      <form onSubmit=${submit}><p>${text}</p>
        ${reason && html`<label for="reason">${reason}</label>
          <textarea id="reason" name="reason" rows="3" maxlength="500" required></textarea>`}
        <div class="dialog-foot">
          <button type="button" onClick=${(event) => event.target.closest('dialog').close()}>${t('cancel')}</button>
          <button class=${danger ? 'danger' : 'primary'}>${action}</button></div></form><//>`, place);
  });
}

// Tell what happened: shown for a while, and read out.
let silence = 0;
export function say(text, isError = false) {
  const place = document.getElementById('said');
  place.textContent = text;
  place.className = isError ? 'error' : '';
  clearTimeout(silence);
  silence = setTimeout(() => {
    place.className = 'hidden';
    place.textContent = '';
  }, isError ? 12000 : 5000);
}

// Do something after it was confirmed, say how it went, and look again.
export async function act(question, method, path, body, done, told = () => t('done')) {
  const answer = question ? await ask(question) : {};
  if (!answer) return;
  try {
    const reply = await api(method, typeof path === 'function' ? path(answer) : path, typeof body === 'function' ? body(answer) : body);
    say(told(reply));
    if (done) done(reply);
  } catch (error) {
    say(error.message, true);
  }
}

export function Copy({ text }) {
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    say(t('copied'));
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${t('copy')}</button>`;
}

export function Tabs({ label, tabs, chosen, onChoose }) {
  return html`<div class="tabs" role="group" aria-label=${label}>${tabs.map(([key, text]) => html`
    <button type="button" aria-pressed=${key === chosen} onClick=${() => onChoose(key)}>${text}</button>`)}</div>`;
}
