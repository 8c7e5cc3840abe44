// Two or more sides: curves with bands, performance profile, every pair with its interval, in words.
import { Chart, colour } from './chart.js';
import { Ago, Estimate, InMlflow, Loading, PageHead, Problem, api, html, number, query, t, useApi, useEffect, useMemo, useState } from './lib.js';
import { pair as compared } from './said.js';

const KINDS = ['experiment', 'job', 'model', 'sweep'];

export default function ComparePage() {
  const given = new URLSearchParams(location.search);
  const [id, setId] = useState(given.get('id'));
  const [sides, setSides] = useState(() => {
    const named = KINDS.flatMap((kind) => given.getAll(kind).map((value) => ({ kind, value })));
    return named.length ? [...named, ...(named.length < 2 ? [{ kind: named[0].kind, value: '' }] : [])] : [{ kind: 'experiment', value: '' }, { kind: 'experiment', value: '' }];
  });
  const [normalize, setNormalize] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const compare = async (event) => {
    if (event) event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const references = sides.filter((side) => side.value.trim()).map((side) => ({ [side.kind]: side.value.trim() }));
      const made = await api('POST', '/comparisons', { references, normalize });
      history.pushState(null, '', `/app/compare${query({ id: made.comparison_id })}`);
      setId(made.comparison_id);
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => {
    const back = () => setId(new URLSearchParams(location.search).get('id'));
    addEventListener('popstate', back);
    return () => removeEventListener('popstate', back);
  }, []);
  if (id) return html`<${Result} id=${id} />`;
  const change = (place, values) => setSides(sides.map((side, i) => (i === place ? { ...side, ...values } : side)));
  return html`<${PageHead} title=${t('compare.title')} />
    <form class="card compare" onSubmit=${compare}><p class="muted">${t('compare.help')}</p>
      ${sides.map((side, i) => html`<div class="side" key=${i}><label class="hidden" for=${`kind-${i}`}>${t('compare.kind', { n: i + 1 })}</label>
        <select id=${`kind-${i}`} value=${side.kind} onChange=${(e) => change(i, { kind: e.target.value })}>${KINDS.map((kind) => html`<option value=${kind}>${t(`compare.${kind}`)}</option>`)}</select>
        <label class="hidden" for=${`side-${i}`}>${t('compare.side', { n: i + 1 })}</label>
        <${Side} place=${i} side=${side} onInput=${(value) => change(i, { value })} />
        ${sides.length > 2 && html`<button type="button" class="quiet" aria-label=${t('compare.remove', { n: i + 1 })} onClick=${() => setSides(sides.filter((_, j) => j !== i))}>✕</button>`}</div>`)}
      <div class="actions">${sides.length < 8 && html`<button type="button" onClick=${() => setSides([...sides, { kind: sides[0].kind, value: '' }])}>${t('compare.add')}</button>`}
        <label class="check"><input type="checkbox" checked=${normalize} onChange=${(e) => setNormalize(e.target.checked)} /> ${t('compare.normalize')}</label>
        <button class="primary" disabled=${busy || sides.filter((side) => side.value.trim()).length < 2}>${busy ? t('model.playing') : t('compare.submit')}</button></div>
      <${Problem} error=${error} /></form>
    <${Earlier} />`;
}

// What a side may be, offered as one types.
function Side({ place, side, onInput }) {
  const paths = { experiment: '/experiments?limit=50', job: '/training/jobs?limit=50&status=completed', model: '/models?limit=100', sweep: '/sweeps?limit=50' };
  const { data } = useApi(paths[side.kind]);
  const options = data ? {
    experiment: (one) => [one.experiment_id, `${one.model_name} · ${one.env_name}`], job: (one) => [one.job_id, `${one.model_name} · ${one.env_name}`],
    model: (one) => [`${one.name}/${one.latest_version}`, one.env_name], sweep: (one) => [one.sweep_id, `${one.model_name} · ${one.env_name}`],
  } : null;
  const items = data ? (data.experiments || data.jobs || data.models || data.sweeps).map(options[side.kind]) : [];
  const chosen = items.find(([value]) => value === side.value);
  return html`<input id=${`side-${place}`} list=${`sides-${place}`} value=${side.value} autocomplete="off" spellcheck="false"
      placeholder=${side.kind === 'model' ? 'name/version' : t('compare.id')} onInput=${(e) => onInput(e.target.value)} />
    <datalist id=${`sides-${place}`}>${items.map(([value, label]) => html`<option value=${value}>${label}</option>`)}</datalist>
    <span class="muted">${chosen ? chosen[1] : ''}</span>`;
}

function Earlier() {
  const { data, error } = useApi('/comparisons?limit=20');
  if (!data) return html`<${Problem} error=${error} />`;
  if (!data.comparisons.length) return null;
  return html`<section class="decisions"><h2>${t('compare.earlier')}</h2><ol class="plain">${data.comparisons.map((one) => html`<li key=${one.comparison_id}>
    <a href=${`/app/compare?id=${one.comparison_id}`}>${one.labels.join(' · ')}</a> <span class="muted"><${Ago} time=${one.created_at} /></span><p>${one.first_pair ? compared(one.first_pair, one.labels, true) : one.sentence}</p></li>`)}</ol></section>`;
}

function Result({ id }) {
  const { data, error, reload } = useApi(`/comparisons/${id}`);
  const curves = useMemo(() => (data ? data.sides.filter((side) => side.curve && side.curve.steps.length).map((side, i) => ({
    label: side.label, colour: colour(i), x: side.curve.steps, y: side.curve.iqm, low: side.curve.low, high: side.curve.high })) : []), [data]);
  const profiles = useMemo(() => (data ? data.sides.filter((side) => side.profile).map((side, i) => ({
    label: side.label, colour: colour(i), x: side.profile.thresholds, y: side.profile.shares, low: side.profile.low, high: side.profile.high })) : []), [data]);
  if (!data) return error ? html`<${PageHead} title=${t('compare.title')} /><${Problem} error=${error} retry=${reload} />` : html`<${Loading} />`;
  return html`<${PageHead} title=${data.sides.map((side) => side.label).join(' · ')} trail=${html`<a href="/app/compare">${t('nav.compare')}</a>`}><${InMlflow} kind="run" id=${id} />
      <a class="button" href=${`/comparisons/${id}/report?format=markdown`} download=${`comparison-${id}.md`}>Markdown</a>
      <a class="button" href=${`/comparisons/${id}/report`} download=${`comparison-${id}.html`}>${t('compare.report')}</a><//>
    ${data.pairs.map((pair) => html`<p class="notice"><strong>${compared(pair, data.sides.map((side) => side.label))}</strong></p>`)}
    ${data.warnings.length > 0 && html`<ul class="notice warn plain">${data.notices.length ? data.notices.map(({ kind, values }) => html`<li>${t(`warning.${kind}`, values)}</li>`)
      : data.warnings.map((warning) => html`<li lang="en">${warning}</li>`)}</ul>`}
    ${data.correction && html`<p class="muted lead">${t('compare.correction', { n: data.pairs.length })}</p>`}
    <div class="scroll"><table class="list"><thead><tr><th scope="col">${t('compare.side_head')}</th><th scope="col" class="number">${t('compare.units')}</th>
      <th scope="col" class="number">${t('experiment.mean')}</th><th scope="col" class="number">${t('experiments.iqm')}</th><th scope="col" class="number">${t('experiment.area')}</th></tr></thead>
      <tbody>${data.sides.map((side) => html`<tr><td class="name"><a href=${sideHref(side.reference)}>${side.label}</a><span class="muted">${side.env_name}${side.chosen && html` · <span lang="en">${side.chosen}</span>`}</span></td>
        <td class="number" data-label=${t('compare.units')}>${t(`compare.${side.unit}s`, { n: side.returns.length })}</td><td class="number" data-label=${t('experiment.mean')}><${Estimate} value=${side.mean.estimate} low=${side.mean.low} high=${side.mean.high} /></td>
        <td class="number" data-label=${t('experiments.iqm')}><${Estimate} value=${side.iqm.estimate} low=${side.iqm.low} high=${side.iqm.high} /></td><td class="number" data-label=${t('experiment.area')}>${number(side.area)}</td></tr>`)}</tbody></table></div>
    <h2 class="lead">${t('compare.pairs')}</h2>
    <div class="scroll"><table class="list"><thead><tr><th scope="col">${t('compare.pair')}</th><th scope="col" class="number">${t('model.difference')}</th>
      <th scope="col" class="number">${t('compare.probability')}</th><th scope="col" class="number">p</th><th scope="col">${t('jobs.verdict')}</th></tr></thead>
      <tbody>${data.pairs.map((pair) => html`<tr><td class="name">${data.sides[pair.first].label} – ${data.sides[pair.second].label}</td>
        <td class="number" data-label=${t('model.difference')}><${Estimate} value=${pair.mean.estimate} low=${pair.mean.low} high=${pair.mean.high} /></td>
        <td class="number" data-label=${t('compare.probability')}><${Estimate} value=${pair.probability.estimate} low=${pair.probability.low} high=${pair.probability.high} /></td>
        <td class="number" data-label="p">${number(pair.adjusted_p_value ?? pair.p_value)}</td>
        <td><span class="badge ${pair.verdict === 'none' ? '' : 'good'}">${pair.verdict === 'none' ? t('compare.none') : t('compare.better', { label: data.sides[pair[pair.verdict]].label })}</span></td></tr>`)}</tbody></table></div>
    <div class="columns even lead">${curves.length > 0 && html`<div class="card"><${Chart} title=${t('compare.curves')} series=${curves} /></div>`}
      ${profiles.length > 0 && html`<div class="card"><${Chart} title=${t('compare.profile')} series=${profiles} xLabel=${t('compare.threshold')} /></div>`}</div>`;
}

function sideHref(reference) {
  if (reference.experiment) return `/app/experiments/${reference.experiment}`;
  if (reference.job) return `/app/jobs/${reference.job}`;
  return reference.model ? `/app/models/${encodeURIComponent(reference.model.split(/[/@]/)[0])}` : null;
}
