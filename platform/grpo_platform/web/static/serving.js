// What this server serves: how much, how fast, and of what kind beside what the evaluation saw.
import { Ago, Loading, PageHead, Problem, html, number, t, useApi, useState } from './lib.js';
import { Said } from './said.js';

export default function ServingPage() {
  const { data, error, reload } = useApi('/serving', () => 3);
  const [open, setOpen] = useState(location.hash.slice(1));
  const show = (key) => {
    const next = open === key ? '' : key;
    history.replaceState(null, '', `${location.pathname}${next && `#${next}`}`);
    setOpen(next);
  };
  const models = data && data.models;
  return html`<${PageHead} title=${t('serving.title')} />
    <p class="lead muted">${t('serving.help')}</p>
    <${Problem} error=${error} retry=${reload} />
    ${!models ? !error && html`<${Loading} />` : models.length === 0 ? html`<div class="empty"><h2>${t('serving.none')}</h2>
      <p>${t('serving.none_help')}</p><pre tabindex="0">${`curl ${location.origin}/inference -H 'Content-Type: application/json' \\
  -d '{"model_name": "my_cartpole_model", "observation": [0, 0, 0, 0]}'`}</pre></div>` : html`
    <div class="scroll"><table class="list"><thead><tr><th scope="col">${t('serving.model')}</th>
      <th scope="col" class="number">${t('serving.rate')}</th><th scope="col" class="number">${t('serving.requests')}</th>
      <th scope="col" class="number">p50</th><th scope="col" class="number">p95</th><th scope="col" class="number">p99</th>
      <th scope="col">${t('serving.latest')}</th></tr></thead>
      <tbody>${models.map((m) => html`<${Row} key=${`${m.name}/${m.version}`} model=${m} open=${open === `${m.name}/${m.version}`} onOpen=${() => show(`${m.name}/${m.version}`)} />`)}</tbody></table></div>`}`;
}

function Row({ model: m, open, onOpen }) {
  const time = (ms) => t('serving.ms', { ms: number(ms) });
  return html`<tr><td class="name"><button type="button" class="link" aria-expanded=${open} onClick=${onOpen}>${m.name}</button>
      <a href=${`/app/models/${encodeURIComponent(m.name)}`} class="muted">${t('job.version', { version: String(m.version) })}</a></td>
    <td class="number" data-label=${t('serving.rate')}>${t('serving.per_second', { n: number(m.requests_per_second) })}</td>
    <td class="number" data-label=${t('serving.requests')}>${number(m.requests)}${m.observations !== m.requests && html` <span class="muted">${t('serving.observations', { n: m.observations })}</span>`}</td>
    <td class="number" data-label="p50">${time(m.latency_p50_ms)}</td><td class="number" data-label="p95">${time(m.latency_p95_ms)}</td><td class="number" data-label="p99">${time(m.latency_p99_ms)}</td>
    <td class="time"><${Ago} time=${m.latest} /></td></tr>
    ${open && html`<tr class="open"><td colspan="7"><${Kinds} name=${m.name} version=${m.version} /></td></tr>`}`;
}

function Kinds({ name, version }) {
  const { data, error } = useApi(`/serving/${encodeURIComponent(name)}/versions/${version}`, () => 3);
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  const features = [...data.features].sort((a, b) => (b.distance ?? 0) - (a.distance ?? 0));
  return html`<p>${t('serving.steps', { n: data.steps })} ${data.evaluation_steps !== null && t('serving.against', { n: data.evaluation_steps })}
      ${data.note && html`<span class="muted"><${Said} text=${data.note} /></span>`}</p>
    <ul class="legend"><li><svg class="swatch bar" viewBox="0 0 16 8" width="16" height="8" aria-hidden="true"><rect width="16" height="8" /></svg>${t('serving.served')}</li>
      ${data.evaluation_steps !== null && html`<li><svg class="swatch step" viewBox="0 0 16 8" width="16" height="8" aria-hidden="true"><path d="M0 4h16" /></svg>${t('serving.evaluation')}</li>`}</ul>
    <div class="grid histograms">${data.actions.map((one) => html`<${Histogram} key=${`a${one.name}`} one=${one} title=${data.actions.length === 1 ? t('serving.action') : t('serving.action_n', { name: one.name })} />`)}
      ${features.map((one) => html`<${Histogram} key=${one.name} one=${one} title=${t('serving.feature', { name: one.name })} />`)}</div>
    ${!data.features.length && html`<p class="muted">${t('serving.too_many')}</p>`}`;
}

const [WIDTH, HEIGHT] = [240, 72];

function Histogram({ one, title }) {
  const n = one.served.length;
  const other = one.evaluation;
  const most = Math.max(...one.served, ...(other || []), 1e-9);
  const y = (share) => HEIGHT - (HEIGHT - 2) * (share / most);
  const choices = Math.abs(one.high - one.low - n) < 1e-9; // a bin each
  const edge = (i) => one.low + ((one.high - one.low) * i) / n + (choices ? 0.5 : 0);
  const steps = other && `M0 ${HEIGHT}${other.map((share, i) => `V${y(share).toFixed(1)}H${((WIDTH * (i + 1)) / n).toFixed(1)}`).join('')}V${HEIGHT}`;
  const far = one.distance === null ? '' : t('serving.distance', { d: number(one.distance) });
  return html`<figure class="histogram"><figcaption><strong>${title}</strong> <span class=${one.distance > 0.5 ? 'fault' : 'muted'}>${far}</span></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${title}: ${number(one.low)} – ${number(one.high)}. ${far}`} preserveAspectRatio="none">
      ${one.served.map((share, i) => html`<rect x=${(WIDTH * i) / n + 0.5} width=${WIDTH / n - 1} y=${y(share)} height=${HEIGHT - y(share)} />`)}
      ${steps && html`<path d=${steps} />`}</svg>
    <p class="ends"><span>${number(edge(0))}</span><span>${number(choices ? edge(n - 1) : edge(n))}</span></p>
    <details><summary>${t('chart.table')}</summary><div class="scroll" tabindex="0"><table><thead><tr><th scope="col" class="number">${choices ? t('serving.action') : t('serving.from')}</th>
      <th scope="col" class="number">${t('serving.served')}</th>${other && html`<th scope="col" class="number">${t('serving.evaluation')}</th>`}</tr></thead>
      <tbody>${one.served.map((share, i) => html`<tr><th scope="row" class="number">${number(edge(i))}</th><td class="number">${number(100 * share)} %</td>
        ${other && html`<td class="number">${number(100 * other[i])} %</td>`}</tr>`)}</tbody></table></div></details></figure>`;
}
