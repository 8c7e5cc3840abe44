// One model: its versions with their evidence, decisions about them, two of them side by side.
import { Failures, Film } from './job.js';
import {
  Ago, Estimate, InMlflow, Loading, PageHead, Problem, act, api, html, number, say, short, t, useApi, useState,
} from './lib.js';
import { Said, decision, pair as compared } from './said.js';

export default function ModelPage({ name }) {
  const path = `/models/${encodeURIComponent(name)}`;
  const { data: model, error, reload } = useApi(path, () => 10);
  const [ticked, setTicked] = useState([]);
  const [open, setOpen] = useState(null);
  if (!model) return error ? html`<${PageHead} title=${name} /><${Problem} error=${error} retry=${reload} />` : html`<${Loading} />`;
  const tick = (version) => setTicked((now) => (now.includes(version) ? now.filter((one) => one !== version) : [...now, version].slice(-2)));
  const promote = (version, force) => act({
    title: t(force ? 'model.force_title' : 'model.promote_title', { name, version: String(version) }), text: t(force ? 'model.force_text' : 'model.promote_text'),
    action: t('model.promote'), reason: t('model.reason'), danger: force,
  }, 'POST', `${path}/promote`, ({ reason }) => ({ version, force, note: reason }), reload, decision);
  const rollBack = async () => {
    await act({ title: t('model.rollback_title', { name }), text: t('model.rollback_text'), action: t('model.rollback'), reason: t('model.reason'), danger: true },
      'POST', ({ reason }) => `${path}/rollback?note=${encodeURIComponent(reason)}`, undefined, reload, decision);
  };
  const pair = ticked.map((version) => model.versions.find((one) => one.version === version)).filter(Boolean);
  return html`
    <${PageHead} title=${name} trail=${html`<a href="/app/models">${t('nav.models')}</a> / ${model.env_name}`}>
      <${InMlflow} kind="model" id=${name} />
      <a class="button" href=${`/app/play?model=${encodeURIComponent(name)}`}>${t('play.watch')}</a>
      <button type="button" onClick=${rollBack} disabled=${model.decisions.length < 2}>${t('model.rollback')}</button>
    <//>
    <${Problem} error=${error} />
    <p class="lead">${model.champion === null ? t('model.no_champion', { version: String(model.latest_version) }) : t('model.serves', { version: String(model.champion) })}
      <span class="muted">${t('model.tick_two')}</span></p>
    ${pair.length === 2 && html`<${Pair} key=${ticked.join()} name=${name} pair=${pair} />`}
    <div class="scroll"><table class="list versions"><thead><tr><th scope="col"><span class="hidden">${t('jobs.choose')}</span></th>
      <th scope="col">${t('experiment.version')}</th><th scope="col" class="number">${t('jobs.return')}</th><th scope="col" class="number">${t('model.episodes')}</th>
      <th scope="col">${t('model.trained')}</th><th scope="col">${t('jobs.time')}</th><th scope="col"><span class="hidden">${t('jobs.actions')}</span></th></tr></thead>
      <tbody>${model.versions.map((one) => html`<${Version} key=${one.version} name=${name} one=${one} champion=${model.champion} open=${open === one.version}
        onOpen=${() => setOpen(open === one.version ? null : one.version)} ticked=${ticked.includes(one.version)} onTick=${() => tick(one.version)}
        onPromote=${(force) => promote(one.version, force)} />`)}</tbody></table></div>
    <${Decisions} decisions=${model.decisions} versions=${model.versions} />`;
}

function Version({ name, one, champion, open, onOpen, ticked, onTick, onPromote }) {
  const e = one.evaluation;
  const label = t('job.version', { version: String(one.version) });
  return html`<tr><td class="tick"><input type="checkbox" checked=${ticked} onChange=${onTick} aria-label=${t('model.tick', { version: String(one.version) })} /></td>
    <td class="name"><button type="button" class="link" aria-expanded=${open} onClick=${onOpen}>${label}</button>
      ${one.version === champion && html`<span class="badge good">${t('verdict.champion')}</span>`}</td>
    <td class="number"><${Estimate} value=${e && e[e.interval_of]} low=${e && e.ci_low} high=${e && e.ci_high} /></td>
    <td class="number extra">${e ? number(e.episodes) : '–'}</td>
    <td>${t('model.trained_for', { n: one.timesteps ?? 0, seed: String(one.seed) })} <a href=${`/app/jobs/${one.job_id}`}>${short(one.job_id)}</a></td>
    <td class="time"><${Ago} time=${one.created_at} /></td>
    <td class="do">${one.version !== champion && html`<button type="button" class="quiet" onClick=${() => onPromote(false)} aria-label=${t('model.promote_label', { version: String(one.version) })}>${t('model.promote')}</button>`}</td></tr>
    ${open && html`<tr class="open"><td colspan="7"><${Card} name=${name} one=${one} champion=${champion} onPromote=${onPromote} /></td></tr>`}`;
}

// All that is known of a version: where it comes from, scenarios, failures, films, downloads.
function Card({ name, one, champion, onPromote }) {
  const failures = useApi(`/training/${one.job_id}/failures`);
  const scenarios = useApi(`/models/${encodeURIComponent(name)}/versions/${one.version}/scenarios`);
  const latest = scenarios.data && scenarios.data.latest;
  const files = `/models/${encodeURIComponent(name)}/versions/${one.version}/download?format=`;
  return html`<div class="columns even"><div>
      <dl class="pairs"><dt>${t('model.commit')}</dt><dd><code>${one.git_commit ? short(one.git_commit) : '–'}</code></dd>
        <dt>${t('model.weights')}</dt><dd><code>${one.weights_sha256}</code></dd>
        <dt>${t('model.learning_rate')}</dt><dd>${one.config.learning_rate}</dd>
        <dt>${t('model.advantage')}</dt><dd>${one.config.advantage}, ${one.config.num_groups} × ${one.config.group_size}</dd>
        <dt>${t('model.aliases')}</dt><dd>${one.aliases.join(', ') || '–'}</dd>
        ${one.selection && html`<dt>${t('model.selection')}</dt><dd lang="en">${one.selection}</dd>`}</dl>
      <div class="actions"><a class="button" href=${`${files}mlflow`} download>${t('model.download_mlflow')}</a><a class="button" href=${`${files}pt2`} download>pt2</a><a class="button" href=${`${files}onnx`} download>ONNX</a>
        ${one.version !== champion && html`<button type="button" class="quiet" onClick=${() => onPromote(true)}>${t('model.force')}</button>`}</div>
      <h3>${t('model.scenarios')}</h3>
      ${latest ? html`<p><span class="badge ${latest.passed ? 'good' : 'bad'}">${latest.passed ? t('model.passed') : t('model.failed')}</span> ${t('model.scenarios_passed', { n: latest.scenarios.filter((s) => s.passed).length, all: latest.scenarios.length })}</p>
        <ul class="plain">${latest.scenarios.map((s) => html`<li key=${s.name}><span class="badge ${s.passed ? 'good' : 'bad'}">${s.passed ? t('model.passed') : t('model.failed')}</span> ${s.name}
          <span class="muted">${t('model.scenario_facts', { n: s.episodes, mean: number(s.mean_return) })}</span></li>`)}</ul>`
        : html`<p class="muted">${t('model.no_scenarios')}</p>`}</div>
    <div><${Film} src=${`/training/${one.job_id}/film`} label=${t('job.film')} />
      ${failures.data && failures.data.failures.length > 0 ? html`<details><summary>${t('job.failures', { n: failures.data.failures.length })}</summary>
        <${Failures} id=${one.job_id} found=${failures.data} /></details>` : failures.data && html`<p class="muted">${failures.data.notes.map((note) => html`<${Said} text=${note} /> `)}</p>`}</div></div>`;
}

// Two versions on the same episodes: both films, and the difference with its interval.
function Pair({ name, pair }) {
  const [result, setResult] = useState(null);
  const [busy, setBusy] = useState(false);
  const compare = async () => {
    setBusy(true);
    try {
      setResult(await api('POST', '/comparisons', { references: pair.map((one) => ({ model: `${name}/${one.version}` })) }));
    } catch (error) {
      say(error.message, true);
    } finally {
      setBusy(false);
    }
  };
  const found = result && result.pairs[0];
  return html`<section class="card" aria-label=${t('model.pair')}><div class="card-head"><h2>${t('model.pair_of', { a: String(pair[0].version), b: String(pair[1].version) })}</h2>
      <button type="button" class="primary" onClick=${compare} disabled=${busy}>${busy ? t('model.playing') : t('model.play_both')}</button></div>
    <div aria-live="polite">${found ? html`<p><strong>${compared(found, result.sides.map((side) => side.label))}</strong></p>
      <dl class="facts"><div><dt>${t('model.difference')}</dt><dd><${Estimate} value=${found.mean.estimate} low=${found.mean.low} high=${found.mean.high} /></dd></div>
        <div><dt>${t('compare.probability')}</dt><dd><${Estimate} value=${found.probability.estimate} low=${found.probability.low} high=${found.probability.high} /></dd></div>
        ${result.sides.map((side) => html`<div><dt>${side.label}</dt><dd><${Estimate} value=${side.mean.estimate} low=${side.mean.low} high=${side.mean.high} /></dd></div>`)}</dl>`
      : html`<p class="muted">${t('model.pair_help')}</p>`}</div>
    <div class="columns even">${pair.map((one) => html`<figure key=${one.version}><figcaption>${t('job.version', { version: String(one.version) })}</figcaption>
      <${Film} src=${`/training/${one.job_id}/film`} label=${t('model.film_of', { version: String(one.version) })} /></figure>`)}</div></section>`;
}

function Decisions({ decisions, versions }) {
  if (!decisions.length) return null;
  return html`<section class="decisions"><h2>${t('model.decisions')}</h2><ol class="plain">${[...decisions].reverse().map((one) => html`<li key=${one.number}>
    <span class="badge ${one.promoted ? 'good' : ''}">${t(`decision.${one.verdict}`)}</span> <strong>${t('job.version', { version: String(one.version) })}</strong>
    <span class="muted"><${Ago} time=${one.decided_at} /> · ${one.actor}${one.forced ? ` · ${t('model.forced')}` : ''}</span><p>${decision(one, (versions.find((version) => version.version === one.version) || {}).baselines)}</p></li>`)}</ol></section>`;
}
