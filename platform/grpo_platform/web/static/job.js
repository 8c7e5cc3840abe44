// One job, live: curves with the band of its experiment, evaluations, updates, configuration, log, films.
import { Chart, colour } from './chart.js';
import { JobActions, Verdict } from './jobs.js';
import {
  Ago, ENDED, Estimate, InMlflow, Loading, PageHead, Problem, Status, duration, get, html, number, query, short, t,
  useApi, useEffect, useMemo, useRef, useState,
} from './lib.js';
import { Said } from './said.js';

const [RETURN, REWARD, EVALUATION] = ['rollout/ep_rew_mean', 'rollout/reward', 'eval/mean_reward'];
const UPDATES = ['train/policy_loss', 'train/value_loss', 'train/entropy', 'train/approx_kl', 'train/clip_fraction',
  'train/grad_norm', 'train/explained_variance', 'rollout/degenerate_fraction', 'rollout/sibling_fraction',
  'rollout/shared_variance', 'rollout/ep_len_mean', 'time/fps'];
const MOST_POINTS = 2000;

export default function JobPage({ id }) {
  const { job, curves, error, again } = useLive(id);
  const configured = useApi(`/training/${id}/config`);
  const experiment = job && job.experiment_id;
  const band = useApi(experiment ? `/experiments/${experiment}/history` : null, () => (ENDED.has(job.status) ? 0 : 15));
  const threshold = configured.data && configured.data.threshold;
  const random = randomReturn(job);
  const lines = useMemo(() => [
    ...(threshold === null || threshold === undefined ? [] : [{ label: t('job.threshold'), y: threshold }]),
    ...(random === null ? [] : [{ label: t('job.random'), y: random }]),
  ], [threshold, random]);
  const returns = useMemo(() => {
    const found = [series(t('job.return'), curves[RETURN], 0)];
    const points = band.data && band.data.points;
    if (points && points.length) {
      found.push({ label: t('job.seeds'), colour: colour(7), x: points.map((p) => p.step), y: points.map((p) => p.iqm),
        low: points.map((p) => p.ci_low), high: points.map((p) => p.ci_high) });
    }
    if (curves[EVALUATION].length) found.push(series(t('job.evaluation'), curves[EVALUATION], 1));
    return found;
  }, [curves, band.data]);
  const reward = useMemo(() => [series(t('job.reward'), curves[REWARD], 2)], [curves]);
  if (error && !job) return html`<${PageHead} title=${short(id)} /><${Problem} error=${error} retry=${again} />`;
  if (!job) return html`<${PageHead} title=${short(id)} trail=${html`<${Up} />`}><${InMlflow} kind="run" id=${id} /><${Watch} id=${id} /><//><${Loading} />`;
  const m = job.metrics;
  return html`
    <${PageHead} title=${job.model_name} trail=${html`<${Up} /> / ${job.env_name}
      ${experiment && html` / <a href=${`/app/experiments/${experiment}`}>${t('jobs.experiment', { id: short(experiment) })}</a>`}`}>
      <${InMlflow} kind="run" id=${id} />
      ${job.model_version !== null && html`<a class="button" href=${`/app/models/${encodeURIComponent(job.model_name)}`}>${t('job.version', { version: String(job.model_version) })}</a>`}
      <${Watch} id=${id} />
      <span class="bordered"><${JobActions} job=${job} onDone=${again} onDeleted=${() => location.assign('/app')} /></span>
    <//>
    <${Problem} error=${error} />
    ${job.error_message && html`<div class="notice problem"><p><${Said} text=${job.error_message} /></p></div>`}
    <dl class="facts">
      <div><dt>${t('jobs.status')}</dt><dd aria-live="polite"><${Status} status=${job.status} progress=${job.progress} message=${job.status_message && html`<${Said} text=${job.status_message} />`} /></dd></div>
      <div><dt>${t('job.steps')}</dt><dd>${number(job.current_timesteps)} <span class="muted">/ ${number(job.total_timesteps)}</span></dd></div>
      <div><dt>${t('jobs.return')}</dt><dd><${Estimate} value=${m[EVALUATION]} low=${m['eval/ci_low']} high=${m['eval/ci_high']} /></dd></div>
      <div><dt>${t('job.speed')}</dt><dd>${m['time/fps'] ? t('job.fps', { n: Math.round(m['time/fps']) }) : '–'}</dd></div>
      <div><dt>${t('jobs.time')}</dt><dd>${ENDED.has(job.status) ? html`<${Ago} time=${job.end_time} />`
        : job.eta_seconds === null ? '–' : t('jobs.eta', { time: duration(job.eta_seconds) })}</dd></div>
      ${job.attempt > 1 && html`<div><dt>${t('job.attempt')}</dt><dd>${job.attempt}</dd></div>`}
      <div class="wide"><dt>${t('jobs.verdict')}</dt><dd><${Verdict} job=${job} long />${Object.values(job.hints).map((hint) => html`<p><${Said} text=${hint} /></p>`)}</dd></div>
    </dl>
    <div class="columns">
      <section>
        <div class="card"><${Chart} title=${t('job.returns')} series=${returns} lines=${lines} height=${300} /></div>
        <div class="card"><${Chart} title=${t('job.rewards')} series=${reward} height=${180} /></div>
        <${Updates} id=${id} job=${job} />
        <${Log} id=${id} ended=${ENDED.has(job.status)} />
      </section>
      <aside>
        <${Films} id=${id} completed=${job.status === 'completed'} />
        <${Configuration} configured=${configured} />
      </aside>
    </div>`;
}

const Up = () => html`<a href="/app">${t('nav.jobs')}</a>`;
const Watch = ({ id }) => html`<a class="button" href=${`/app/play?job=${id}`}>${t('play.watch')}</a>`;

const series = (label, points, place) => ({ label, colour: colour(place), x: points.map((p) => p[0]), y: points.map((p) => p[1]) });

// Mean return of random actions on the evaluation's seeds; none before the end.
function randomReturn(job) {
  return job && job.verdict ? job.verdict.random.mean : null;
}

// The job and its curves, from the stream of its events; after its end, until it is resumed.
function useLive(id) {
  const [job, setJob] = useState(null);
  const [error, setError] = useState(null);
  const [curves, setCurves] = useState({ [RETURN]: [], [REWARD]: [], [EVALUATION]: [] });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let left = false;
    const found = { [RETURN]: [], [REWARD]: [], [EVALUATION]: [] };
    const show = () => !left && setCurves(Object.fromEntries(Object.entries(found).map(([key, points]) => [key, thin(points)])));
    get(`/training/${id}/status`).then((first) => !left && setJob((now) => now || first), (failure) => !left && setError(failure));
    const source = new EventSource(`/training/${id}/events`);
    let timer = 0;
    source.addEventListener('metrics', (event) => {
      const { step, metrics } = JSON.parse(event.data);
      for (const [key, value] of Object.entries(metrics)) if (found[key]) found[key].push([step, value]);
      if (!timer) {
        timer = setTimeout(() => {
          timer = 0;
          show();
        }, 200);
      }
    });
    const state = (event) => {
      const told = JSON.parse(event.data);
      if (told.status !== 'deleted') setJob(told);
      else location.assign('/app');
      setError(null);
    };
    source.addEventListener('progress', state);
    source.addEventListener('end', (event) => {
      source.close();
      state(event);
      show();
    });
    return () => {
      left = true;
      clearTimeout(timer);
      source.close();
    };
  }, [id, turn]);
  // the verdict comes after the end: look once more
  useEffect(() => {
    if (!job || job.status !== 'completed' || job.promoted !== null) return undefined;
    const timer = setTimeout(() => get(`/training/${id}/status`).then(setJob, () => {}), 2000);
    return () => clearTimeout(timer);
  }, [job]);
  return { job, curves, error, again: () => setTurn(turn + 1) };
}

function thin(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return every <= 1 ? points.slice() : points.filter((_, i) => i % every === 0 || i === points.length - 1);
}

// What the updates did, once it is opened.
function Updates({ id, job }) {
  const [open, setOpen] = useState(false);
  const [histories, setHistories] = useState({});
  const keys = UPDATES.filter((key) => key in job.metrics);
  const moment = open ? `${job.status}${Math.floor(job.progress * 20)}` : '';
  useEffect(() => {
    if (!open) return undefined;
    let left = false;
    (async () => {
      for (const key of keys) {
        const { points } = await get(`/training/${id}/metrics${query({ key, max_points: 300 })}`).catch(() => ({ points: [] }));
        if (left) return;
        setHistories((before) => ({ ...before, [key]: [series(key, points.map((p) => [p.step, p.value]), 0)] }));
      }
    })();
    return () => {
      left = true;
    };
  }, [moment]);
  return html`<details class="card" onToggle=${(event) => setOpen(event.target.open)}><summary>${t('job.updates')}
      <span class="muted">${t('job.updates_help')}</span></summary>
    ${open && html`<div class="grid">${keys.map((key) => histories[key] && html`<${Chart} key=${key} series=${histories[key]} height=${130} />`)}</div>`}</details>`;
}

function Log({ id, ended }) {
  const [open, setOpen] = useState(false);
  const { data, error } = useApi(open ? `/training/${id}/logs?tail=200` : null, () => (ended ? 0 : 3));
  const place = useRef();
  useEffect(() => {
    if (place.current) place.current.scrollTop = place.current.scrollHeight;
  }, [data]);
  return html`<details class="card" onToggle=${(event) => setOpen(event.target.open)}><summary>${t('job.log')}</summary>
    <${Problem} error=${error} />
    ${data && html`<pre ref=${place} class="log" tabindex="0">${data.lines.join('\n') || t('job.no_log')}</pre>`}</details>`;
}

function Configuration({ configured: { data, error } }) {
  const [all, setAll] = useState(false);
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  const changed = Object.keys(data.preset).sort();
  const fields = all ? Object.keys(data.config).sort() : changed;
  const text = (value) => (value === null ? 'null' : typeof value === 'object' ? JSON.stringify(value) : String(value));
  return html`<section class="card"><div class="card-head"><h2>${t('job.config')}</h2>
      <button type="button" class="quiet" aria-pressed=${all} onClick=${() => setAll(!all)}>${all ? t('job.config_changed') : t('job.config_all')}</button></div>
    ${fields.length === 0 ? html`<p class="muted">${t('job.config_same')}</p>` : html`<div class="scroll bare"><table class="config"><thead><tr>
      <th scope="col">${t('job.field')}</th><th scope="col">${t('job.value')}</th><th scope="col">${t('job.preset')}</th></tr></thead>
      <tbody>${fields.map((name) => html`<tr><th scope="row"><code>${name}</code></th>
        <td>${name in data.preset ? html`<strong>${text(data.config[name])}</strong>` : text(data.config[name])}</td>
        <td class="muted">${name in data.preset ? text(data.preset[name]) : ''}</td></tr>`)}</tbody></table></div>`}
    <p class="muted">${t('job.seed', { seed: String(data.config.seed) })}</p></section>`;
}

// The film of greedy episodes, and the worst ones, once a job is completed.
function Films({ id, completed }) {
  const { data } = useApi(completed ? `/training/${id}/failures` : null, (found) => (found && found.failures.length === 0 && found.notes.length ? 5 : 0));
  if (!completed) return null;
  return html`<section class="card"><h2>${t('job.films')}</h2><${Film} src=${`/training/${id}/film`} label=${t('job.film')} />
    ${data && data.failures.length > 0 && html`<details><summary>${t('job.failures', { n: data.failures.length })}</summary>
      <${Failures} id=${id} found=${data} /></details>`}</section>`;
}

// A film, once it is there: it is made after the end, so it is asked for again, ever more rarely. A video
// that has failed once shows nothing in some browsers, also when its address has a film since.
export function Film({ src, label }) {
  const [there, setThere] = useState(false);
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (there || tries > 9) return undefined;
    let left = false;
    const timer = setTimeout(async () => {
      const reply = await fetch(src, { method: 'HEAD' }).catch(() => null);
      if (!left && reply && reply.ok) setThere(true);
      else if (!left) setTries(tries + 1);
    }, 6000 * tries);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [there, tries]);
  if (there) return html`<video src=${src} controls muted loop playsinline preload="metadata" aria-label=${label}></video>`;
  return tries ? html`<p class="muted">${t('job.no_film')}</p>` : null;
}

export function Failures({ id, found }) {
  return html`<ol class="failures">${found.failures.map((failure) => html`<li key=${failure.number}>
    ${failure.clip && html`<${Film} src=${`/training/${id}/failures/${failure.number}/film`} label=${t('job.failure', { n: failure.number })} />`}
    <p><strong>${number(failure.return)}</strong> <span class="muted">${t('job.failure_facts', { length: failure.length, seed: String(failure.seed), step: failure.collapse.step })}</span></p></li>`)}</ol>
    <p class="muted">${t('job.median', { n: number(found.median) })}</p>`;
}
