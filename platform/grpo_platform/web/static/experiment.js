// One experiment: what its seeds come to together, and each of them.
import { Chart, colour } from './chart.js';
import { ExperimentActions } from './jobs.js';
import {
  Ago, ENDED, Estimate, InMlflow, Loading, PageHead, Problem, Status, duration, get, html, number, query, short, t,
  useApi, useEffect, useMemo, useState,
} from './lib.js';
import { Said, selection as selected, sentences, verdict as learned } from './said.js';

export default function ExperimentPage({ id }) {
  const path = `/experiments/${id}`;
  const often = (found) => (found && ENDED.has(found.status) ? 0 : 3);
  const { data: experiment, error, reload } = useApi(path, often);
  const history = useApi(`${path}/history`, () => (experiment && ENDED.has(experiment.status) ? 0 : 8));
  const seeds = useSeeds(experiment);
  const threshold = experiment && experiment.results.threshold;
  const lines = useMemo(() => (threshold === null || threshold === undefined ? [] : [{ label: t('job.threshold'), y: threshold }]), [threshold]);
  const curves = useMemo(() => {
    const points = (history.data && history.data.points) || [];
    const together = { label: t('experiments.iqm'), colour: colour(0), x: points.map((p) => p.step), y: points.map((p) => p.iqm),
      low: points.map((p) => p.ci_low), high: points.map((p) => p.ci_high) };
    return [together, ...seeds.map(({ seed, points: own }) => ({ label: t('experiment.seed', { seed: String(seed) }), colour: colour(7), thin: true,
      x: own.map((p) => p.step), y: own.map((p) => p.value) }))];
  }, [history.data, seeds]);
  if (!experiment) {
    return error ? html`<${PageHead} title=${short(id)} /><${Problem} error=${error} retry=${reload} />`
      : html`<${PageHead} title=${short(id)} trail=${html`<${Up} />`}><${Ways} id=${id} /><//><${Loading} />`;
  }
  const { results, selection } = experiment;
  const verdict = [results.verdict && learned(results.verdict), selection && selected(selection)];
  return html`
    <${PageHead} title=${experiment.model_name} trail=${html`<${Up} /> / ${experiment.env_name}`}>
      <${Ways} id=${id} />
      ${selection && selection.model_version !== null && html`<a class="button" href=${`/app/models/${encodeURIComponent(experiment.model_name)}`}>${t('job.version', { version: String(selection.model_version) })}</a>`}
      <span class="bordered"><${ExperimentActions} experiment=${experiment} onDone=${reload} onDeleted=${() => location.assign('/app?view=experiments')} /></span>
    <//>
    <${Problem} error=${error} />
    ${experiment.error_message && html`<div class="notice problem"><p><${Said} text=${experiment.error_message} /></p></div>`}
    <dl class="facts">
      <div><dt>${t('jobs.status')}</dt><dd aria-live="polite"><${Status} status=${experiment.status} progress=${experiment.progress} /></dd></div>
      <div><dt>${t('experiments.seeds')}</dt><dd>${t('experiment.completed', { n: results.completed, all: experiment.n_seeds })}</dd></div>
      <div><dt>${t('experiments.iqm')}</dt><dd><${Spread} of=${results.iqm} /></dd></div>
      <div><dt>${t('experiment.mean')}</dt><dd><${Spread} of=${results.mean} /></dd></div>
      <div><dt>${t('experiment.area')}</dt><dd><${Spread} of=${results.area_under_curve} /></dd></div>
      <div><dt>${t('experiment.reached')}</dt><dd>${results.threshold === null ? '–' : t('experiment.reached_of', { n: results.reached, all: results.completed })}
        ${results.steps_to_threshold !== null && html` <span class="muted">${t('experiment.median_steps', { n: Math.round(results.steps_to_threshold) })}</span>`}</dd></div>
      <div><dt>${t('jobs.time')}</dt><dd>${experiment.eta_seconds !== null ? t('jobs.eta', { time: duration(experiment.eta_seconds) }) : html`<${Ago} time=${experiment.end_time || experiment.start_time} />`}</dd></div>
      ${verdict.some(Boolean) && html`<div class="wide"><dt>${t('jobs.verdict')}</dt><dd>${selection && html`<span class="badge ${selection.promoted ? 'good' : ''}">${selection.promoted ? t('verdict.champion') : t('verdict.kept')}</span> `}${sentences(verdict)}</dd></div>`}
    </dl>
    <div class="card"><${Chart} title=${t('job.returns')} series=${curves} lines=${lines} height=${320} /></div>
    <div class="scroll"><table class="list"><thead><tr><th scope="col">${t('experiment.seed_head')}</th><th scope="col">${t('jobs.status')}</th>
      <th scope="col" class="number">${t('jobs.return')}</th><th scope="col" class="number">${t('experiment.area')}</th>
      <th scope="col" class="number">${t('experiment.steps_to')}</th><th scope="col">${t('experiment.version')}</th></tr></thead>
      <tbody>${experiment.seeds.map((seed) => html`<tr key=${seed.job_id}>
        <td class="name"><a href=${`/app/jobs/${seed.job_id}`}>${t('experiment.seed', { seed: String(seed.seed) })}</a><span class="muted">${short(seed.job_id)}</span></td>
        <td class="state"><${Status} status=${seed.state} progress=${seed.progress} />${seed.error_message && html`<span class="fault" title=${seed.error_message}><${Said} text=${seed.error_message} /></span>`}</td>
        <td class="number" data-label=${t('jobs.return')}>${number(seed.evaluation)}</td><td class="number" data-label=${t('experiment.area')}>${number(seed.area_under_curve)}</td>
        <td class="number" data-label=${t('experiment.steps_to')}>${number(seed.steps_to_threshold)}</td><td data-label=${t('experiment.version')}>${seed.model_version === null ? '–' : seed.model_version}
          ${selection && selection.seed === seed.seed && html` <span class="badge good">${t('experiment.chosen')}</span>`}</td></tr>`)}</tbody></table></div>`;
}

const Up = () => html`<a href="/app?view=experiments">${t('jobs.experiments')}</a>`;
const Ways = ({ id }) => html`<${InMlflow} kind="run" id=${id} /><a class="button" href=${`/app/compare?experiment=${id}`}>${t('experiment.compare')}</a>`;
const Spread = ({ of }) => html`<${Estimate} value=${of && of.estimate} low=${of && of.low} high=${of && of.high} />`;

// The curve of each seed, three at a time, looked at again while it trains.
function useSeeds(experiment) {
  const [curves, setCurves] = useState([]);
  const moment = experiment ? experiment.seeds.map((seed) => `${seed.state}${Math.floor(seed.progress * 5)}`).join() : '';
  useEffect(() => {
    if (!experiment) return undefined;
    let left = false;
    const wanted = experiment.seeds.filter((seed) => seed.current_timesteps > 0);
    const found = [];
    const next = async () => {
      const seed = wanted.shift();
      if (!seed || left) return;
      const path = `/training/${seed.job_id}/metrics${query({ key: experiment.results.curve_key, max_points: 200 })}`;
      const { points } = await get(path).catch(() => ({ points: [] }));
      if (points.length) found.push({ seed: seed.seed, points });
      await next();
    };
    Promise.all([next(), next(), next()]).then(() => !left && setCurves(found.sort((a, b) => a.seed - b.seed)));
    return () => {
      left = true;
    };
  }, [moment]);
  return curves;
}
