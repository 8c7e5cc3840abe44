// All jobs and experiments: find one, see how it does, start and end them.
import {
  Ago, ENDED, Estimate, Loading, PageHead, Problem, Sparkline, Status, Tabs, act, duration, get, html, query,
  short, t, useApi, useEffect, useMemo, useState,
} from './lib.js';
import { Said, decision, sentences, verdict } from './said.js';

const PAGE = 25;
const CURVE = 'rollout/ep_rew_mean';
const STATES = ['queued', 'running', 'completed', 'failed', 'stopped'];

export default function JobsPage() {
  const [view, setView] = useAddress({ view: 'jobs', status: '', env_name: '', model_name: '', sort: '', grouped: '1', new: '' });
  const [started, setStarted] = useState(0);
  const Start = useModule(view.new, () => import('./start.js'));
  const open = () => setView({ new: '1' });
  const Table = view.view === 'experiments' ? Experiments : Jobs;
  return html`
    <${PageHead} title=${t(`jobs.${view.view}`)}>
      <${Tabs} label=${t('jobs.view')} chosen=${view.view} onChoose=${(key) => setView({ view: key })}
        tabs=${[['jobs', t('jobs.jobs')], ['experiments', t('jobs.experiments')]]} />
      <button type="button" class="primary" onClick=${open}>${t('jobs.start')}</button>
    <//>
    <${Table} view=${view} setView=${setView} started=${started} onStart=${open} />
    ${view.new && Start && html`<${Start} onClose=${() => setView({ new: '' })}
      onStarted=${() => setStarted(started + 1)} />`}`;
}

// What the address says after `?`, so that a view can be linked and reloaded.
function useAddress(defaults) {
  const [values, setValues] = useState(() => {
    const given = new URLSearchParams(location.search);
    return Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, given.get(key) ?? value]));
  });
  const change = (changes) => {
    const next = { ...values, ...changes };
    const told = Object.entries(next).filter(([key, value]) => value !== defaults[key]);
    history.replaceState(null, '', location.pathname + query(Object.fromEntries(told)));
    setValues(next);
  };
  return [values, change];
}

function useModule(wanted, load) {
  const [module, setModule] = useState(null);
  useEffect(() => {
    if (wanted && !module) load().then((found) => setModule(() => found.default));
  }, [wanted]);
  return module;
}

// One page of a list after the other, and the way back.
function usePages(base, name, seconds, started) {
  const [tokens, setTokens] = useState([null]);
  useEffect(() => setTokens([null]), [base, started]);
  const token = tokens[tokens.length - 1];
  const path = base + (token ? `${base.includes('?') ? '&' : '?'}page_token=${encodeURIComponent(token)}` : '');
  const answer = useApi(path, (data) => (data ? seconds(data[name]) : 5));
  useEffect(() => {
    if (started) answer.reload();
  }, [started]);
  const next = answer.data && answer.data.next_page_token;
  const pager = html`<nav class="pager" aria-label=${t('pages.label')}>
    <button type="button" disabled=${tokens.length === 1} onClick=${() => setTokens(tokens.slice(0, -1))}>${t('pages.newer')}</button>
    <span class="muted">${t('pages.number', { n: tokens.length })}</span>
    <button type="button" disabled=${!next} onClick=${() => setTokens([...tokens, next])}>${t('pages.older')}</button></nav>`;
  return { ...answer, items: answer.data && answer.data[name], pager: tokens.length > 1 || next ? pager : null };
}

const often = (items) => (items.some((item) => !ENDED.has(item.status)) ? 2 : 10);

// --- jobs

const SORTS = {
  name: (job) => job.model_name,
  status: (job) => STATES.indexOf(job.status),
  return: (job) => -(job.metrics['eval/mean_reward'] ?? -Infinity),
  time: (job) => -new Date(job.start_time),
};

function Jobs({ view, setView, started, onStart }) {
  const filters = { status: view.status, env_name: view.env_name, model_name: view.model_name };
  const { items, error, reload, pager } = usePages(
    `/training/jobs${query({ ...filters, limit: PAGE })}`, 'jobs', often, started);
  const curves = useCurves(items || []);
  const rows = useMemo(() => arrange(items || [], view.sort, view.grouped), [items, view.sort, view.grouped]);
  const [ticked, setTicked] = useState(new Set());
  const tick = (id) => setTicked((now) => {
    const next = new Set(now);
    if (!next.delete(id)) next.add(id);
    return next;
  });
  const chosen = [...ticked];
  const isFiltered = Object.values(filters).some(Boolean);
  return html`
    <div class="filters"><${Filters} view=${view} setView=${setView} items=${items || []} />
      <label class="check"><input type="checkbox" checked=${view.grouped === '1'}
        onChange=${(e) => setView({ grouped: e.target.checked ? '1' : '0' })} />${t('jobs.group')}</label>
      ${chosen.length > 0 && html`<a class="button ${chosen.length < 2 ? 'off' : ''}"
        href=${chosen.length < 2 ? null : `/app/compare?job=${chosen.join('&job=')}`}>${t('jobs.compare', { n: chosen.length })}</a>`}
    </div>
    <${Problem} error=${error} retry=${reload} />
    ${!items ? !error && html`<${Loading} />` : items.length === 0 ? html`<${Nothing} filtered=${isFiltered} onStart=${onStart} />` : html`
      <div class="scroll"><table class="list jobs"><thead><tr>
        <th scope="col"><span class="hidden">${t('jobs.choose')}</span></th>
        <${SortHead} by="name" view=${view} setView=${setView}>${t('jobs.run')}<//>
        <th scope="col">${t('jobs.curve')}</th>
        <${SortHead} by="status" view=${view} setView=${setView}>${t('jobs.status')}<//>
        <${SortHead} by="return" view=${view} setView=${setView} numeric>${t('jobs.return')}<//>
        <th scope="col">${t('jobs.verdict')}</th>
        <${SortHead} by="time" view=${view} setView=${setView}>${t('jobs.time')}<//>
        <th scope="col"><span class="hidden">${t('jobs.actions')}</span></th></tr></thead>
        <tbody>${rows.map((row) => row.jobs ? html`<${Group} key=${`group-${row.jobs[0].job_id}`} row=${row} />` : html`
          <${JobRow} key=${row.job_id} job=${row} points=${curves.get(row.job_id)} nested=${view.grouped === '1' && row.experiment_id}
            ticked=${ticked.has(row.job_id)} onTick=${() => tick(row.job_id)} onDone=${reload} />`)}</tbody></table></div>
      ${view.sort && pager && html`<p class="muted">${t('jobs.sorted')}</p>`}
      ${pager}`}`;
}

// What is asked of the server: a status, an environment, a model.
function Filters({ view, setView, items }) {
  return html`<label>${t('jobs.status')}<select value=${view.status} onChange=${(e) => setView({ status: e.target.value })}>
      <option value="">${t('jobs.any')}</option>${STATES.map((s) => html`<option value=${s}>${t(`status.${s}`)}</option>`)}</select></label>
    <${Filter} name="env_name" label=${t('jobs.environment')} view=${view} setView=${setView} options=${items.map((one) => one.env_name)} />
    <${Filter} name="model_name" label=${t('jobs.model')} view=${view} setView=${setView} options=${items.map((one) => one.model_name)} />`;
}

function Filter({ name, label, view, setView, options }) {
  return html`<label>${label}<input type="search" list=${`${name}-options`} value=${view[name]} placeholder=${t('jobs.any')}
    onChange=${(e) => setView({ [name]: e.target.value.trim() })} />
    <datalist id=${`${name}-options`}>${[...new Set(options)].map((o) => html`<option value=${o} />`)}</datalist></label>`;
}

function SortHead({ by, view, setView, numeric, children }) {
  const on = view.sort === by;
  return html`<th scope="col" class=${numeric ? 'number' : ''} aria-sort=${on ? 'ascending' : 'none'}>
    <button type="button" class="sort" onClick=${() => setView({ sort: on ? '' : by })}>${children}
      <span aria-hidden="true">${on ? '↓' : ''}</span></button></th>`;
}

// Jobs in the order that is wanted; those of one experiment together, under its name.
function arrange(jobs, sort, grouped) {
  const sorted = SORTS[sort]
    ? [...jobs].sort((a, b) => (SORTS[sort](a) < SORTS[sort](b) ? -1 : SORTS[sort](a) > SORTS[sort](b) ? 1 : 0))
    : jobs;
  if (grouped !== '1') return sorted;
  const groups = new Map();
  for (const job of sorted) {
    const key = job.experiment_id || job.job_id;
    groups.set(key, [...(groups.get(key) || []), job]);
  }
  return [...groups.values()].flatMap((found) => (found[0].experiment_id ? [{ jobs: found }, ...found] : found));
}

function Group({ row: { jobs } }) {
  const [first] = jobs;
  const done = jobs.filter((job) => job.status === 'completed').length;
  return html`<tr class="group"><th scope="rowgroup" colspan="8">
    <a href=${`/app/experiments/${first.experiment_id}`}>${t('jobs.experiment', { id: short(first.experiment_id) })}</a>
    <span class="muted">${first.env_name} · ${t('jobs.seeds_here', { n: jobs.length, done })}</span></th></tr>`;
}

function JobRow({ job, points, nested, ticked, onTick, onDone }) {
  const m = job.metrics;
  return html`<tr class=${nested ? 'nested' : ''}>
    <td class="tick"><input type="checkbox" checked=${ticked} onChange=${onTick} aria-label=${t('jobs.tick', { name: job.model_name })} /></td>
    <td class="name"><a href=${`/app/jobs/${job.job_id}`}>${nested ? short(job.job_id) : job.model_name}</a>
      <span class="muted">${nested ? job.env_name : `${job.env_name} · ${short(job.job_id)}`}</span></td>
    <td class="curve"><${Sparkline} points=${points} label=${job.model_name} /></td>
    <td class="state"><${Status} status=${job.status} progress=${job.progress} message=${job.status_message && html`<${Said} text=${job.status_message} />`} />
      ${job.status === 'failed' && html`<span class="fault" title=${job.error_message}><${Said} text=${job.error_message} /></span>`}</td>
    <td class="number"><${Estimate} value=${m['eval/mean_reward']} low=${m['eval/ci_low']} high=${m['eval/ci_high']} /></td>
    <td class="verdict"><${Verdict} job=${job} /></td>
    <td class="time">${job.eta_seconds !== null && !ENDED.has(job.status)
      ? html`<span>${t('jobs.eta', { time: duration(job.eta_seconds) })}</span>` : html`<${Ago} time=${job.end_time || job.start_time} />`}</td>
    <td class="do"><${JobActions} job=${job} onDone=${onDone} /></td></tr>`;
}

// What its evaluation came to: champion or not, and why.
export function Verdict({ job, long }) {
  const learned = job.verdict ? verdict(job.verdict) : '';
  if (job.promoted === null) return learned ? html`<span>${learned}</span>` : html`<span class="dash">–</span>`;
  const word = job.promoted ? t('verdict.champion') : t('verdict.kept');
  const why = sentences([learned, job.decision ? decision(job.decision) : job.promotion_reason]);
  return html`<span class="badge ${job.promoted ? 'good' : ''}">${word}</span>
    ${why && html`<span class=${long ? 'muted' : 'muted clip'} title=${long ? null : why}>${why}</span>`}`;
}

export function JobActions({ job, onDone, onDeleted }) {
  const name = job.model_name;
  const path = `/training/${job.job_id}`;
  const stop = () => act({ title: t('stop.title', { name }), text: t('stop.text'), action: t('stop.action') }, 'POST', `${path}/stop`, undefined, onDone, () => t('stop.done'));
  const resume = () => act(null, 'POST', `${path}/resume`, undefined, onDone, () => t('resume.done'));
  const remove = () => act({ title: t('delete.title', { name }), text: t('delete.job'), action: t('delete.action'), danger: true }, 'DELETE', path, undefined, onDeleted || onDone, () => t('delete.done'));
  return ENDED.has(job.status) ? html`
    ${job.status !== 'completed' && html`<button type="button" class="quiet" onClick=${resume}
      aria-label=${t('resume.label', { name })}>${job.status === 'failed' ? t('retry.action') : t('resume.action')}</button>`}
    <button type="button" class="quiet" onClick=${remove} aria-label=${t('delete.label', { name })}>${t('delete.action')}</button>`
    : html`<button type="button" class="quiet" onClick=${stop} aria-label=${t('stop.label', { name })}>${t('stop.action')}</button>`;
}

function Nothing({ filtered, onStart }) {
  return html`<div class="empty"><h2>${filtered ? t('empty.filtered') : t('empty.title')}</h2>
    ${!filtered && html`<p>${t('empty.text')}</p><button type="button" class="primary" onClick=${onStart}>${t('jobs.start')}</button>`}</div>`;
}

// The learning curves of the jobs on a page, three at a time; those that train are looked at again.
function useCurves(jobs) {
  const [curves, setCurves] = useState(new Map());
  useEffect(() => {
    let left = false;
    const wanted = jobs.filter((job) => job.current_timesteps > 0 && !(curves.get(job.job_id) && curves.get(job.job_id).ended));
    const next = async () => {
      const job = wanted.shift();
      if (!job || left) return;
      const path = `/training/${job.job_id}/metrics${query({ key: CURVE, max_points: 40 })}`;
      const { points } = await get(path).catch(() => ({ points: [] }));
      if (left) return;
      points.ended = ENDED.has(job.status);
      setCurves((before) => new Map(before).set(job.job_id, points));
      await next();
    };
    [next, next, next].forEach((one) => one());
    return () => {
      left = true;
    };
  }, [jobs.map((job) => `${job.job_id}${job.status}${Math.floor(job.progress * 10)}`).join()]);
  return curves;
}

// --- experiments

function Experiments({ view, setView, started, onStart }) {
  const filters = { status: view.status, env_name: view.env_name, model_name: view.model_name };
  const { items, error, reload, pager } = usePages(`/experiments${query({ ...filters, limit: PAGE })}`, 'experiments', often, started);
  const [ticked, setTicked] = useState([]);
  const tick = (id) => setTicked((now) => (now.includes(id) ? now.filter((one) => one !== id) : [...now, id]));
  return html`<div class="filters"><${Filters} view=${view} setView=${setView} items=${items || []} />
      ${ticked.length > 0 && html`<a class="button ${ticked.length < 2 ? 'off' : ''}"
        href=${ticked.length < 2 ? null : `/app/compare?experiment=${ticked.join('&experiment=')}`}>${t('jobs.compare', { n: ticked.length })}</a>`}</div>
    <${Problem} error=${error} retry=${reload} />
    ${!items ? !error && html`<${Loading} />` : items.length === 0 ? html`<${Nothing} filtered=${Object.values(filters).some(Boolean)} onStart=${onStart} />` : html`
    <div class="scroll"><table class="list"><thead><tr>
      <th scope="col"><span class="hidden">${t('jobs.choose')}</span></th>
      <th scope="col">${t('jobs.run')}</th><th scope="col">${t('experiments.seeds')}</th><th scope="col">${t('jobs.status')}</th>
      <th scope="col" class="number">${t('experiments.iqm')}</th><th scope="col">${t('jobs.time')}</th>
      <th scope="col"><span class="hidden">${t('jobs.actions')}</span></th></tr></thead>
      <tbody>${items.map((one) => html`<tr key=${one.experiment_id}>
        <td class="tick"><input type="checkbox" checked=${ticked.includes(one.experiment_id)} onChange=${() => tick(one.experiment_id)}
          aria-label=${t('jobs.tick', { name: one.model_name })} /></td>
        <td class="name"><a href=${`/app/experiments/${one.experiment_id}`}>${one.model_name}</a>
          <span class="muted">${one.env_name} · ${short(one.experiment_id)}</span></td>
        <td>${Object.entries(one.counts).map(([state, n]) => html`<span class="count ${state}">${n} ${t(`status.${state}`)}</span>`)}</td>
        <td class="state"><${Status} status=${one.status} progress=${one.progress} />
          ${one.status === 'failed' && html`<span class="fault" title=${one.error_message}><${Said} text=${one.error_message} /></span>`}</td>
        <td class="number"><${Estimate} value=${one.iqm} low=${one.ci_low} high=${one.ci_high} /></td>
        <td class="time">${one.eta_seconds !== null ? t('jobs.eta', { time: duration(one.eta_seconds) }) : html`<${Ago} time=${one.end_time || one.start_time} />`}</td>
        <td class="do"><${ExperimentActions} experiment=${one} onDone=${reload} /></td></tr>`)}</tbody></table></div>${pager}`}`;
}

export function ExperimentActions({ experiment, onDone, onDeleted }) {
  const name = experiment.model_name;
  const path = `/experiments/${experiment.experiment_id}`;
  const post = (verb) => act(null, 'POST', `${path}/${verb}`, undefined, onDone, () => t('resume.done'));
  const stop = () => act({ title: t('stop.title', { name }), text: t('stop.experiment'), action: t('stop.action') }, 'POST', `${path}/stop`, undefined, onDone, () => t('stop.done'));
  const remove = () => act({ title: t('delete.title', { name }), text: t('delete.experiment'), action: t('delete.action'), danger: true }, 'DELETE', path, undefined, onDeleted || onDone, () => t('delete.done'));
  const failed = (experiment.counts.failed || 0) > 0;
  return html`
    ${failed && html`<button type="button" class="quiet" onClick=${() => post('retry')} aria-label=${t('retry.label', { name })}>${t('retry.action')}</button>`}
    ${!ENDED.has(experiment.status) ? html`<button type="button" class="quiet" onClick=${stop} aria-label=${t('stop.label', { name })}>${t('stop.action')}</button>` : html`
      ${experiment.status === 'stopped' && html`<button type="button" class="quiet" onClick=${() => post('resume')} aria-label=${t('resume.label', { name })}>${t('resume.action')}</button>`}
      <button type="button" class="quiet" onClick=${remove} aria-label=${t('delete.label', { name })}>${t('delete.action')}</button>`}`;
}
