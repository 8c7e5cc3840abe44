// All registered models: what serves, and how it does.
import { Loading, PageHead, Problem, html, number, t, useApi, useEffect, useState } from './lib.js';

export default function ModelsPage() {
  const [tokens, setTokens] = useState([null]);
  const [filter, setFilter] = useState('');
  const token = tokens[tokens.length - 1];
  const { data, error, reload } = useApi(`/models?limit=100${token ? `&page_token=${encodeURIComponent(token)}` : ''}`, () => 10);
  const wanted = filter.trim().toLowerCase();
  const models = data && data.models.filter((m) => !wanted || `${m.name} ${m.env_name}`.toLowerCase().includes(wanted));
  return html`<${PageHead} title=${t('models.title')} />
    <div class="filters"><label>${t('models.filter')}<input type="search" value=${filter} onInput=${(e) => setFilter(e.target.value)} /></label></div>
    <${Problem} error=${error} retry=${reload} />
    ${!models ? !error && html`<${Loading} />` : models.length === 0 ? html`<div class="empty"><h2>${wanted ? t('empty.filtered') : t('models.none')}</h2></div>` : html`
    <div class="scroll"><table class="list"><thead><tr><th scope="col">${t('models.name')}</th><th scope="col">${t('models.serves')}</th>
      <th scope="col" class="number">${t('models.latest')}</th><th scope="col" class="number">${t('models.return')}</th><th scope="col">${t('models.memory')}</th></tr></thead>
      <tbody>${models.map((m) => html`<tr key=${m.name}><td class="name"><a href=${`/app/models/${encodeURIComponent(m.name)}`}>${m.name}</a><span class="muted">${m.env_name}</span></td>
        <td>${m.champion === null ? html`<span class="muted">${t('models.latest_serves')}</span>` : html`<span class="badge good">${t('models.champion', { version: String(m.champion) })}</span>`}</td>
        <td class="number" data-label=${t('models.latest')}>${m.latest_version}</td><td class="number" data-label=${t('jobs.return')}>${number(m.eval_return_mean)}</td>
        <td class="muted">${t(`models.${m.status}`)}</td></tr>`)}</tbody></table></div>
      ${(tokens.length > 1 || data.next_page_token) && html`<nav class="pager" aria-label=${t('pages.label')}>
        <button type="button" disabled=${tokens.length === 1} onClick=${() => setTokens(tokens.slice(0, -1))}>${t('pages.back')}</button>
        <button type="button" disabled=${!data.next_page_token} onClick=${() => setTokens([...tokens, data.next_page_token])}>${t('pages.on')}</button></nav>`}`}`;
}
